//! `mode`: which mode is in force, and overrides with an expiry.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::json;
use tracing::info;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, audit,
    events::Kind,
    expiry,
    extract::{JsonBody, Parameters},
    operator::Operator,
    problem::{Document, Problem},
    text,
    view::{self, Modes},
};
use crate::{
    modes::ModeOverride,
    policy::{Mode, Timestamp},
};

/// An override to put on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetMode {
    /// `auto`, `online`, `prefer-cache` or `offline`.
    #[schema(value_type = String)]
    mode: Mode,
    /// The route; all where it is missing.
    route: Option<String>,
    /// For how long, such as `30m`.
    #[serde(rename = "for")]
    duration: Option<String>,
    /// Until when (RFC 3339).
    until: Option<String>,
    /// Why, for the record.
    reason: Option<String>,
}

/// Which override to take back.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichMode {
    /// The route; the global override where it is missing.
    route: Option<String>,
}

/// The modes in force.
#[utoipa::path(get, path = "/api/v1/mode", tag = "mode", responses((status = 200, body = Modes)))]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Json<Modes> {
    Json(view(&api, api.clock.now()))
}

/// Puts an override on, everywhere or for one route.
#[utoipa::path(put, path = "/api/v1/mode", tag = "mode", request_body = SetMode,
    responses((status = 200, body = Modes), (status = 404, description = "no such route", body = Document)))]
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    operator: Operator,
    JsonBody(wanted): JsonBody<SetMode>,
) -> Result<Json<Modes>, Problem> {
    let now = api.clock.now();
    let new = ModeOverride {
        mode: wanted.mode,
        until: expiry::until(wanted.duration.as_deref(), wanted.until.as_deref(), now)?,
        reason: expiry::reason(wanted.reason)?,
    };
    change(&api, operator, wanted.route.as_deref(), Some(new)).await?;
    Ok(Json(view(&api, now)))
}

/// Takes an override back.
#[utoipa::path(delete, path = "/api/v1/mode", tag = "mode", params(WhichMode),
    responses((status = 200, body = Modes), (status = 404, description = "no such route", body = Document)))]
pub(super) async fn unset(
    State(api): State<Arc<Api>>,
    operator: Operator,
    Parameters(which): Parameters<WhichMode>,
) -> Result<Json<Modes>, Problem> {
    change(&api, operator, which.route.as_deref(), None).await?;
    Ok(Json(view(&api, api.clock.now())))
}

async fn change(
    api: &Api,
    operator: Operator,
    route: Option<&str>,
    new: Option<ModeOverride>,
) -> Result<(), Problem> {
    let mode = new.as_ref().map_or("configured", |new| new.mode.as_str());
    let reason = new.as_ref().and_then(|new| new.reason.clone());
    if !api.modes.set(route, new) {
        let route = route.unwrap_or_default();
        return Err(Problem::not_found(format!("there is no route `{route}`")));
    }
    info!(route, mode, reason, "An operator set the mode.");
    let event = json!({ "route": route, "mode": mode, "reason": reason });
    let detail = event.to_string();
    api.events.add(Kind::Mode, event);
    audit::note(api, operator, "mode", detail).await;
    Ok(())
}

pub(super) fn view(api: &Api, now: Timestamp) -> Modes {
    let mode_of = |route| api.modes.effective(route, now).to_string();
    let routes = api
        .routes
        .iter()
        .enumerate()
        .map(|(index, name)| view::RouteMode {
            route: name.clone(),
            mode: mode_of(Some(index)),
        });
    let overrides = api
        .modes
        .overrides(now)
        .into_iter()
        .map(|(route, found)| view::ModeOverride {
            route: route.map(str::to_owned),
            mode: found.mode.to_string(),
            until: found.until.map(text::rfc3339),
            reason: found.reason,
        });
    Modes {
        mode: mode_of(None),
        routes: routes.collect(),
        overrides: overrides.collect(),
    }
}
