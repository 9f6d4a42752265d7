//! Entity tags and their two comparisons (RFC 9110 section 8.8.3).

use http::{HeaderMap, HeaderName};

use super::fields::entity_tag_members;

/// An entity tag as it was sent. Malformed ones (no quotes, `w/` in lower case) equal only themselves, byte for byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntityTag<'a> {
    opaque: &'a [u8],
    weak: bool,
}

impl<'a> EntityTag<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Self {
        let text = text.trim_ascii();
        match text.strip_prefix(b"W/") {
            Some(opaque) if is_opaque(opaque) => Self { opaque, weak: true },
            _ => Self {
                opaque: text,
                weak: false,
            },
        }
    }

    pub(super) fn of(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self::parse(value.as_ref())
    }

    pub(super) fn matches_weakly(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    pub(super) fn matches_strongly(self, other: EntityTag<'_>) -> bool {
        self.is_strong() && other.is_strong() && self.opaque == other.opaque
    }

    /// A malformed tag promises nothing, so it is not strong.
    pub(super) fn is_strong(self) -> bool {
        !self.weak && is_opaque(self.opaque)
    }
}

fn is_opaque(text: &[u8]) -> bool {
    matches!(text, [b'"', inner @ .., b'"'] if !inner.contains(&b'"'))
}

/// Whether `*` or a tag of the list in `name` matches.
pub(super) fn any_matches(
    headers: &HeaderMap,
    name: &HeaderName,
    matches: impl Fn(EntityTag<'_>) -> bool,
) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| entity_tag_members(line.as_bytes()))
        .any(|member| member == b"*" || matches(EntityTag::parse(member)))
}
