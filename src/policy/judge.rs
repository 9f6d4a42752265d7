//! The second decision: what the origin's answer, or its silence, means for the store and the client.

use http::{HeaderMap, StatusCode};

use super::{
    Mark, Reason, RequestHead, Reuse, Settings, StoredHead, Timestamp,
    decide::is_read,
    directives::RequestDirectives,
    freshen::freshen,
    stale::{Window, reuse_if_error, reuse_within},
    storing::{Storing, may_store},
    validation::{identifies, sends_validators},
};

/// The head of an origin's answer, with the times around it. Hop-by-hop fields are already gone.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The final status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// When the request was sent.
    pub request_time: Timestamp,
    /// When this head was received.
    pub response_time: Timestamp,
}

/// What an answer means.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// Store it under this head once its body is complete, and hand it on.
    Store(Box<StoredHead>),
    /// Hand it on and leave the store alone.
    Pass(Reason),
    /// A 304 for the stored response: this is its head now; answer from the store.
    Freshen(Box<StoredHead>),
    /// A 304 that matches nothing stored, to validators of our own: ask again without conditions.
    AskUnconditionally,
    /// An error answer, and the stored response may stand in for it (stale-if-error).
    ServeStale(Reuse),
}

/// How a forward failed without a complete response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection to be had: the upstream is disconnected.
    Disconnected,
    /// A reset, an end or garbage before the head was whole.
    Broken,
    /// A timer of ours ran out.
    TimedOut,
    /// `fresh_timeout` ran out; the fill goes on.
    FreshTimeout,
    /// No permit to be had in time.
    Overloaded,
}

/// What a client is told after a failure.
#[derive(Clone, Debug)]
pub enum OnFailure {
    /// The stored response.
    ServeStale(Reuse),
    /// A problem with this reason.
    Problem(Reason),
}

/// Judges what came back. `stored` is the response whose validators were sent, or that may stand in for an error.
///
/// For the answer to a HEAD see also [`head_effect`](super::head_effect), for one to a POST
/// [`store_post_answer`](super::store_post_answer). In `online` mode pass `settings.under(mode)`.
pub fn judge(
    request: &RequestHead<'_>,
    response: &ResponseHead<'_>,
    stored: Option<&StoredHead>,
    settings: &Settings,
) -> Judgement {
    // What is stored answers reads only, and only reads validate it.
    let stored = stored.filter(|_| is_read(request));
    if response.status == StatusCode::NOT_MODIFIED {
        return judge_not_modified(request, response, stored, settings);
    }
    if let Some(stored) = stored
        && is_error(response.status)
    {
        return judge_error(request, response, stored, settings);
    }
    match may_store(request, response, settings) {
        Storing::Yes(head) => Judgement::Store(head),
        Storing::No(reason) => Judgement::Pass(reason),
    }
}

/// A 304 to the client's own conditions is the client's; one to ours freshens the response whose validators were sent.
fn judge_not_modified(
    request: &RequestHead<'_>,
    response: &ResponseHead<'_>,
    stored: Option<&StoredHead>,
    settings: &Settings,
) -> Judgement {
    match stored {
        Some(stored) if sends_validators(request, stored) => {
            if identifies(response, stored) {
                Judgement::Freshen(Box::new(freshen(request, response, stored, settings)))
            } else {
                Judgement::AskUnconditionally
            }
        }
        _ => Judgement::Pass(Reason::Status),
    }
}

/// Errors that say nothing about the resource. A 400 is a server's word about one client's request, which another may have
/// made so on purpose.
fn is_error(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::BAD_REQUEST
}

/// An error never replaces a usable response, whatever it says about its own freshness.
fn judge_error(
    request: &RequestHead<'_>,
    response: &ResponseHead<'_>,
    stored: &StoredHead,
    settings: &Settings,
) -> Judgement {
    if is_outage(response.status) {
        let client = RequestDirectives::in_force(request, settings);
        let now = response.response_time;
        let reuse = reuse_if_error(stored, &client, settings, now, Reason::StaleIfError);
        if let Some(reuse) = reuse {
            return Judgement::ServeStale(reuse);
        }
    }
    let usable = !is_error(stored.status) && stored.mark != Mark::Invalid;
    match may_store(request, response, settings) {
        Storing::Yes(head) if !usable => Judgement::Store(head),
        Storing::Yes(_) => Judgement::Pass(Reason::Status),
        Storing::No(reason) => Judgement::Pass(reason),
    }
}

/// The statuses that RFC 5861 section 4 counts as an error.
fn is_outage(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Decides what stands in when no answer came.
///
/// After [`Failure::FreshTimeout`] a problem means that the stored response may not be served: go on waiting. In `online`
/// mode pass `settings.under(mode)`.
pub fn on_failure(
    request: &RequestHead<'_>,
    failure: Failure,
    stored: Option<&StoredHead>,
    settings: &Settings,
    now: Timestamp,
) -> OnFailure {
    let stored = stored.filter(|_| is_read(request));
    let reuse = stored.and_then(|stored| stand_in(request, failure, stored, settings, now));
    match reuse {
        Some(reuse) => OnFailure::ServeStale(reuse),
        None => OnFailure::Problem(match failure {
            Failure::Disconnected => Reason::OfflineMiss,
            Failure::Broken => Reason::UpstreamError,
            Failure::TimedOut | Failure::FreshTimeout => Reason::UpstreamTimeout,
            Failure::Overloaded => Reason::Overloaded,
        }),
    }
}

fn stand_in(
    request: &RequestHead<'_>,
    failure: Failure,
    stored: &StoredHead,
    settings: &Settings,
    now: Timestamp,
) -> Option<Reuse> {
    let client = RequestDirectives::in_force(request, settings);
    let within = |window, why| {
        let freshness = stored.freshness(settings, now);
        reuse_within(window, stored, &freshness, settings, why)
    };
    match failure {
        Failure::Disconnected => within(Window::offline(stored, settings), Reason::Disconnected),
        Failure::FreshTimeout => within(Window::offline(stored, settings), Reason::FreshTimeout),
        Failure::Broken | Failure::TimedOut | Failure::Overloaded => {
            reuse_if_error(stored, &client, settings, now, Reason::StaleIfError)
        }
    }
}

/// The stored response for a key whose validation failed a moment ago and is held down, where stale-if-error allows it.
pub fn while_held_down(
    request: &RequestHead<'_>,
    stored: &StoredHead,
    settings: &Settings,
    now: Timestamp,
) -> Option<Reuse> {
    if !is_read(request) {
        return None;
    }
    let client = RequestDirectives::in_force(request, settings);
    reuse_if_error(stored, &client, settings, now, Reason::HeldDown)
}
