//! The way of deliveries over HTTP: to the upstream they were meant for, with whatever they change made unusable.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::{
    policy::{CacheKey, Connectivity, Mode, Suspicion},
    proxy::{Gateway, invalidation::Cause, outgoing::remove_hop_by_hop},
    queue::{
        Answer, Delivery, DeliveryBody, INLINE_BODY_MAX_BYTES, Item, Occasion, Origin, Outlet,
        Proof, Received, SendError, Unverified, read_credential,
    },
    upstream::{
        ForwardError, Patience, ProbeError, Repeat, ResponseBody, Sending, Upstream, Verified,
        WriteBody,
    },
};

/// The mode is looked at so often while it keeps from the origin; nobody tells of its change.
const MODE_LOOK_EVERY: Duration = Duration::from_secs(1);

/// So long the body of an answer is read: the lane waits for it, and an event stream does not end.
const READING_MAX: Duration = Duration::from_secs(30);

/// Deliveries over HTTP.
pub struct HttpOutlet {
    // Deliveries outlast the last request of a gateway that stops: until they have ended it is still needed.
    gateway: Arc<Gateway>,
}

impl HttpOutlet {
    /// By the upstreams of this gateway.
    pub fn new(gateway: &Arc<Gateway>) -> Self {
        Self {
            gateway: Arc::clone(gateway),
        }
    }

    fn upstream(&self, origin: &Origin) -> Option<Arc<Upstream>> {
        let gateway = &self.gateway;
        match origin {
            Origin::Upstream(name) => gateway.upstreams.named(name),
            Origin::Forward { scheme, authority } => {
                let (scheme, authority) = (scheme.parse().ok()?, authority.parse().ok()?);
                Some(gateway.upstreams.implicit(&scheme, &authority))
            }
        }
    }

    /// Whether a route of this origin says that its answers may be HTML.
    fn answers_html(&self, origin: &Origin) -> bool {
        let upstream = match origin {
            Origin::Upstream(name) => Some(name.as_str()),
            Origin::Forward { .. } => None,
        };
        let mut routes = self.gateway.routes.iter();
        routes.any(|route| route.upstream.as_deref() == upstream && route.write.answers_html)
    }

    fn credential_file(&self, route: &str) -> Option<PathBuf> {
        self.gateway
            .routes
            .named(route)?
            .write
            .credential_file
            .clone()
    }

    /// The Authorization of deliveries, read anew, so that whoever renews it need not tell the gateway.
    async fn credential(&self, route: &str) -> Result<Option<HeaderValue>, SendError> {
        let Some(path) = self.credential_file(route) else {
            return Ok(None);
        };
        let unusable = |why: String| SendError::Deferred(format!("{}: {why}", path.display()));
        let from = path.clone();
        let read = tokio::task::spawn_blocking(move || read_credential(&from)).await;
        let read = read.map_err(|error| unusable(error.to_string()))?;
        read.map(Some).map_err(|error| unusable(error.to_string()))
    }

    /// The Host that a request of a client would have now, where that is not the stored one: since the write was accepted its
    /// upstream may have moved.
    fn moved_host(&self, delivery: &Delivery, upstream: &Upstream) -> Option<HeaderValue> {
        let Origin::Upstream(_) = delivery.origin else {
            // Its name says where it is.
            return None;
        };
        let is_clients = match self.gateway.routes.named(&delivery.route) {
            Some(route) => route.preserve_host,
            None => CacheKey::from_text(&delivery.stored_under).is_of_host(),
        };
        let (_, authority, _) = upstream.base();
        let own = HeaderValue::try_from(authority.as_str());
        own.ok().filter(|_| !is_clients)
    }

    fn is_route_offline(&self, route: &str) -> bool {
        let gateway = &self.gateway;
        let position = gateway.routes.position(route);
        position.is_some()
            && gateway.modes.effective(position, gateway.clock.now()) == Mode::Offline
    }

    fn is_offline(&self) -> bool {
        let now = self.gateway.clock.now();
        self.gateway.modes.effective(None, now) == Mode::Offline
    }
}

