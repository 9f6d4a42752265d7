//! One request and its answer on one connection, under the timers.
//!
//! Two ways: on a connection of our own, which the request drives itself (HTTP/1.1, see [`connection`]), and through the
//! client library, for what may be HTTP/2 and for upgrades.
//!
//! [`connection`]: super::connection

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use tokio::time::Instant;

use super::{
    client::{ConnectionHistory, HttpClient, Protocols},
    connection::{self, Connection, InUse},
    error::{
        ForwardError, InterimFlood, UnaskedUpgrade, classify, from_dial, from_unanswered,
        of_content,
    },
    forward::{Form, Outgoing},
    group::{Origin, Upstream},
    interim::Interims,
    timer::Timer,
    upload::{Progress, Upload},
};

/// An answer whose body is still to come.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// What it comes on, where that is ours to keep.
    pub(super) connection: Option<InUse>,
}

/// A request that was sent and is not answered.
struct Attempt {
    progress: Arc<Progress>,
    interims: Arc<Interims>,
}

/// An exchange without a response.
pub(super) struct Failure {
    pub(super) error: ForwardError,
    /// Whether the connection had carried another response before.
    pub(super) reused_connection: bool,
}

impl Upstream {
    /// One exchange; `is_fresh`: on a connection that is opened for it, and closed after it.
    pub(super) async fn exchange(
        &self,
        origin: &Origin,
        outgoing: &Outgoing<'_>,
        is_fresh: bool,
    ) -> Result<Answer, Failure> {
        let asks_for_an_upgrade = outgoing.asks_for_an_upgrade();
        let answer = match self.clients.connector.protocols {
            // Boxed: every future around it would be larger by it, and those are moved about.
            Protocols::Http1 if !asks_for_an_upgrade => {
                Box::pin(self.exchange_alone(origin, outgoing, is_fresh)).await?
            }
            _ => Box::pin(self.exchange_by_library(origin, outgoing, is_fresh)).await?,
        };
        // A 101 that nobody asked for would let the origin choose the protocol.
        let switches = answer.response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !asks_for_an_upgrade {
            let source = UnaskedUpgrade.into();
            return Err(Failure::on_fresh(ForwardError::Broken { source }));
        }
        Ok(answer)
    }

