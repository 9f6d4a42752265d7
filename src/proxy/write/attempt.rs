//! The first attempt of a write, with the client waiting for it, and what is known of it when the write is queued after it.

use http::{HeaderMap, Request, Response, header};

use super::{Answered, HARDTACK_ATTEMPT, HARDTACK_QUEUE, Write, body, refusal::unknown};
use crate::{
    policy::{self, ForwardReason, RequestHead, Timestamp},
    proxy::{
        direct::Direct,
        failure::Failed,
        request::{self as outgoing, Conditions},
    },
    queue::{self, Item, NewBody, NewWrite, Observation, Outcome, State, outcome},
    upstream::{Patience, Repeat, ResponseBody, Sending},
};

/// What is known of the first attempt of a write that is queued after it.
#[derive(Debug, Default)]
pub(super) struct FirstAttempt {
    last: Option<queue::Attempt>,
    attempts: u32,
    ambiguous_since: Option<Timestamp>,
    floor_until: Option<Timestamp>,
}

/// Whether an attempt may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ambiguity {
    None,
    Perhaps,
}

impl Write<'_> {
    /// Passes it on, with the client waiting: its answer, or what follows from there being none.
    pub(super) async fn attempt(self, new: NewWrite) -> Answered {
        let mode = self
            .gateway
            .modes
            .effective(self.arrival.route, self.gateway.clock.now());
        let settings = self.route.cache.under(mode);
        let direct = Direct {
            gateway: self.gateway,
            peer: self.peer,
            arrival: self.arrival,
            effective: self.effective,
            why: ForwardReason::Method,
            settings: settings.as_ref(),
            stored: None,
        };
        let attempt = direct.begin(&self.head.method);
        let began = self.gateway.clock.now();
        let sent = self.send(&new.body).await;
        let outcome = match observed(&sent) {
            Some(observed) => outcome(observed, self.repeat, self.route.write.trust_503),
            None => Outcome::HandOn,
        };
        let now = self.gateway.clock.now();
        match outcome {
            Outcome::HandOn => {
                let asked =
                    RequestHead::new(&self.head.method, &self.head.headers, new.body.bytes() > 0);
                Ok(attempt.end(&asked, sent).await)
            }
            // Dropped, the attempt makes stale what it may have changed.
            Outcome::Unknown => Err(Box::new(unknown(&sent))),
            Outcome::Queue => {
                attempt.was_not_executed();
                let first = FirstAttempt::of(&sent, began, now, Ambiguity::None);
                self.append(new, &first).await
            }
            Outcome::QueueAmbiguous => {
                drop(attempt);
                let first = FirstAttempt::of(&sent, began, now, Ambiguity::Perhaps);
                // That it was not taken would be heard as that it was not executed.
                let appended = self.append(new, &first).await;
                appended.map_err(|_| Box::new(unknown(&sent)))
            }
        }
    }

    async fn send(&self, body: &NewBody) -> Result<Response<ResponseBody>, Failed> {
        let upstream = self.effective.upstream(self.gateway);
        let mut outgoing = Request::new(body::to_send(body));
        *outgoing.method_mut() = self.head.method.clone();
        *outgoing.uri_mut() = self.effective.uri().map_err(|_| Failed::internal())?;
        *outgoing.headers_mut() = self.outgoing_headers();
        let repeat = if self.repeat.is_allowed() {
            Repeat::Once
        } else {
            Repeat::Never
        };
        let sending = Sending {
            repeat,
            patience: Patience::Wait,
        };
        upstream
            .send_write(outgoing, sending)
            .await
            .map_err(Failed::from)
    }

    /// What the origin sees, of this attempt as of every later one.
    pub(super) fn outgoing_headers(&self) -> HeaderMap {
        let mut headers = outgoing::outgoing(
            self.gateway,
            self.arrival,
            self.effective,
            &self.head.headers,
            Conditions::Keep,
            &self.head.method,
        );
        // They concern this message on this connection; the next one has its own.
        for name in [
            header::EXPECT,
            header::TE,
            header::CONNECTION,
            header::CONTENT_LENGTH,
        ] {
            headers.remove(name);
        }
        headers.remove(HARDTACK_QUEUE);
        headers.remove(HARDTACK_ATTEMPT);
        headers
    }
}

impl FirstAttempt {
    fn of(
        sent: &Result<Response<ResponseBody>, Failed>,
        began: Timestamp,
        now: Timestamp,
        ambiguity: Ambiguity,
    ) -> Self {
        let took_millis = u64::try_from(now.millis_since(began)).unwrap_or(0);
        let attempt = |status, error| queue::Attempt {
            at: began,
            took_millis,
            status,
            error,
        };
        let ambiguous_since = (ambiguity == Ambiguity::Perhaps).then_some(began);
        match sent {
            Ok(response) => Self {
                last: Some(attempt(Some(response.status().as_u16()), None)),
                attempts: 1,
                ambiguous_since,
                floor_until: policy::retry_after(response.headers(), now)
                    .map(|after| now.plus(after)),
            },
            Err(failed) => Self {
                last: Some(attempt(None, Some(failed.to_string()))),
                // What never reached the origin cost no attempt.
                attempts: u32::from(!failed.is_never_sent()),
                ambiguous_since,
                floor_until: None,
            },
        }
    }

    /// Says of a write what became of its first attempt.
    pub(super) fn put_into(&self, item: &mut Item) {
        item.attempts = self.attempts;
        item.last.clone_from(&self.last);
        item.ambiguous_since = self.ambiguous_since;
        item.floor_until = self.floor_until;
        item.next_at = self.floor_until.unwrap_or(item.next_at).max(item.next_at);
        if self.attempts > 0 {
            item.state = State::Waiting;
        }
    }
}

fn observed(sent: &Result<Response<ResponseBody>, Failed>) -> Option<Observation> {
    match sent {
        Ok(response) => Some(Observation::Answered {
            status: response.status(),
            has_retry_after: response.headers().contains_key(header::RETRY_AFTER),
        }),
        Err(failed) if failed.is_final() => None,
        Err(failed) if failed.is_never_sent() => Some(Observation::NotSent),
        Err(_) => Some(Observation::Unknown),
    }
}