impl Outlet for HttpOutlet {
    fn connectivity(&self, origin: &Origin) -> Connectivity {
        if self.is_offline() {
            return Connectivity::Disconnected;
        }
        match self.upstream(origin) {
            Some(upstream) => upstream.connectivity(),
            // Its deliveries find out what is wrong, and say so.
            None => Connectivity::Connected,
        }
    }

    async fn connected(&self, origin: &Origin) {
        loop {
            if let Some(upstream) = self.upstream(origin) {
                upstream.connected().await;
            }
            if !self.is_offline() {
                return;
            }
            tokio::time::sleep(MODE_LOOK_EVERY).await;
        }
    }

    fn share(&self, origin: &Origin) -> NonZeroUsize {
        let permits = self
            .upstream(origin)
            .map_or(1, |upstream| upstream.max_in_flight());
        NonZeroUsize::new(permits / 4).unwrap_or(NonZeroUsize::MIN)
    }

    async fn verify(&self, origin: &Origin, occasion: Occasion) -> Result<Proof, Unverified> {
        let Some(upstream) = self.upstream(origin) else {
            return Ok(Proof::Unproven);
        };
        let verified = match upstream.verify().await {
            Ok(Verified::Unproven) if occasion == Occasion::Doubt => match upstream.look().await {
                // As the operator says, that is how the origin answers.
                Err(ProbeError::Portal(Suspicion::Html)) if self.answers_html(origin) => {
                    Ok(Verified::Unproven)
                }
                looked => looked.map(|()| Verified::Unproven),
            },
            verified => verified,
        };
        match verified {
            Ok(Verified::Proven) => Ok(Proof::Proven),
            Ok(Verified::Unproven) => Ok(Proof::Unproven),
            Err(error @ ProbeError::Portal(_)) => Err(Unverified::Portal(error.to_string())),
            Err(error) => Err(Unverified::Failed(error.to_string())),
        }
    }

    async fn send(&self, delivery: Delivery) -> Result<Received, SendError> {
        if self.is_route_offline(&delivery.route) {
            let why = format!("the mode of route `{}` is offline", delivery.route);
            return Err(SendError::Deferred(why));
        }
        let missing =
            || SendError::Impossible(format!("there is no upstream `{}`", delivery.origin));
        let upstream = self.upstream(&delivery.origin).ok_or_else(missing)?;
        let moved_host = self.moved_host(&delivery, &upstream);
        let sending = Sending {
            repeat: if delivery.repeatable {
                Repeat::Once
            } else {
                Repeat::Never
            },
            // Live traffic goes first.
            patience: Patience::AtOnce,
        };
        let mut request = Request::new(match delivery.body {
            DeliveryBody::Whole(body) => WriteBody::Memory(body),
            DeliveryBody::File { path, bytes } => WriteBody::File {
                path,
                length_bytes: bytes,
            },
        });
        let mut headers = delivery.headers;
        if let Some(host) = moved_host {
            headers.insert(header::HOST, host);
        }
        if let Some(credential) = self.credential(&delivery.route).await? {
            headers.insert(header::AUTHORIZATION, credential);
        }
        *request.method_mut() = delivery.method;
        *request.uri_mut() = delivery.uri;
        *request.headers_mut() = headers;
        let response = upstream.send_write(request, sending).await;
        Ok(received(response.map_err(unsent)?).await)
    }

    fn has_credential_source(&self, route: &str) -> bool {
        self.credential_file(route).is_some()
    }

