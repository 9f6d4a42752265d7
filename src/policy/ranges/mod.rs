//! Byte ranges of a representation (RFC 9110 section 14), and the parts of one that are stored (RFC 9111 sections 3.3 and
//! 3.4).
//!
//! A *part* is a stored 206: one contiguous run of bytes, which its `Content-Range` places. [`select_bytes`] says what of
//! a stored response answers a request, [`completion`] what has to be asked for besides, [`combine`] what two stored
//! responses are together. Invariant: bytes are joined only under the same strong validator, and only where each side
//! has exactly the bytes that its `Content-Range` claims. Bounds: 16 ranges a request, and no answer is larger than the
//! representation and the heads of so many parts.

mod combining;
mod completing;
mod content_range;
mod extent;
mod requested;

pub(super) use self::content_range::ContentRange;
pub use self::{
    combining::{Combined, combine, contradicts, whole_if_complete},
    completing::{Answered, Assembly, Completion, completion, makes_whole},
    extent::{Extent, Selection, Stretch, select_bytes},
};
