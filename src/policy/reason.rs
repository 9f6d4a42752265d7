//! Why: the one closed list of reasons, shared by Cache-Status `detail`, problem documents, the access event, `explain`
//! and metrics.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $token:literal,)+) => {
        /// Why the gateway answered as it did. The token is stable: dashboards and tests rely on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The token, a structured-fields token and a metrics label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$variant => $token,)+
                }
            }
        }
    };
}

reasons! {
    // Why a stored response was reused although it was stale.
    /// Within the stale-while-revalidate window; one validation runs behind (RFC 5861 section 3).
    StaleWhileRevalidate = "stale-while-revalidate",
    /// The origin failed within the stale-if-error window (RFC 5861 section 4).
    StaleIfError = "stale-if-error",
    /// The upstream is disconnected (RFC 9111 section 4.2.4).
    Disconnected = "disconnected",
    /// Forbidden by the response, allowed by the operator's `override`.
    Override = "override",
    /// The mode is `prefer-cache`.
    PreferCache = "prefer-cache",
    /// The mode is `offline`.
    Offline = "offline",
    /// The client said `max-stale`.
    MaxStale = "max-stale",
    /// The origin did not answer within `fresh_timeout`.
    FreshTimeout = "fresh-timeout",
    /// A validation of this key failed a moment ago and is held down.
    HeldDown = "held-down",

    // Why a response was not stored.
    /// It sets a cookie.
    SetCookie = "set-cookie",
    /// `no-store` in the response or the request.
    NoStore = "no-store",
    /// `private`, in a shared cache.
    Private = "private",
    /// The request was authorized and the response does not allow sharing (RFC 9111 section 3.5).
    Authorization = "authorization",
    /// The method is not cacheable.
    Method = "method",
    /// The status is not cacheable without explicit freshness, or not understood.
    Status = "status",
    /// `Vary: *`.
    VaryStar = "vary-star",
    /// Stale from the start, without a validator, and its directives forbid stale reuse.
    Unusable = "unusable",
    /// A partial response.
    Partial = "partial",
    /// The body ended before its announced length, or with an error.
    Incomplete = "incomplete",
    /// The body's end is marked by the close of the connection only, which may be a crash.
    CloseDelimited = "close-delimited",
    /// Larger than `storage.max_object`, or than what bodies in flight may hold.
    TooLarge = "too-large",
    /// The disk is fuller than `storage.disk_free_min` allows, or storing failed.
    StorageFull = "storage-full",
    /// The write-behind queue is full.
    StorageBusy = "storage-busy",
    /// A purge or an invalidation came during the fill, and wins.
    Purged = "purged",
    /// The request had a body that is not part of the key.
    RequestBody = "request-body",
    /// An event stream: never buffered, never stored.
    EventStream = "event-stream",
    /// The connection changes its protocol.
    Upgrade = "upgrade",

    // What became of a write.
    /// It waits in the queue.
    Queued = "queued",
    /// Answered as it will be once the client's pending writes are delivered.
    Overlay = "overlay",

    // Problems: answers the gateway makes itself.
    /// 504: no connection to be had and nothing usable stored.
    OfflineMiss = "offline-miss",
    /// 504: the client asked for stored responses only, and there is none it may have.
    OnlyIfCached = "only-if-cached",
    /// 504: the gateway's own timer ran out.
    UpstreamTimeout = "upstream-timeout",
    /// 502: connected, but no response head or a garbled one.
    UpstreamError = "upstream-error",
    /// 502 or 504: a write may have been executed, and a second time might do harm.
    OutcomeUnknown = "outcome-unknown",
    /// 422: the idempotency key was used with another body.
    IdempotencyMismatch = "idempotency-mismatch",
    /// 503: the queue cannot take the write.
    QueueFull = "queue-full",
    /// 503: the write has credentials, or a signature, that cannot be stored.
    CredentialNotStorable = "credential-not-storable",
    /// 404: there is no such receipt, or not for this client, or nothing is there yet.
    NotFound = "not-found",
    /// 409: the write is not in a state in which this can be done.
    NotInThisState = "not-in-this-state",
    /// 503: the queue's database does not answer.
    QueueUnavailable = "queue-unavailable",
    /// 404: no route takes this request.
    NoRoute = "no-route",
    /// 405.
    MethodNotAllowed = "method-not-allowed",
    /// 407.
    ProxyAuthenticationRequired = "proxy-authentication-required",
    /// 414.
    TargetTooLong = "target-too-long",
    /// 431.
    HeadTooLarge = "head-too-large",
    /// 503: no permit of the upstream within the time one may wait.
    Overloaded = "overloaded",
    /// 429.
    RateLimited = "rate-limited",
    /// 403: the forward proxy may not go there, or this client may not use it.
    ForwardDenied = "forward-denied",
    /// 508: this request passed this gateway before.
    LoopDetected = "loop-detected",
    /// 400.
    BadRequest = "bad-request",
    /// 413.
    BodyTooLarge = "body-too-large",
    /// 501: a transfer coding or a feature the gateway does not have.
    NotImplemented = "not-implemented",
    /// 500: a fault of the gateway itself.
    Internal = "internal",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
