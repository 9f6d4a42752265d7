//! Every route of the listener, once: the router, the OpenAPI document and the test that holds them together are made
//! from the same list.

use std::sync::Arc;

use axum::{
    Json, Router,
    routing::{delete, get, post, put},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    Api, audit, entries, event_stream, health, mode, operations, overview,
    problem::{Kind, Problem},
    purge, queue, queue_changes, queue_transfer, upstreams,
};

macro_rules! routes {
    ($($method:ident $path:literal => $($handler:ident)::+;)+) => {
        #[derive(OpenApi)]
        #[openapi(
            info(title = "hardtack admin API"),
            paths($($($handler)::+),+),
            security(("token" = [])),
            modifiers(&BearerToken),
        )]
        struct Description;

        fn listed() -> Router<Arc<Api>> {
            Router::new()$(.route($path, $method($($handler)::+)))+
        }

        #[cfg(test)]
        const LISTED: &[(&str, &str)] = &[$((stringify!($method), $path)),+];
    };
}

routes! {
    get "/livez" => health::livez;
    get "/readyz" => health::readyz;
    get "/metrics" => health::metrics;
    get "/api/v1/openapi.json" => openapi;
    get "/api/v1/status" => overview::status;
    get "/api/v1/cache/entries" => entries::list;
    get "/api/v1/cache/entries/{id}" => entries::show;
    delete "/api/v1/cache/entries/{id}" => entries::remove;
    get "/api/v1/cache/entries/{id}/body" => entries::body;
    post "/api/v1/cache/purge" => purge::purge;
    get "/api/v1/mode" => mode::show;
    put "/api/v1/mode" => mode::set;
    delete "/api/v1/mode" => mode::unset;
    get "/api/v1/upstreams" => upstreams::list;
    put "/api/v1/upstreams/{name}/override" => upstreams::set;
    delete "/api/v1/upstreams/{name}/override" => upstreams::unset;
    get "/api/v1/queue/items" => queue::list;
    get "/api/v1/queue/items/{id}" => queue::show;
    post "/api/v1/queue/items/{id}/retry" => queue_changes::retry;
    post "/api/v1/queue/items/{id}/drop" => queue_changes::drop_item;
    post "/api/v1/queue/items/{id}/edit" => queue_changes::edit;
    post "/api/v1/queue/items/{id}/resolve" => queue_changes::resolve;
    get "/api/v1/queue/lanes" => queue::lanes;
    post "/api/v1/queue/redrive" => operations::redrive;
    get "/api/v1/operations/{id}" => operations::show;
    post "/api/v1/queue/pause" => queue_changes::hold;
    post "/api/v1/queue/resume" => queue_changes::resume;
    get "/api/v1/queue/export" => queue_transfer::export;
    post "/api/v1/queue/import" => queue_transfer::import;
    get "/api/v1/events" => event_stream::watch;
    get "/api/v1/audit" => audit::list;
}

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "The content of admin.token, or of read.token for GET.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Every route, and problem documents for the rest.
pub(super) fn router() -> Router<Arc<Api>> {
    listed()
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                Kind::MethodNotAllowed,
                "the field Allow lists the methods of this path",
            )
        })
}

/// This API as an OpenAPI document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "status",
    responses((status = 200, body = Object)))]
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::OpenApi;

    use super::{Description, LISTED};

    fn document() -> serde_json::Value {
        serde_json::to_value(Description::openapi()).unwrap()
    }

    #[test]
    fn the_openapi_document_has_every_route_and_no_other() {
        let document = document();
        let described: BTreeSet<(&str, &str)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(move |method| (method.as_str(), path.as_str()))
            })
            .collect();
        assert_eq!(described, LISTED.iter().copied().collect());
    }

    #[test]
    fn only_probes_go_without_a_token_in_the_document() {
        let document = document();
        assert_eq!(
            document["components"]["securitySchemes"]["token"]["scheme"],
            "bearer"
        );
        assert_eq!(document["security"][0]["token"], serde_json::json!([]));
        for (method, path) in LISTED {
            let free = document["paths"][path][method]["security"] == serde_json::json!([{}]);
            assert_eq!(free, !path.starts_with("/api/"), "{path}");
        }
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(document.pointer("/components/schemas/Problem").is_some());
    }

    #[test]
    fn no_get_has_a_body() {
        let document = document();
        for (method, path) in LISTED.iter().filter(|(method, _)| *method == "get") {
            assert!(
                document["paths"][path][method]["requestBody"].is_null(),
                "{path}"
            );
        }
    }
}
