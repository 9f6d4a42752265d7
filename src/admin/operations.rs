//! `queue/redrive`: many writes on their way again, in two steps; and `operations`: how far that is.

use std::sync::Arc;

use axum::{Json, extract::State, response::IntoResponse};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Api,
    extract::{JsonBody, Segment},
    operator::Operator,
    problem::{Document, Problem},
    queue::Filters,
    view::queue::{Failure, Operation},
};
use crate::queue;

/// What to redrive: a filter, or a plan that was made with `dry_run`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Redrive {
    /// Which writes; those that are parked or dead where it names no state.
    filter: Option<Filters>,
    /// The id of a plan.
    plan: Option<String>,
    /// Only freeze which writes these are.
    #[serde(default)]
    dry_run: bool,
}

/// Plans, or sets the writes of a plan on their way again. A plan is frozen: what matches later is not in it. There may be
/// four plans and running operations at once, and a plan that is not run expires after 10 min.
#[utoipa::path(post, path = "/api/v1/queue/redrive", tag = "queue", request_body = Redrive,
    responses((status = 200, description = "planned", body = Operation),
        (status = 202, description = "running; `operations/{id}` tells how far it is", body = Operation),
        (status = 400, body = Document), (status = 404, body = Document), (status = 503, body = Document)))]
pub(super) async fn redrive(
    State(api): State<Arc<Api>>,
    operator: Operator,
    JsonBody(wanted): JsonBody<Redrive>,
) -> Result<impl IntoResponse, Problem> {
    let planned = match (wanted.filter, wanted.plan) {
        (Some(filter), None) => {
            let filter = filter.checked(api.clock.now())?;
            api.queue.redrive_plan(filter).await?
        }
        (None, Some(plan)) if !wanted.dry_run => api.queue.operation(&plan)?,
        _ => {
            return Err(Problem::bad_request(
                "give a `filter`, or the id of a `plan` to run; not both",
            ));
        }
    };
    if wanted.dry_run {
        return Ok((StatusCode::OK, Json(view(planned))));
    }
    let by = operator.to_string();
    let running = api.queue.redrive_begin(&planned.id, &by)?;
    let (queue, shutdown) = (api.queue.clone(), api.shutdown.clone());
    api.tasks.spawn(async move {
        // What is recorded stays so; the rest keeps the state it has.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = queue.redrive_run(&planned.id, &by) => {}
        }
    });
    Ok((StatusCode::ACCEPTED, Json(view(running))))
}

/// How far an operation is.
#[utoipa::path(get, path = "/api/v1/operations/{id}", tag = "queue", params(("id" = String, Path)),
    responses((status = 200, body = Operation), (status = 404, body = Document)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Segment(id): Segment,
) -> Result<Json<Operation>, Problem> {
    let operation = api.queue.operation(&id);
    let none = |_| Problem::not_found(format!("there is no operation `{id}`"));
    Ok(Json(view(operation.map_err(none)?)))
}

fn view(operation: queue::Operation) -> Operation {
    let failures = operation.failures.into_iter();
    Operation {
        id: operation.id,
        state: operation.state.as_str().to_owned(),
        total: operation.total as u64,
        done: operation.done as u64,
        failed: operation.failed as u64,
        sample: operation.sample.iter().map(ToString::to_string).collect(),
        failures: failures
            .map(|(id, why)| Failure {
                id: id.to_string(),
                why,
            })
            .collect(),
    }
}