    async fn delivered(&self, item: &Item, answer: &Answer) {
        let gateway = &self.gateway;
        let (Ok(method), Ok(status)) = (
            Method::from_bytes(item.method.as_bytes()),
            http::StatusCode::from_u16(answer.status),
        ) else {
            return;
        };
        let route = gateway.routes.named(&item.route);
        let settings = route.map_or(&gateway.settings, |route| &route.cache);
        let cause = Cause {
            gateway,
            key: CacheKey::from_text(&item.stored_under),
            route: match &item.origin {
                Origin::Upstream(name) => route.map(|route| (route, name.as_str())),
                Origin::Forward { .. } => None,
            },
            method: &method,
            rules: &settings.query,
        };
        let headers = headers_of(answer);
        let ticket = gateway.store.ticket();
        if let Some(invalidation) = cause.answered(ticket, status, &headers) {
            invalidation.carry_out(gateway).await;
        }
    }
}

fn headers_of(answer: &Answer) -> HeaderMap {
    let fields = answer.fields.iter().filter_map(|(name, value)| {
        let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, value);
    }
    headers
}

/// The answer with as much of its body as is kept.
async fn received(response: Response<ResponseBody>) -> Received {
    let (mut head, body) = response.into_parts();
    remove_hop_by_hop(&mut head.headers);
    let (body, is_truncated) = kept(body).await;
    let fields = head
        .headers
        .iter()
        .filter(|(name, _)| *name != header::CONTENT_LENGTH);
    let fields = fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    Received {
        answer: Answer {
            status: head.status.as_u16(),
            fields: fields.collect(),
            body,
            is_truncated,
        },
        headers: head.headers,
    }
}

/// The beginning of an answer's body, and whether there was more. One that breaks off or does not end is no failure: the head
/// says what happened. What is not read costs the connection, which is less than the rest.
async fn kept(mut body: impl Body<Data = Bytes> + Unpin) -> (Bytes, bool) {
    let until = Instant::now() + READING_MAX;
    let mut kept = BytesMut::new();
    loop {
        let data = match timeout_at(until, body.frame()).await {
            Ok(None) => return (kept.freeze(), false),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(_))) | Err(_) => return (kept.freeze(), true),
        };
        let room = INLINE_BODY_MAX_BYTES - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return (kept.freeze(), true);
        }
    }
}

fn unsent(error: ForwardError) -> SendError {
    let text = error_text(&error);
    match error {
        ForwardError::Disconnected | ForwardError::Connect { .. } => SendError::Disconnected(text),
        ForwardError::Overloaded => SendError::Busy,
        ForwardError::Denied { .. } => SendError::Impossible(text),
        // Ours: the body cannot be read now. The journal has verified it a moment ago.
        ForwardError::Content { .. } => {
            warn!(error = text, "The body of a queued write cannot be read.");
            SendError::NotSent(text)
        }
        error if error.never_sent() => SendError::NotSent(text),
        _ => SendError::Unknown(text),
    }
}

/// The error and its causes in one line.
fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use bytes::Bytes;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use tokio::time::{Instant, sleep};

    use super::{INLINE_BODY_MAX_BYTES, READING_MAX, kept};

    #[tokio::test]
    async fn of_a_body_the_beginning_is_kept() {
        for (bytes, expected, is_truncated) in [
            (0, 0, false),
            (INLINE_BODY_MAX_BYTES, INLINE_BODY_MAX_BYTES, false),
            (INLINE_BODY_MAX_BYTES + 1, INLINE_BODY_MAX_BYTES, true),
        ] {
            let found = kept(Full::new(Bytes::from(vec![b'x'; bytes]))).await;
            assert_eq!((found.0.len(), found.1), (expected, is_truncated));
        }
    }

    /// An origin that answers a write with an event stream held its lane for ever.
    #[tokio::test(start_paused = true)]
    async fn an_answer_without_end_holds_no_lane() {
        let events = stream::unfold((), |()| async {
            sleep(Duration::from_secs(9)).await;
            let event = Frame::data(Bytes::from_static(b"data: x\n\n"));
            Some((Ok::<_, Infallible>(event), ()))
        });
        let began = Instant::now();
        let (body, is_truncated) = kept(StreamBody::new(Box::pin(events))).await;
        assert!(is_truncated);
        assert!(body.starts_with(b"data: x\n\ndata: x"));
        assert_eq!(began.elapsed(), READING_MAX);
    }
}
