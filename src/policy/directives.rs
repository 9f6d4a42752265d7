//! Cache directives, parsed from `Cache-Control`, `Pragma` and targeted fields (RFC 9111 section 5.2, RFC 9213).
//!
//! Names in any case, arguments as tokens or quoted strings. Whatever is repeated, conflicting or malformed is read in
//! the most restrictive way: the smaller number wins, an argument that is no delta-seconds counts as 0, and white space
//! around `=` makes the argument malformed. Unknown directives are ignored.

use http::{
    HeaderMap, HeaderName,
    header::{CACHE_CONTROL, PRAGMA},
};
use serde::{Deserialize, Serialize};
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use smallvec::SmallVec;

use super::{
    ClientCacheControl, FieldSet, RequestHead, Settings,
    fields::{DELTA_SECONDS_MAX, all_members, delta_seconds, members, unquoted},
};

/// The directives of a request. Parsing allocates nothing: it is on the way of a hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestDirectives {
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
    pub(super) only_if_cached: bool,
    /// Seconds.
    pub(super) max_age: Option<u32>,
    /// Seconds.
    pub(super) min_fresh: Option<u32>,
    /// Seconds; without an argument, any staleness: [`u32::MAX`].
    pub(super) max_stale: Option<u32>,
    /// Seconds.
    pub(super) stale_if_error: Option<u32>,
}

/// The directives of a response that caching depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ResponseDirectives {
    /// Seconds.
    pub(super) max_age: Option<u32>,
    /// Seconds.
    pub(super) s_maxage: Option<u32>,
    /// Seconds.
    pub(super) stale_while_revalidate: Option<u32>,
    /// Seconds.
    pub(super) stale_if_error: Option<u32>,
    pub(super) no_store: bool,
    /// Without a field list, or with one that cannot be read.
    pub(super) no_cache: bool,
    /// Without a field list, or with one that cannot be read.
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) immutable: bool,
}

/// Field names in `no-cache="…"` or `private="…"`: the response may be stored without these fields.
pub(super) type FieldNames = SmallVec<[HeaderName; 2]>;

/// Everything a response's cache fields say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CacheFields {
    pub(super) directives: ResponseDirectives,
    /// `no-cache="…"`: not reused without validation.
    pub(super) unvalidated: FieldNames,
    /// `private="…"`: not stored in a shared cache.
    pub(super) private: FieldNames,
    /// A targeted field spoke: `Cache-Control` and `Expires` do not count (RFC 9213 section 2.2).
    pub(super) targeted: bool,
}

impl RequestDirectives {
    /// The directives that count: none where the operator ignores what clients say about caching.
    pub(super) fn in_force(request: &RequestHead<'_>, settings: &Settings) -> Self {
        let honored = settings.client_cache_control == ClientCacheControl::Honor;
        if honored && request.has(FieldSet::CACHE_DIRECTIVES) {
            Self::parse(request.headers)
        } else {
            Self::default()
        }
    }

    pub(super) fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            // Pragma counts only where there is no Cache-Control (RFC 9111 section 5.4).
            found.no_cache = has_pragma_no_cache(headers);
            return found;
        }
        for member in all_members(headers, &CACHE_CONTROL) {
            found.add(&Directive::parse(member));
        }
        found
    }

    /// Malformed arguments are read to the side of asking the origin.
    fn add(&mut self, directive: &Directive<'_>) {
        let seconds = directive.seconds();
        match () {
            () if directive.is("no-cache") => self.no_cache = true,
            () if directive.is("no-store") => self.no_store = true,
            () if directive.is("only-if-cached") => self.only_if_cached = true,
            () if directive.is("max-age") => tighten(&mut self.max_age, seconds.unwrap_or(0)),
            () if directive.is("min-fresh") => {
                let seconds = seconds.unwrap_or(DELTA_SECONDS_MAX);
                self.min_fresh = self.min_fresh.max(Some(seconds));
            }
            () if directive.is("max-stale") => {
                let any = matches!(directive.argument, Argument::None).then_some(u32::MAX);
                tighten(&mut self.max_stale, any.or(seconds).unwrap_or(0));
            }
            () if directive.is("stale-if-error") => {
                tighten(&mut self.stale_if_error, seconds.unwrap_or(0));
            }
            () => {}
        }
    }
}

/// Whether a request forbids to store it: `no-store` (RFC 9111 section 5.2.1.5).
pub fn forbids_storing(headers: &HeaderMap) -> bool {
    RequestDirectives::parse(headers).no_store
}

fn has_pragma_no_cache(headers: &HeaderMap) -> bool {
    all_members(headers, &PRAGMA).any(|member| Directive::parse(member).is("no-cache"))
}

