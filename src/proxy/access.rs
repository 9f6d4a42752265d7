//! One access event per request: what was asked, what was answered, from where, how long it took.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use tokio::time::Instant;
use tracing::info;

use super::outgoing::push_address;
use crate::{
    policy::{CacheKey, Reason},
    queue::ItemId,
    telemetry::Sampling,
    upstream::BodyError,
};

/// The id of a request: in the access event, and `instance` of a problem document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(u64);

impl RequestId {
    /// A fresh id: a random start per process, then counted, so that ids sort by arrival within a run.
    pub(crate) fn next() -> Self {
        static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(fastrand::u64(..)));
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// By hand: every access event has one.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 16];
        for (at, digit) in digits.iter_mut().rev().enumerate() {
            let value = (self.0 >> (4 * at)) as usize & 0xf;
            *digit = b"0123456789abcdef"[value];
        }
        f.write_str(std::str::from_utf8(&digits).expect("hexadecimal digits"))
    }
}

/// How the cache took part: a metrics label and a log field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheUse {
    /// A fresh stored response.
    Hit,
    /// A stale stored response.
    Stale,
    /// A stored response the origin confirmed.
    Validated,
    /// From the origin, with the cache in between.
    Miss,
    /// From another request's fill.
    Collapsed,
    /// From the origin, past the cache.
    Bypass,
    /// Made by the gateway.
    None,
}

impl CacheUse {
    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            CacheUse::Hit => "hit",
            CacheUse::Stale => "stale",
            CacheUse::Validated => "validated",
            CacheUse::Miss => "miss",
            CacheUse::Collapsed => "collapsed",
            CacheUse::Bypass => "bypass",
            CacheUse::None => "none",
        }
    }
}

/// Which access events are written.
#[derive(Debug)]
pub(crate) struct AccessLog {
    hits: Sampling,
    other: Sampling,
    counted: AtomicU32,
}

impl AccessLog {
    /// With these shares.
    pub(crate) const fn new(hits: Sampling, other: Sampling) -> Self {
        Self {
            hits,
            other,
            counted: AtomicU32::new(0),
        }
    }

    /// Whether this request's event is written.
    pub(crate) fn samples(&self, cache: CacheUse) -> bool {
        let share = if cache == CacheUse::Hit {
            self.hits
        } else {
            self.other
        };
        match share {
            Sampling::None => false,
            Sampling::OneIn(one) if one.get() == 1 => true,
            Sampling::OneIn(one) => self
                .counted
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(one.get()),
        }
    }
}

/// What an access event says. It is written when it is dropped, which is when the body has ended or the client has gone.
#[derive(Debug)]
pub(crate) struct Record {
    /// Id of the request.
    pub(crate) id: RequestId,
    /// Who asked.
    pub(crate) client: Option<IpAddr>,
    /// What.
    pub(crate) method: Method,
    /// The effective upstream URI, or what the client asked where there is none.
    pub(crate) url: Url,
    /// The route's name.
    pub(crate) route: String,
    /// The answer.
    pub(crate) status: StatusCode,
    /// What the cache did.
    pub(crate) cache: CacheUse,
    /// Why.
    pub(crate) reason: Option<Reason>,
    /// The queued write that it made, or asked for.
    pub(crate) queue_id: Option<ItemId>,
    /// When the request came.
    pub(crate) began: Instant,
    /// Body bytes handed to the client's connection so far.
    pub(crate) sent_bytes: u64,
    /// How the body ended.
    pub(crate) end: End,
    /// Whether the event is written at all.
    pub(crate) written: bool,
}

/// A URL as it is logged: without its query's values it would be of no use, without credentials it cannot hurt; the
/// target was refused if it had userinfo.
#[derive(Clone, Debug)]
pub(crate) enum Url {
    /// Of a key.
    Key(CacheKey),
    /// As text.
    Text(String),
}

impl Url {
    fn as_str(&self) -> &str {
        match self {
            Url::Key(key) => key.uri(),
            Url::Text(text) => text,
        }
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Not yet: when the record is dropped so, the client has gone (or needed no body).
    Open,
    /// Whole.
    Whole,
    /// Broken off by the origin or the disk.
    Broken,
}

impl Record {
    /// Takes note of a polled frame.
    pub(crate) fn saw(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        match frame {
            None => self.end = End::Whole,
            Some(Err(_)) => self.end = End::Broken,
            // Nothing follows trailers, so nobody polls again.
            Some(Ok(frame)) if frame.is_trailers() => self.end = End::Whole,
            Some(Ok(frame)) => {
                self.sent_bytes += frame.data_ref().map_or(0, |data| data.len() as u64)
            }
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.written {
            return;
        }
        let client = self.client.map(|client| {
            let mut text = String::new();
            push_address(&mut text, client);
            text
        });
        // Whole microseconds, which are written faster than all the digits that a clock has.
        let took_micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        info!(
            // As a field: a sentence at the end would go through two formatters.
            message = "Answered.",
            request_id = %self.id,
            client = client.map(tracing::field::display),
            method = self.method.as_str(),
            url = self.url.as_str(),
            route = self.route,
            status = self.status.as_u16(),
            cache = self.cache.as_str(),
            reason = self.reason.map(Reason::as_str),
            queue_id = self.queue_id.map(tracing::field::display),
            bytes = self.sent_bytes,
            broken = (self.end == End::Broken).then_some(true),
            duration_ms = took_micros as f64 / 1_000.0,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::RequestId;

    #[test]
    fn an_id_has_sixteen_digits() {
        for id in [0, 0xf, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(RequestId(id).to_string(), format!("{id:016x}"));
        }
    }
}
