//! The way of deliveries over HTTP: to the upstream they were meant for, with whatever they change made unusable.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use tracing::warn;

use crate::{
    policy::{CacheKey, Connectivity, Mode},
    proxy::{Gateway, invalidation::Cause, outgoing::remove_hop_by_hop},
    queue::{
        Answer, Delivery, DeliveryBody, INLINE_BODY_MAX_BYTES, Item, Origin, Outlet, Proof,
        Received, SendError, Unverified,
    },
    upstream::{
        ForwardError, Patience, ProbeError, Repeat, ResponseBody, Sending, Upstream, Verified,
        WriteBody,
    },
};

/// The mode is looked at so often while it keeps from the origin; nobody tells of its change.
const MODE_LOOK_EVERY: Duration = Duration::from_secs(1);

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
        let text = tokio::fs::read_to_string(&path).await;
        let text = text.map_err(|error| unusable(error.to_string()))?;
        let value = HeaderValue::try_from(text.trim());
        let mut value = value.map_err(|_| unusable("not the value of a field".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
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

    async fn verify(&self, origin: &Origin) -> Result<Proof, Unverified> {
        let Some(upstream) = self.upstream(origin) else {
            return Ok(Proof::Unproven);
        };
        match upstream.verify().await {
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
        if let Some(credential) = self.credential(&delivery.route).await? {
            headers.insert(header::AUTHORIZATION, credential);
        }
        *request.method_mut() = delivery.method;
        *request.uri_mut() = delivery.uri;
        *request.headers_mut() = headers;
        let response = upstream.send_write(request, sending).await;
        received(response.map_err(unsent)?).await
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

/// The answer with as much of its body as is kept. A body that breaks off is no failure: the head says what happened.
async fn received(response: Response<ResponseBody>) -> Result<Received, SendError> {
    let (mut head, mut body) = response.into_parts();
    remove_hop_by_hop(&mut head.headers);
    let mut kept = BytesMut::new();
    let mut is_truncated = false;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            is_truncated = true;
            break;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = INLINE_BODY_MAX_BYTES - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            // The rest is not read: the connection is given up, which costs less than the rest.
            is_truncated = true;
            break;
        }
    }
    let fields = head
        .headers
        .iter()
        .filter(|(name, _)| *name != header::CONTENT_LENGTH);
    let fields = fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    Ok(Received {
        answer: Answer {
            status: head.status.as_u16(),
            fields: fields.collect(),
            body: kept.freeze(),
            is_truncated,
        },
        headers: head.headers,
    })
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
