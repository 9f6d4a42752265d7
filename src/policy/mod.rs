//! What may be stored, reused, validated and invalidated: RFC 9111 and what an offline-first gateway adds.
//!
//! Pure: no I/O, no async, no clock, nothing of ours outside this module. Time is an argument. Every outcome carries a
//! [`Reason`] from one closed list.
//!
//! [`decide`] comes before the origin is asked, [`judge`] after it answered, [`on_failure`] when it did not. What a stored
//! response's fields say is parsed once, into [`Terms`] and [`VariantKey`]; a decision on a fresh one allocates nothing.

mod date;
mod decide;
mod directives;
mod entity_tag;
mod field_set;
mod fields;
mod freshen;
mod freshness;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod invalidation;
mod judge;
mod key;
mod mode;
mod path_pattern;
mod portal;
mod query;
mod ranges;
mod reason;
mod retry_after;
mod search;
mod settings;
mod stale;
mod stored_fields;
mod storing;
mod tags;
mod time;
mod validation;
mod vary;

#[cfg(test)]
mod tests;

pub use decide::{
    Connectivity, Decision, Forward, ForwardReason, Lookup, RequestHead, Reuse, decide,
    is_read_method,
};
pub use directives::forbids_storing;
pub use field_set::FieldSet;
pub use fields::FieldLines;
pub use freshen::{HeadEffect, head_effect, updated_fields};
pub use freshness::{Freshness, Terms};
pub use invalidation::{InvalidationTargets, invalidates, invalidates_groups, may_have_changed};
pub use judge::{Failure, Judgement, OnFailure, ResponseHead, judge, on_failure, while_held_down};
pub use key::CacheKey;
pub use mode::Mode;
pub use path_pattern::path_matches;
pub use portal::{Suspicion, accepts_html, suspicion};
pub use query::{ParameterPattern, QueryRules};
pub use ranges::{
    Answered, Assembly, Combined, Completion, Extent, Selection, Stretch, combine, completion,
    contradicts, makes_whole, select_bytes, whole_if_complete,
};
pub use reason::Reason;
pub use retry_after::retry_after;
pub use search::SearchVariation;
pub use settings::{CacheKind, ClientCacheControl, CookiePolicy, Overridable, Overrides, Settings};
pub use stored_fields::StoredFields;
pub use storing::{Mark, StoredHead, store_post_answer};
pub use tags::{Names, Tags};
pub use time::{Timestamp, civil_from_days};
pub use validation::{Answer, answer_conditionally, validation_headers};
pub use vary::{VariantKey, select};
