//! One question to the origin: a read, as it is sent on behalf of the store.

use http::{HeaderMap, Method, Response, header};

use super::{
    Gateway,
    arrival::Arrival,
    effective::Effective,
    failure::Failed,
    interim::Interim,
    outgoing::remove_hop_by_hop,
    parts::Completing,
    query::QueryContent,
    request::{self, Conditions},
};
use crate::{
    policy::{self, ResponseHead, Timestamp},
    store::StoredResponse,
    upstream::{ResponseBody, Upstream, Whole},
};

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) upstream: &'a Upstream,
    pub(super) arrival: &'a Arrival,
    pub(super) effective: &'a Effective,
    /// The fields of the client's request.
    pub(super) headers: &'a HeaderMap,
    /// What becomes of its conditions and range.
    pub(super) conditions: Conditions,
    /// The stored response whose validators are sent.
    pub(super) validated: Option<&'a StoredResponse>,
    /// The stored part that is completed.
    pub(super) completing: Option<&'a Completing>,
}

/// An origin's answer, with the times around it.
pub(super) struct Answered {
    pub(super) response: Response<ResponseBody>,
    request_time: Timestamp,
    response_time: Timestamp,
}

impl Answered {
    pub(super) fn head(&self) -> ResponseHead<'_> {
        ResponseHead {
            status: self.response.status(),
            headers: self.response.headers(),
            request_time: self.request_time,
            response_time: self.response_time,
        }
    }
}

impl Question<'_> {
    /// Asks it. Returns with the head of the answer, or why there is none.
    pub(super) async fn ask(&self) -> Result<Answered, Failed> {
        let method = self.effective.method_of_fill();
        let fields = || self.fields(&method);
        let content = self.effective.content.as_ref().map(QueryContent::bytes);
        let whole = Whole {
            method: method.clone(),
            target: self.effective.path_and_query.clone(),
            fields: &fields,
            content: content.cloned().unwrap_or_default(),
            on_interim: self.arrival.interim.as_ref().map(Interim::listener),
        };
        let request_time = self.gateway.clock.now();
        let sent = self.upstream.send_whole(whole).await;
        let mut response = sent.map_err(Failed::from)?;
        let response_time = self.gateway.clock.now();
        remove_hop_by_hop(response.headers_mut());
        Ok(Answered {
            response,
            request_time,
            response_time,
        })
    }

    fn fields(&self, method: &Method) -> HeaderMap {
        let mut headers = request::outgoing(
            self.gateway,
            self.arrival,
            self.effective,
            self.headers,
            self.conditions,
            method,
        );
        if let Some(stored) = self.validated {
            policy::validation_headers(&mut headers, &stored.head);
        }
        if let Some(completing) = self.completing {
            completing.ask(&mut headers);
        }
        if let Some(content) = &self.effective.content {
            // It is here, whatever the client's connection was asked to wait for, or how it was framed.
            headers.remove(header::EXPECT);
            headers.insert(header::CONTENT_LENGTH, content.bytes().len().into());
        }
        headers
    }
}