    async fn exchange_alone(
        &self,
        origin: &Origin,
        outgoing: &Outgoing<'_>,
        is_fresh: bool,
    ) -> Result<Answer, Failure> {
        let mut now = Instant::now();
        let idle = if is_fresh {
            None
        } else {
            origin.idle.take(now)
        };
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                let connected = Box::pin(self.connect(origin, is_fresh)).await;
                now = Instant::now();
                connected.map_err(Failure::on_fresh)?
            }
        };
        let reused_connection = connection.was_used();
        let (answer, attempt) = self.begin(&mut connection, origin, outgoing, now);
        let mut answer = pin!(answer);
        let mut timer = std::mem::take(&mut connection.timer);
        let answering = |cx: &mut Context<'_>| connection.poll_answer(cx, answer.as_mut());
        let answered = self.in_time(answering, &attempt, &mut timer).await;
        connection.timer = timer;
        let answered = answered.and_then(|sent| {
            sent.map_err(|unanswered| match attempt.progress.take_fault() {
                Some(fault) => of_content(fault),
                None => from_unanswered(unanswered),
            })
        });
        match answered {
            Ok(response) => {
                let home = (!is_fresh).then(|| Arc::clone(&origin.idle));
                let connection = Some(InUse::new(connection, home));
                Ok(Answer {
                    response,
                    connection,
                })
            }
            Err(error) => Err(Failure {
                error,
                reused_connection,
            }),
        }
    }

    /// Sends the request. Apart, so that the future of the exchange holds no request that is with the library already.
    fn begin(
        &self,
        connection: &mut Connection,
        origin: &Origin,
        outgoing: &Outgoing<'_>,
        now: Instant,
    ) -> (impl Future<Output = connection::Answered> + use<>, Attempt) {
        let (mut request, progress) = outgoing.to(origin, self, Form::Origin, now);
        let interims = Interims::of(&mut request, outgoing.on_interim.clone());
        let answer = connection.send(request, !outgoing.body.is_empty());
        (answer, Attempt { progress, interims })
    }

    /// A connection, under the connector's timers: a new one, or unless `is_fresh` one that becomes free meanwhile. The new
    /// one is then there for whoever comes next.
    async fn connect(&self, origin: &Origin, is_fresh: bool) -> Result<Connection, ForwardError> {
        let (connector, authority) = (self.clients.connector.clone(), origin.authority.clone());
        let scheme = origin.scheme.clone();
        let mut dialling = Box::pin(async move {
            let stream = connector.connect(&scheme, &authority).await;
            let stream = stream.map_err(|error| from_dial(error, &authority))?;
            let connection = Connection::new(stream).await;
            connection.map_err(|error| ForwardError::Broken {
                source: error.into(),
            })
        });
        // Every branch may be dropped: of a dial nothing has come yet.
        tokio::select! {
            biased;
            connected = &mut dialling => connected,
            connection = origin.idle.freed(), if !is_fresh => {
                origin.idle.finish(async { dialling.await.ok() });
                Ok(connection)
            }
            // Another request found out: nobody waits on a connect then.
            () = self.link.disconnected() => Err(ForwardError::Disconnected),
        }
    }

    /// What `answering` comes to, under the first-byte timer.
    async fn in_time<T>(
        &self,
        mut answering: impl FnMut(&mut Context<'_>) -> Poll<T>,
        attempt: &Attempt,
        timer: &mut Timer,
    ) -> Result<T, ForwardError> {
        let limit = self.first_byte_timeout;
        poll_fn(|cx| {
            if let Poll::Ready(answered) = answering(cx) {
                return Poll::Ready(Ok(answered));
            }
            if attempt.progress.poll_stalled(cx, limit, timer).is_ready() {
                return Poll::Ready(Err(ForwardError::TimedOut { limit }));
            }
            attempt.interims.poll_too_many(cx).map(|()| {
                let source = InterimFlood.into();
                Err(ForwardError::Broken { source })
            })
        })
        .await
    }

    async fn exchange_by_library(
        &self,
        origin: &Origin,
        outgoing: &Outgoing<'_>,
        is_fresh: bool,
    ) -> Result<Answer, Failure> {
        let clients = if outgoing.asks_for_an_upgrade() {
            &self.clients.http1
        } else {
            &self.clients.any
        };
        let client = if is_fresh {
            &clients.fresh
        } else {
            &clients.pooled
        };
        let (mut request, progress) = outgoing.to(origin, self, Form::Absolute, Instant::now());
        let mut captured = capture_connection(&mut request);
        let interims = Interims::of(&mut request, outgoing.on_interim.clone());
        let attempt = Attempt { progress, interims };
        let result = self
            .answer(client, request, &mut captured, &attempt, origin)
            .await;
        let history = ConnectionHistory::of(&captured);
        match result {
            Ok(response) => {
                history.inspect(ConnectionHistory::mark_used);
                Ok(Answer {
                    response,
                    connection: None,
                })
            }
            Err(error) => Err(Failure {
                error,
                reused_connection: history.is_some_and(|history| history.was_used()),
            }),
        }
    }

    /// Waits for the head: for the connection under the connector's timers, then under the first-byte timer.
    async fn answer(
        &self,
        client: &HttpClient,
        request: Request<Upload>,
        captured: &mut CaptureConnection,
        attempt: &Attempt,
        origin: &Origin,
    ) -> Result<Response<Incoming>, ForwardError> {
        let mut response = client.request(request);
        let early = tokio::select! {
            biased;
            result = &mut response => Some(result),
            () = connected(captured) => None,
            // Another request found out: nobody waits on a connect then.
            () = self.link.disconnected() => return Err(ForwardError::Disconnected),
        };
        attempt.progress.restart();
        let result = match early {
            Some(result) => result,
            None => {
                let answering = |cx: &mut Context<'_>| Pin::new(&mut response).poll(cx);
                self.in_time(answering, attempt, &mut Timer::default())
                    .await?
            }
        };
        result.map_err(|error| match attempt.progress.take_fault() {
            Some(fault) => of_content(fault),
            None => {
                let history = ConnectionHistory::of(captured);
                classify(error, &origin.authority, history.as_ref())
            }
        })
    }
}

impl Failure {
    const fn on_fresh(error: ForwardError) -> Self {
        Self {
            error,
            reused_connection: false,
        }
    }
}

async fn connected(captured: &mut CaptureConnection) {
    drop(captured.wait_for_connection_metadata().await);
}