impl CacheFields {
    /// What counts for this gateway: the first targeted field that is present, valid and not empty, else `Cache-Control`,
    /// else `Pragma: no-cache`, which old origins send and mean.
    pub(super) fn parse(headers: &HeaderMap, targeted: &[HeaderName]) -> Self {
        if let Some(found) = targeted
            .iter()
            .find_map(|name| Self::from_targeted(headers, name))
        {
            return found;
        }
        let mut found = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            found.directives.no_cache = has_pragma_no_cache(headers);
        }
        for member in all_members(headers, &CACHE_CONTROL) {
            found.add(&Directive::parse(member));
        }
        found
    }

    fn add(&mut self, directive: &Directive<'_>) {
        if directive.is("no-cache") {
            match directive.field_names() {
                Some(names) => self.unvalidated.extend(names),
                None => self.directives.no_cache = true,
            }
        } else if directive.is("private") {
            match directive.field_names() {
                Some(names) => self.private.extend(names),
                None => self.directives.private = true,
            }
        } else if let Some(flag) = self.directives.flag(directive.name) {
            *flag = true;
        } else if let Some(seconds) = self.directives.seconds(directive.name) {
            tighten(seconds, directive.seconds().unwrap_or(0));
        }
    }

    /// A targeted field is a structured dictionary. It is ignored as a whole when it is empty, does not parse, or gives a
    /// known directive an argument of the wrong type.
    fn from_targeted(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut lines = headers.get_all(name).iter();
        let mut text = lines.next()?.as_bytes().to_vec();
        for line in lines {
            text.extend_from_slice(b", ");
            text.extend_from_slice(line.as_bytes());
        }
        let dictionary: Dictionary = Parser::new(&text).parse().ok()?;
        if dictionary.is_empty() {
            return None;
        }
        let mut found = Self {
            targeted: true,
            ..Self::default()
        };
        for (key, entry) in &dictionary {
            found.add_structured(key.as_str(), entry)?;
        }
        Some(found)
    }

    /// `None` when the type is wrong for the directive.
    fn add_structured(&mut self, name: &str, entry: &ListEntry) -> Option<()> {
        let item = match entry {
            ListEntry::Item(item) => Some(&item.bare_item),
            ListEntry::InnerList(_) => None,
        };
        let fields = matches!(name, "no-cache" | "private");
        if let (true, Some(BareItem::String(list))) = (fields, item) {
            let names = field_names(list.as_str().as_bytes())?;
            match name {
                "private" => self.private.extend(names),
                _ => self.unvalidated.extend(names),
            }
        } else if let Some(flag) = self.directives.flag(name.as_bytes()) {
            *flag = item?.as_boolean()?;
        } else if let Some(seconds) = self.directives.seconds(name.as_bytes()) {
            let value = i64::from(item?.as_integer()?).clamp(0, i64::from(DELTA_SECONDS_MAX));
            *seconds = u32::try_from(value).ok();
        }
        Some(())
    }
}

impl ResponseDirectives {
    fn flag(&mut self, name: &[u8]) -> Option<&mut bool> {
        let flags: [(&str, &mut bool); 8] = [
            ("no-store", &mut self.no_store),
            ("no-cache", &mut self.no_cache),
            ("private", &mut self.private),
            ("public", &mut self.public),
            ("must-revalidate", &mut self.must_revalidate),
            ("proxy-revalidate", &mut self.proxy_revalidate),
            ("must-understand", &mut self.must_understand),
            ("immutable", &mut self.immutable),
        ];
        named(flags, name)
    }

    fn seconds(&mut self, name: &[u8]) -> Option<&mut Option<u32>> {
        let seconds: [(&str, &mut Option<u32>); 4] = [
            ("max-age", &mut self.max_age),
            ("s-maxage", &mut self.s_maxage),
            ("stale-while-revalidate", &mut self.stale_while_revalidate),
            ("stale-if-error", &mut self.stale_if_error),
        ];
        named(seconds, name)
    }
}

fn named<T, const N: usize>(table: [(&str, T); N], name: &[u8]) -> Option<T> {
    table
        .into_iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
        .map(|(_, value)| value)
}

/// The smaller value stays.
fn tighten(slot: &mut Option<u32>, value: u32) {
    *slot = Some(slot.map_or(value, |old| old.min(value)));
}

/// One member of `Cache-Control`: `token [ "=" ( token / quoted-string ) ]`.
struct Directive<'a> {
    name: &'a [u8],
    argument: Argument<'a>,
}

enum Argument<'a> {
    None,
    Token(&'a [u8]),
    /// Without its quotes; escapes as they are, since no directive's argument needs one.
    Quoted(&'a [u8]),
    Malformed,
}

impl<'a> Directive<'a> {
    fn parse(member: &'a [u8]) -> Self {
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else {
            return Self {
                name: member,
                argument: Argument::None,
            };
        };
        let (name, value) = (&member[..equals], &member[equals + 1..]);
        let spaced = name.trim_ascii_end() != name || value.trim_ascii_start() != value;
        let argument = match unquoted(value) {
            _ if spaced => Argument::Malformed,
            Some(inner) => Argument::Quoted(inner),
            None => Argument::Token(value),
        };
        Self {
            name: name.trim_ascii_end(),
            argument,
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    fn seconds(&self) -> Option<u32> {
        match self.argument {
            Argument::Token(text) | Argument::Quoted(text) => delta_seconds(text),
            Argument::None | Argument::Malformed => None,
        }
    }

    /// The field list of the qualified form, which is always quoted (RFC 9111 sections 5.2.2.4 and 5.2.2.7): a token such
    /// as `private=1` is more likely a careless way to say `private`.
    fn field_names(&self) -> Option<FieldNames> {
        match self.argument {
            Argument::Quoted(list) => field_names(list),
            _ => None,
        }
    }
}

/// `None` unless every member is a field name and there is at least one.
fn field_names(list: &[u8]) -> Option<FieldNames> {
    let names: FieldNames = members(list)
        .map(HeaderName::from_bytes)
        .collect::<Result<_, _>>()
        .ok()?;
    (!names.is_empty()).then_some(names)
}
