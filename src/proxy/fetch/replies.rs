//! What a read that needs the origin is answered with.

use http::{HeaderValue, Response, StatusCode};

use super::{Fetch, joining::Part};
use crate::{
    policy::{self, Failure, OnFailure, Reason, Reuse, StoredHead},
    proxy::{
        access::CacheUse,
        body::Body,
        cache_status::CacheStatus,
        failure::Failed,
        respond::{self, Content, Reply, count_stale},
        trailers,
    },
    store::{Resource, StoredResponse},
    telemetry::RouteLabels,
    upstream::ResponseBody,
};

impl Fetch<'_> {
    pub(super) fn hit(&self, resource: &Resource, stored: &StoredResponse, reuse: &Reuse) -> Reply {
        self.gateway.store.touch(resource, stored);
        let status = CacheStatus {
            ttl_secs: Some(reuse.ttl_secs),
            ..CacheStatus::default()
        };
        let (store, key) = (&self.gateway.store, &resource.key);
        Reply {
            response: respond::from_store(store, key, &self.request, stored, reuse, &status),
            cache: CacheUse::Hit,
            reason: None,
        }
    }

    pub(super) fn freshened(
        &self,
        part: &Part,
        stored: &StoredResponse,
        head: &StoredHead,
    ) -> Option<Reply> {
        policy::select(self.request.headers, std::iter::once(head))?;
        let started = part.starter.is_some();
        let freshness = head.freshness(self.settings, self.gateway.clock.now());
        let status = CacheStatus {
            forward: Some(self.forward.why),
            forward_status: started.then_some(StatusCode::NOT_MODIFIED),
            stored: started,
            collapsed: !started,
            ttl_secs: Some(freshness.ttl_secs()),
            detail: None,
        };
        let content = Content::Stored(&self.gateway.store, self.key, stored);
        let age_secs = Some(freshness.age_secs());
        let received = part.as_received(head);
        let head = received.as_ref().unwrap_or(head);
        let response = respond::from_head(&self.request, head, content, age_secs, &status);
        let cache = if started {
            CacheUse::Validated
        } else {
            self.count_collapsed()
        };
        Some(Reply {
            response,
            cache,
            reason: None,
        })
    }

    /// Hands an answer on that is not stored.
    pub(super) fn pass(&self, response: Response<ResponseBody>, reason: Reason) -> Reply {
        let status = CacheStatus {
            forward: Some(self.forward.why),
            forward_status: Some(response.status()),
            detail: Some(reason),
            ..CacheStatus::default()
        };
        let promised = trailers::promised(response.headers());
        let mut response = response.map(Body::upstream);
        self.promise_trailers(&mut response, promised);
        status.append_to(response.headers_mut());
        Reply {
            response,
            cache: CacheUse::Miss,
            reason: Some(reason),
        }
    }

    pub(super) fn promise_trailers(
        &self,
        response: &mut Response<Body>,
        promised: Option<HeaderValue>,
    ) {
        trailers::promise(
            response,
            promised,
            self.arrival.version,
            self.request.headers,
        );
    }

    pub(super) fn for_failure(&self, failed: &Failed) -> Reply {
        let id = self.arrival.id;
        let Some(failure) = failed.failure() else {
            return Reply::problem(failed.to_problem(None), id);
        };
        match self.stand_in(failure, None) {
            Ok(reply) => reply,
            Err(reason) => Reply::problem(failed.to_problem(Some(reason)), id),
        }
    }

    /// The stored response in the origin's stead, or the reason why not.
    pub(super) fn stand_in(
        &self,
        failure: Failure,
        forward_status: Option<StatusCode>,
    ) -> Result<Reply, Reason> {
        let head = self.stored.as_ref().map(|stored| &stored.head);
        let now = self.gateway.clock.now();
        let reuse = match policy::on_failure(&self.request, failure, head, self.settings, now) {
            OnFailure::ServeStale(reuse) => reuse,
            OnFailure::Problem(reason) => return Err(reason),
        };
        let Some(stored) = &self.stored else {
            return Err(Reason::Internal);
        };
        let status = CacheStatus {
            forward: Some(self.forward.why),
            forward_status,
            detail: reuse.detail,
            ..CacheStatus::default()
        };
        Ok(self.stale(stored, &reuse, &status))
    }

    pub(super) fn stale(
        &self,
        stored: &StoredResponse,
        reuse: &Reuse,
        status: &CacheStatus,
    ) -> Reply {
        count_stale(
            self.gateway,
            self.arrival.route_name(self.gateway),
            reuse.ttl_secs,
        );
        let response = respond::from_store(
            &self.gateway.store,
            self.stored_key,
            &self.request,
            stored,
            reuse,
            status,
        );
        Reply {
            response,
            cache: CacheUse::Stale,
            reason: reuse.detail,
        }
    }

    pub(super) fn count_collapsed(&self) -> CacheUse {
        let route = self.arrival.route_name(self.gateway).to_owned();
        self.gateway
            .metrics
            .collapsed_requests
            .get_or_create(&RouteLabels { route })
            .inc();
        CacheUse::Collapsed
    }
}
