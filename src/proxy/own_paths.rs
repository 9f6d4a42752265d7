//! What the gateway serves itself on the proxy listener, under `/.well-known/hardtack/`, whatever the host.

use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use std::{net::IpAddr, sync::Arc};

use super::{Gateway, access::RequestId, problem::describe, write};
use crate::policy::Reason;

/// Who asks for one of the gateway's own paths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// From where.
    pub(crate) address: Option<IpAddr>,
    /// The id of the request.
    pub(crate) request: RequestId,
}

/// The router of the gateway's own paths.
pub(crate) fn router() -> Router<Arc<Gateway>> {
    write::router()
        .route("/.well-known/hardtack/", get(about))
        .route("/.well-known/hardtack/problems/{reason}", get(problem))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "The gateway has nothing under this path.\n",
            )
        })
}

async fn about() -> impl IntoResponse {
    let text = concat!("hardtack ", env!("CARGO_PKG_VERSION"), "\n");
    ([(header::CACHE_CONTROL, "no-store")], text)
}

/// The description of a problem type: what `type` of a problem document points to, offline as well.
async fn problem(Path(name): Path<String>) -> impl IntoResponse {
    let found = Reason::ALL.iter().find(|reason| reason.as_str() == name);
    match found.map(|reason| describe(*reason)) {
        Some((status, title)) => (
            StatusCode::OK,
            format!("{name}: {title} (status {}).\n", status.as_u16()),
        ),
        None => (
            StatusCode::NOT_FOUND,
            "No problem type of this name.\n".to_owned(),
        ),
    }
}
