//! A write that has to wait: appended to the queue, and what its client is told.

use http::header;

use super::{
    Answered, Write, attempt::FirstAttempt, body, principal, receipt, refusal::refused, settled,
    unstorable,
};
use crate::{
    policy::Reason,
    protect,
    proxy::{problem::Problem, respond::Reply},
    queue::{self, Appended, Item, ItemId, KeyHash, NewBody, NewWrite, Origin, Refused, State},
};

impl Write<'_> {
    /// Appends it, and answers once it is on disk.
    pub(super) async fn append(&self, mut new: NewWrite, first: &FirstAttempt) -> Answered {
        let queue = &self.gateway.queue;
        if self.route.write.credential_file.is_some() {
            new.fields
                .retain(|(name, _)| name != header::AUTHORIZATION.as_str());
        }
        if let Some(what) = unstorable::signature(&new.fields) {
            let detail =
                format!("{what}: it would not be valid any more when the write is delivered");
            return Err(Box::new(Problem::new(
                Reason::CredentialNotStorable,
                detail,
            )));
        }
        first.put_into(&mut new.item);
        let queue = queue.clone();
        // To its end, whatever the client does: what is on disk must be in the index.
        let appending = self
            .gateway
            .tasks
            .spawn(async move { queue.append(new).await });
        // A panic, perhaps after the commit.
        let appended = appending.await.unwrap_or(Err(Refused::Unknown));
        match appended {
            Ok(Appended::New(item) | Appended::Known(item)) => self.answer_queued(item).await,
            Err(error) => Err(refused(&error)),
        }
    }

    /// The receipt, or the origin's answer if the client waits for it and it comes in time.
    pub(super) async fn answer_queued(&self, item: Item) -> Answered {
        let queue = &self.gateway.queue;
        let Some(wait) = self.preferences.wait else {
            return Ok(self.accepted(&item));
        };
        let item = settled(self.gateway, item, wait).await;
        let answer = queue.answer(item.id).await.ok().flatten();
        match answer.filter(|answer| !answer.is_truncated) {
            Some(answer) => Ok(receipt::answered(&item, &answer, self.preferences)),
            None => Ok(self.accepted(&item)),
        }
    }

    fn accepted(&self, item: &Item) -> Reply {
        let settings = &self.route.write;
        let key = self.key.as_ref();
        let key = key.and_then(|_| self.head.headers.get(&settings.idempotency_header));
        receipt::accepted(self.gateway, item, self.preferences, settings, key)
    }

    /// As it is queued, if it comes to that.
    pub(super) fn to_append(&self, body: NewBody) -> NewWrite {
        let (gateway, settings) = (self.gateway, &self.route.write);
        let now = gateway.clock.now();
        let key = self.effective.cache_key();
        let method = self.head.method.to_string();
        let url = self
            .effective
            .uri()
            .map_or_else(|_| key.uri().to_owned(), |uri| uri.to_string());
        let principal = principal(gateway, &self.head.headers, self.arrival.client);
        let client = queue::client_hash(&principal);
        let known_by = self.key.as_ref().filter(|key| key.is_clients);
        let item = Item {
            id: ItemId::from_bytes([0; 16]),
            seq: 0,
            state: State::Queued,
            origin: self.origin.clone(),
            route: self.route.name.clone(),
            lane: self.lane.name.clone(),
            lane_id: self.lane.id,
            on_stuck: settings.on_stuck,
            body_bytes: body.bytes(),
            body_sha256: body::sha256(&body),
            weight_bytes: 0,
            repeat: self.repeat,
            idempotency_key: self.key.as_ref().map(|key| key.text.clone()),
            is_client_key: known_by.is_some(),
            is_key_honoured: settings.honoured,
            idempotency_ttl: settings.idempotency_ttl,
            trust_503: settings.trust_503,
            answers_html: settings.answers_html,
            pending_reads: settings.pending_reads,
            accepted_at: now,
            attempts: 0,
            ambiguous_since: None,
            next_at: now,
            floor_until: None,
            last: None,
            remark: None,
            ended_at: None,
            revived: None,
            client,
            address: self.address().unwrap_or(client),
            stored_under: key.as_str().to_owned(),
            base_path: self.base_path.clone(),
            principal,
            method,
            url,
        };
        // The partition tells one virtual host from another. An upstream that moves is still the same.
        let target = match &self.origin {
            Origin::Upstream(name) => {
                let target = self.effective.path_and_query.as_str();
                format!(
                    "{name} {}",
                    queue::below(&self.base_path, target).unwrap_or(target)
                )
            }
            Origin::Forward { .. } => item.url.clone(),
        };
        let target = format!("{} {target}", key.partition().unwrap_or_default());
        let known_by =
            known_by.map(|key| KeyHash::new(&item.principal, &item.method, &target, &key.text));
        let headers = self.outgoing_headers();
        let fields = headers.iter();
        let fields =
            fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        NewWrite {
            item,
            fields: fields.collect(),
            body,
            key: known_by,
        }
    }

    /// The address that the write counts for, as a number. One that only a trusted proxy has says nothing of who is behind it.
    fn address(&self) -> Option<u64> {
        let admission = &self.gateway.admission;
        let client = self.arrival.client;
        let client = client.filter(|address| !admission.is_trusted(*address));
        client.map(|address| queue::client_hash(&format!("address {}", protect::network(address))))
    }
}
