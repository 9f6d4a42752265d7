//! The `[queue]` table and a route's `write` table, checked.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};

use super::item::{OnStuck, PendingReads};

/// The `[queue]` table, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory: `queue.redb`, `spool/` and `queue.reserve` are in it.
    pub dir: PathBuf,
    /// Writes that wait, parked and dead ones included.
    pub max_items: usize,
    /// Bytes of them all.
    pub max_bytes: u64,
    /// Bytes of one body.
    pub max_item_bytes: u64,
    /// Writes in one lane.
    pub max_lane_items: usize,
    /// Writes of one client: of one credential, and of one address, whatever its credentials.
    pub max_client_items: usize,
    /// After this a write that waits is dead.
    pub max_age: Duration,
    /// After this many attempts a write that waits is dead.
    pub max_attempts: u32,
    /// Deliveries a second, per origin.
    pub replay_rate: ReplayRate,
    /// After an outage the first delivery waits a random part of this.
    pub recovery_spread: Duration,
    /// How long a receipt is kept after the end.
    pub receipt_ttl: Duration,
    /// File with the keys that seal credentials, one a line; the first seals, all open. `None`: writes with credentials
    /// are refused.
    pub key_file: Option<PathBuf>,
    /// Fields that are sealed besides Authorization and Cookie.
    pub sensitive_headers: Vec<HeaderName>,
}

/// So many deliveries in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayRate {
    /// How many, at least 1.
    pub deliveries: u32,
    /// In which time.
    pub per: Duration,
}

/// A route's `write` table, checked.
#[derive(Clone, Debug)]
pub struct WriteSettings {
    /// When writes are queued.
    pub mode: WriteMode,
    /// What is delivered in order.
    pub order_by: OrderBy,
    /// Whether idempotency keys are understood, and made.
    pub idempotency: Idempotency,
    /// Whether the origin executes a key once only.
    pub honoured: bool,
    /// The key's field.
    pub idempotency_header: HeaderName,
    /// How a key is written.
    pub idempotency_format: KeyFormat,
    /// How long the origin remembers a key.
    pub idempotency_ttl: Duration,
    /// Whether a 503 proves that the write was not executed.
    pub trust_503: bool,
    /// What a parked or dead write does to its lane.
    pub on_stuck: OnStuck,
    /// What reads of a URL with pending writes are told.
    pub pending_reads: PendingReads,
    /// What the client gets instead of the receipt.
    pub response: Option<ResponseTemplate>,
    /// Whether the origin's answers to these writes may be HTML.
    pub answers_html: bool,
    /// File whose content is the `Authorization` of deliveries, read anew for each; the client's own is then not stored.
    pub credential_file: Option<PathBuf>,
}

/// When writes are queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Never.
    #[default]
    Off,
    /// When the origin cannot take them.
    OnFailure,
    /// Always, before anything is sent.
    Always,
}

/// What a lane is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OrderBy {
    /// Everything for one origin.
    Origin,
    /// Everything of one route for one origin.
    #[default]
    Route,
    /// Everything for one path.
    Path,
    /// Everything with one value of this field.
    Header(HeaderName),
    /// Nothing is ordered.
    None,
}

/// Whether idempotency keys are understood, and made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idempotency {
    /// The field means nothing.
    #[default]
    Off,
    /// A client's key is understood.
    Pass,
    /// And where there is none, one is made, for the first attempt already.
    Inject,
}

/// How an idempotency key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// As a structured-fields string, in quotes.
    #[default]
    Structured,
    /// As it is.
    Raw,
}

/// What the client of a queued write gets instead of the receipt. In `headers` and `body`, `{id}`, `{location}`, `{lane}`
/// and `{accepted_at}` stand for the receipt's.
#[derive(Clone, Debug)]
pub struct ResponseTemplate {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body.
    pub body: String,
}

impl Default for WriteSettings {
    fn default() -> Self {
        Self {
            mode: WriteMode::default(),
            order_by: OrderBy::default(),
            idempotency: Idempotency::default(),
            honoured: false,
            idempotency_header: HeaderName::from_static("idempotency-key"),
            idempotency_format: KeyFormat::default(),
            idempotency_ttl: Duration::from_secs(24 * 60 * 60),
            trust_503: false,
            on_stuck: OnStuck::Halt,
            pending_reads: PendingReads::Mark,
            response: None,
            answers_html: false,
            credential_file: None,
        }
    }
}
