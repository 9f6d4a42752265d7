//! Parts: when one answers, what completes it, and that bytes of different representations never meet.

use std::ops::Range;

use http::{HeaderMap, header};
use proptest::prelude::*;

use super::{
    super::{
        Answered, Combined, Extent, ResponseHead, Stretch, combine, completion, contradicts,
        makes_whole, select_bytes, whole_if_complete,
    },
    Circumstances, Lookup, Request, Response, Settings, StoredHead, after, cases, describe,
    headers,
};
use crate::policy::Selection;

fn head(response: &str, secs: i64) -> StoredHead {
    let (request, response) = (
        Request::new("Range: bytes=0-"),
        Response::at(response, secs),
    );
    StoredHead::new(&request.head(), &response.head(), &Settings::default())
}

fn text<'a>(head: &'a StoredHead, name: &str) -> &'a str {
    head.headers
        .get(name)
        .map_or("", |value| str::from_utf8(value).unwrap())
}

#[test]
fn a_part_is_decided_on_like_anything_stored_and_otherwise_forwarded_as_partial() {
    const PART: &str = "206 Cache-Control: max-age=60 | ETag: \"a\" | Content-Range: bytes 2-5/10";
    // request :: circumstances :: seconds => decision
    let table = r#"
        Range: bytes=2-3 :: - :: 0 => hit
        Range: bytes=2-3 :: - :: 60 => fwd stale validate
        Range: bytes=2-3 :: swr=60 :: 60 => reuse stale-while-revalidate behind
        Range: bytes=2-3 :: disconnected :: 60 => reuse disconnected
        Range: bytes=2-3 :: offline :: 0 => hit
        Range: bytes=2-3 :: prefer-cache :: 60 => reuse prefer-cache behind
        Range: bytes=2-3 | Cache-Control: no-cache :: - :: 0 => fwd request validate
        Range: bytes=2-3 | If-Range: "a" :: - :: 0 => hit
        Range: bytes=2-3 | If-Range: "b" :: - :: 0 => fwd partial behind
        Range: bytes=0-3 :: - :: 0 => fwd partial behind
        Range: bytes=0-3 :: online :: 0 => fwd partial behind
        Range: bytes=0-3 :: prefer-cache :: 0 => fwd partial
        Range: bytes=0-3 :: disconnected :: 0 => 504 offline-miss
        Range: bytes=0-3 | Cache-Control: only-if-cached :: - :: 0 => 504 only-if-cached
        Range: bytes=0-3 | Cache-Control: no-store :: - :: 0 => fwd partial
        Range: bytes=0-3 | Authorization: a :: - :: 0 => fwd partial
        Range: lines=0-3 :: - :: 0 => fwd partial behind
        - :: - :: 0 => fwd partial collapse
        - :: - :: 60 => fwd partial collapse
        - :: disconnected :: 0 => 504 offline-miss
        If-None-Match: "a" :: - :: 0 => fwd partial
        HEAD :: - :: 0 => fwd partial
        HEAD: Range: bytes=2-3 :: - :: 0 => fwd partial
    "#;
    for case in cases(table) {
        let (question, expected) = case.split_once(" => ").unwrap();
        let [request, words, secs] = question.split(" :: ").collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let words = if words == "-" { "" } else { words };
        let stored = head(PART, 0);
        let asked = Request::new(request);
        let lookup = Lookup::of(&asked.head(), &stored, 4);
        let decision = Circumstances::new(words).decide(request, lookup, secs.parse().unwrap());
        assert_eq!(describe(&decision), expected, "{case}");
    }
}

#[test]
fn a_part_stored_for_one_user_is_no_part_for_another() {
    let private = head(
        "206 Cache-Control: private, max-age=60 | Content-Range: bytes 2-5/10",
        0,
    );
    let decision = Circumstances::default().decide("", Lookup::Part(&private), 0);
    assert_eq!(describe(&decision), "fwd vary-miss collapse");
}

/// `place, seconds since the epoch of Last-Modified or tag :: newer => what they are together`
#[test]
fn two_responses_are_one_under_the_same_strong_validator_only() {
    let describe = |combined: &Combined| match combined {
        Combined::Apart => "apart".to_owned(),
        Combined::Stands(head) => format!(
            "stands {} {}",
            head.status.as_u16(),
            text(head, "content-range")
        ),
        Combined::Joined {
            head,
            before,
            after,
        } => format!(
            "{}..{} + new + {}..{} {} {}",
            before.start,
            before.end,
            after.start,
            after.end,
            head.status.as_u16(),
            text(head, "content-range")
        ),
    };
    let table = r#"
        206 0-4/10, 5 | ETag: "a" :: 5-9/10, 5 | ETag: "a" => 0..5 + new + 5..5 200
        206 0-4/10, 5 | ETag: "a" :: 5-7/10, 3 | ETag: "a" => 0..5 + new + 5..5 206 bytes 0-7/10
        206 5-9/10, 5 | ETag: "a" :: 0-6/10, 7 | ETag: "a" => 0..0 + new + 2..5 200
        206 2-5/10, 4 | ETag: "a" :: 4-7/10, 4 | ETag: "a" => 0..2 + new + 4..4 206 bytes 2-7/10
        206 2-5/10, 4 | ETag: "a" :: 1-8/10, 8 | ETag: "a" => 0..0 + new + 4..4 206 bytes 1-8/10
        206 2-5/* , 4 | ETag: "a" :: 6-9/10, 4 | ETag: "a" => 0..4 + new + 4..4 206 bytes 2-9/10
        206 0-4/10, 5 | ETag: "a" :: 1-2/10, 2 | ETag: "a" => stands 206 bytes 0-4/10
        206 0-9/*, 10 | ETag: "a" :: 1-2/10, 2 | ETag: "a" => stands 200
        // Of two that do not touch the longer one is kept.
        206 0-4/90, 5 | ETag: "a" :: 80-83/90, 4 | ETag: "a" => stands 206 bytes 0-4/90
        206 0-4/90, 5 | ETag: "a" :: 80-84/90, 5 | ETag: "a" => apart
        // A complete response has it all.
        200 -, 10 | ETag: "a" :: 1-2/10, 2 | ETag: "a" => stands 200
        200 -, 10 | ETag: "a" :: 1-2/11, 2 | ETag: "a" => apart
        200 -, 10 | ETag: "a" :: 1-2/10, 2 | ETag: "b" => apart
        // Another validator, a weak one, none, or only on one side.
        206 0-4/10, 5 | ETag: "a" :: 5-9/10, 5 | ETag: "b" => apart
        206 0-4/10, 5 | ETag: W/"a" :: 5-9/10, 5 | ETag: W/"a" => apart
        206 0-4/10, 5 | ETag: W/"a" :: 5-9/10, 5 | ETag: "a" => apart
        206 0-4/10, 5 | ETag: a :: 5-9/10, 5 | ETag: a => apart
        206 0-4/10, 5 | - :: 5-9/10, 5 | - => apart
        206 0-4/10, 5 | ETag: "a" :: 5-9/10, 5 | - => apart
        206 0-4/10, 5 | Last-Modified: @-60 :: 5-9/10, 5 | Last-Modified: @-60 => 0..5 + new + 5..5 200
        206 0-4/10, 5 | Last-Modified: @-59 :: 5-9/10, 5 | Last-Modified: @-59 => apart
        206 0-4/10, 5 | Last-Modified: @-60 :: 5-9/10, 5 | Last-Modified: @-61 => apart
        206 0-4/10, 5 | ETag: "a" | Last-Modified: @-60 :: 5-9/10, 5 | Last-Modified: @-60 => apart
        206 0-4/10, 5 | ETag: "a" | Content-Encoding: gzip :: 5-9/10, 5 | ETag: "a" => apart
        // Another length, or a body that is not what it claims.
        206 0-4/10, 5 | ETag: "a" :: 5-9/11, 5 | ETag: "a" => apart
        206 0-4/10, 4 | ETag: "a" :: 5-9/10, 5 | ETag: "a" => apart
        206 0-4/10, 5 | ETag: "a" :: 5-9/10, 4 | ETag: "a" => apart
    "#;
    for case in cases(table) {
        let (question, expected) = case.split_once(" => ").unwrap();
        let (stored, new) = question.split_once(" :: ").unwrap();
        let parse = |text: &str| {
            let (place, fields) = text.split_once(" | ").unwrap();
            let (place, bytes) = place.split_once(", ").unwrap();
            let (status, place) = place.split_once(' ').unwrap_or(("206", place));
            let head = match status {
                "200" => head(&format!("200 {fields}"), 0),
                _ => head(
                    &format!("206 Content-Range: bytes {} | {fields}", place.trim()),
                    0,
                ),
            };
            (head, bytes.parse().unwrap())
        };
        let ((stored, stored_bytes), (new, new_bytes)) = (parse(stored), parse(new));
        let combined = combine(
            (&stored, stored_bytes),
            (&new, new_bytes),
            &Settings::default(),
        );
        assert_eq!(describe(&combined).trim(), expected, "{case}");
    }
}

#[test]
fn the_newer_fields_update_the_older_ones_and_those_of_one_answer_go() {
    let stored = head(
        "206 Content-Range: bytes 0-4/10 | Content-Length: 5 | ETag: \"a\" | Cache-Control: max-age=60 | A: 1 | B: 1 | Content-Digest: x | Age: 7",
        0,
    );
    let new = head(
        "206 Content-Range: bytes 5-9/10 | Content-Length: 5 | ETag: \"a\" | A: 2 | Content-Digest: y | Date: @50",
        50,
    );
    let Combined::Joined { head, .. } = combine((&stored, 5), (&new, 5), &Settings::default())
    else {
        panic!("they touch");
    };
    let fields = [
        "a",
        "b",
        "cache-control",
        "content-length",
        "content-digest",
        "age",
    ];
    let found = fields.map(|name| text(&head, name));
    assert_eq!(found, ["2", "1", "max-age=60", "10", "", ""]);
    let freshness = head.freshness(&Settings::default(), after(109));
    assert!(freshness.is_fresh(), "it is as young as the newer one");
    assert!(!head.freshness(&Settings::default(), after(110)).is_fresh());
}

#[test]
fn a_part_that_is_the_whole_is_stored_as_such() {
    let whole = |place: &str, bytes| {
        let head = head(&format!("206 Content-Range: bytes {place}"), 0);
        !whole_if_complete(head, bytes).is_part()
    };
    assert!(whole("0-9/10", 10));
    assert!(!whole("0-9/10", 9), "a byte is missing");
    assert!(!whole("0-9/*", 10), "there may be more");
    assert!(!whole("1-9/10", 9));
}

#[test]
fn a_part_tells_when_the_complete_response_is_outdated() {
    let complete = head("200 ETag: \"a\"", 0);
    let tells = |part: &str| contradicts(&complete, 10, &head(&format!("206 {part}"), 0));
    assert!(!tells("ETag: \"a\" | Content-Range: bytes 0-1/10"));
    assert!(!tells("Content-Range: bytes 0-1/*"));
    assert!(tells("ETag: \"b\" | Content-Range: bytes 0-1/10"));
    assert!(tells("ETag: \"a\" | Content-Range: bytes 0-1/11"));
}

/// `part :: request :: seconds => Range and If-Range that are sent`
#[test]
fn the_rest_is_asked_for_where_part_and_rest_are_the_whole_or_the_range() {
    let table = r#"
        0-4/10, 5 | ETag: "a" :: - :: 0 => bytes=5- "a"
        0-4/10, 5 | ETag: "a" :: - :: 900 => bytes=5- "a"
        0-4/*, 5 | ETag: "a" :: - :: 0 => bytes=5- "a"
        5-9/10, 5 | ETag: "a" :: - :: 0 => bytes=0-4 "a"
        2-4/10, 3 | ETag: "a" :: - :: 0 => none
        5-9/*, 5 | ETag: "a" :: - :: 0 => none
        0-4/10, 5 | Last-Modified: @-60 :: - :: 0 => bytes=5- @
        // Without a strong validator only a fresh part, and only for the whole.
        0-4/10, 5 | - :: - :: 0 => bytes=5-
        0-4/10, 5 | ETag: W/"a" :: - :: 0 => bytes=5-
        0-4/10, 5 | - :: - :: 60 => none
        0-4/10, 5 | - :: Range: bytes=2-7 :: 0 => none
        // A body that is not what it claims.
        0-4/10, 4 | ETag: "a" :: - :: 0 => none
        // Ranges that go on where the part ends, or end where it starts.
        0-4/10, 5 | ETag: "a" :: Range: bytes=2-7 :: 0 => bytes=5-7 "a"
        0-4/10, 5 | ETag: "a" :: Range: bytes=2- :: 0 => bytes=5- "a"
        0-4/10, 5 | ETag: "a" :: Range: bytes=0-99 :: 0 => bytes=5- "a"
        0-4/10, 5 | ETag: "a" :: Range: bytes=-7 :: 0 => bytes=5- "a"
        0-4/*, 5 | ETag: "a" :: Range: bytes=2-7 :: 0 => bytes=5-7 "a"
        5-9/10, 5 | ETag: "a" :: Range: bytes=3- :: 0 => bytes=3-4 "a"
        5-9/10, 5 | ETag: "a" :: Range: bytes=3-6 :: 0 => bytes=3-4 "a"
        5-9/10, 5 | ETag: "a" :: Range: bytes=-7 :: 0 => bytes=3-4 "a"
        // Apart, around it, several, or with conditions of the client's own.
        0-4/10, 5 | ETag: "a" :: Range: bytes=5- :: 0 => none
        0-4/10, 5 | ETag: "a" :: Range: bytes=7-8 :: 0 => none
        3-4/10, 2 | ETag: "a" :: Range: bytes=0-8 :: 0 => none
        0-4/10, 5 | ETag: "a" :: Range: bytes=2-7,9-9 :: 0 => none
        0-4/10, 5 | ETag: "a" :: Range: lines=2-7 :: 0 => none
        0-4/10, 5 | ETag: "a" :: Range: bytes=2-7 | If-Range: "a" :: 0 => bytes=5-7 "a"
        0-4/10, 5 | ETag: "a" :: Range: bytes=2-7 | If-Range: "b" :: 0 => none
        0-4/10, 5 | ETag: "a" :: Range: bytes=2-7 | If-None-Match: "b" :: 0 => none
        0-4/10, 5 | ETag: "a" :: If-None-Match: "b" :: 0 => bytes=5- "a"
        0-4/10, 5 | ETag: "a" :: If-Match: "b" :: 0 => none
        0-4/10, 5 | ETag: "a" :: Cache-Control: no-store :: 0 => none
    "#;
    for case in cases(table) {
        let (question, expected) = case.split_once(" => ").unwrap();
        let [stored, request, secs] = question.split(" :: ").collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let (part, bytes) = part(stored);
        let request = Request::new(request);
        let now = after(secs.parse().unwrap());
        let how = completion(&request.head(), &part, bytes, &Settings::default(), now);
        let asked = how.map(|how| {
            let mut outgoing = request.headers.clone();
            how.ask(&mut outgoing, &part);
            let field = |name| {
                outgoing
                    .get(name)
                    .map_or("", |value| value.to_str().unwrap())
            };
            let condition = match field(header::IF_RANGE) {
                date if date.ends_with("GMT") => "@",
                tag => tag,
            };
            format!("{} {condition}", field(header::RANGE))
                .trim()
                .to_owned()
        });
        assert_eq!(asked.as_deref().unwrap_or("none"), expected, "{case}");
    }
}

#[test]
fn a_range_that_is_all_that_lacks_makes_the_whole() {
    let table = r#"
        0-4/10, 5 | ETag: "a" :: 5- => yes
        0-4/10, 5 | ETag: "a" :: 3- => yes
        0-4/10, 5 | ETag: "a" :: -5 => yes
        0-4/10, 5 | ETag: "a" :: 6- => no
        0-4/10, 5 | ETag: "a" :: 5-8 => no
        0-4/10, 5 | ETag: "a" :: 5-7,8-9 => no
        0-4/10, 5 | ETag: W/"a" :: 5- => no
        0-4/10, 4 | ETag: "a" :: 5- => no
        0-4/*, 5 | ETag: "a" :: 5- => no
        5-9/10, 5 | ETag: "a" :: 0-4 => yes
        5-9/10, 5 | ETag: "a" :: 0-3 => no
        5-9/10, 5 | ETag: "a" :: 1-4 => no
        2-4/10, 3 | ETag: "a" :: 5- => no
    "#;
    for case in cases(table) {
        let (question, expected) = case.split_once(" => ").unwrap();
        let (stored, set) = question.split_once(" :: ").unwrap();
        let ((part, bytes), request) = (part(stored), Request::new(&format!("Range: bytes={set}")));
        let found = makes_whole(&request.head(), &part, bytes);
        assert_eq!(found, expected == "yes", "{case}");
    }
}

/// A part written as `0-4/10, 5 | ETag: "a"`, fresh for a minute.
fn part(text: &str) -> (StoredHead, u64) {
    let (place, fields) = text.split_once(" | ").unwrap();
    let (place, bytes) = place.split_once(", ").unwrap();
    let response =
        format!("206 Cache-Control: max-age=60 | Content-Range: bytes {place} | {fields}");
    (head(&response, 0), bytes.parse().unwrap())
}

/// `request :: answer to the request for the rest of 0-4/10 => what it is`
#[test]
fn only_the_rest_of_the_same_representation_is_taken_for_the_rest() {
    let table = r#"
        - :: 206 Content-Range: bytes 5-9/10 | ETag: "a" => 0..5 + 5 + 0..0 = 10 200
        - :: 206 Content-Range: bytes 5-9/* | ETag: "a" => 0..5 + 5 + 0..0 = 10 200
        - :: 206 Content-Range: bytes 5-9/10 | ETag: "b" => ask anew
        - :: 206 Content-Range: bytes 5-9/10 | ETag: W/"a" => ask anew
        - :: 206 Content-Range: bytes 5-9/10 => ask anew
        - :: 206 Content-Range: bytes 5-8/10 | ETag: "a" => ask anew
        - :: 206 Content-Range: bytes 4-9/10 | ETag: "a" => ask anew
        - :: 206 Content-Range: bytes 5-10/11 | ETag: "a" => ask anew
        - :: 206 Content-Range: bytes 5-9/9 | ETag: "a" => ask anew
        - :: 206 ETag: "a" => ask anew
        - :: 206 Content-Range: bytes 5-9/10 | ETag: "a" | Cache-Control: no-store => ask anew
        - :: 416 Content-Range: bytes */5 => ask anew
        - :: 200 ETag: "a" => anew
        - :: 503 - => anew
        - :: 404 - => anew
        Range: bytes=2-7 :: 206 Content-Range: bytes 5-7/10 | ETag: "a" => 2..5 + 3 + 0..0 = 6 206 bytes 2-7/10
        Range: bytes=2-7 :: 206 Content-Range: bytes 5-9/10 | ETag: "a" => ask anew
        Range: bytes=0- :: 206 Content-Range: bytes 5-9/10 | ETag: "a" => 0..5 + 5 + 0..0 = 10 206 bytes 0-9/10
    "#;
    for case in cases(table) {
        let (question, expected) = case.split_once(" => ").unwrap();
        let (request, response) = question.split_once(" :: ").unwrap();
        let (part, bytes) = part("0-4/10, 5 | ETag: \"a\"");
        let (request, response) = (Request::new(request), Response::new(response));
        let settings = Settings::default();
        let how = completion(&request.head(), &part, bytes, &settings, after(0)).unwrap();
        let found = match how.judge(&request.head(), &response.head(), &part, &settings) {
            Answered::Anew => "anew".to_owned(),
            Answered::AskAnew => "ask anew".to_owned(),
            Answered::Rest(assembly) => format!(
                "{}..{} + {} + {}..{} = {} {} {}",
                assembly.before.start,
                assembly.before.end,
                assembly.rest_bytes,
                assembly.after.start,
                assembly.after.end,
                assembly.bytes,
                assembly.head.status.as_u16(),
                text(&assembly.head, "content-range"),
            ),
        };
        assert_eq!(found.trim(), expected, "{case}");
    }
}

/// Two versions of a representation that differ in every byte.
const LENGTH: usize = 40;

fn version(tag: u8) -> Vec<u8> {
    (0..LENGTH)
        .map(|at| u8::try_from(at).unwrap() + tag * 100)
        .collect()
}

/// The answer of an origin that has this version.
fn answer(tag: u8, bytes: &Range<usize>, knows_length: bool) -> (HeaderMap, Vec<u8>) {
    let complete = if knows_length {
        LENGTH.to_string()
    } else {
        "*".to_owned()
    };
    let fields = headers(&format!(
        "ETag: \"{tag}\" | Cache-Control: max-age=60 | Content-Range: bytes {}-{}/{complete}",
        bytes.start,
        bytes.end - 1
    ));
    (fields, version(tag)[bytes.clone()].to_vec())
}

fn received(fields: HeaderMap) -> StoredHead {
    let (request, response) = (
        Request::new("Range: bytes=0-"),
        Response {
            headers: fields,
            ..Response::new("206 -")
        },
    );
    StoredHead::new(&request.head(), &response.head(), &Settings::default())
}

fn slice(body: &[u8], range: &Range<u64>) -> Vec<u8> {
    let at = |position: u64| usize::try_from(position).unwrap();
    body[at(range.start)..at(range.end)].to_vec()
}

/// What is stored after a new part came, as whoever publishes it does.
fn publish(
    stored: Option<(StoredHead, Vec<u8>)>,
    new: (StoredHead, Vec<u8>),
) -> (StoredHead, Vec<u8>) {
    let (head, body) = new;
    let head = whole_if_complete(head, body.len() as u64);
    let Some((old, old_body)) = stored else {
        return (head, body);
    };
    if !head.is_part() {
        return (head, body);
    }
    let sizes = (old_body.len() as u64, body.len() as u64);
    match combine((&old, sizes.0), (&head, sizes.1), &Settings::default()) {
        Combined::Apart => (head, body),
        Combined::Stands(head) => (*head, old_body),
        Combined::Joined {
            head,
            before,
            after,
        } => {
            let joined = [slice(&old_body, &before), body, slice(&old_body, &after)].concat();
            (*head, joined)
        }
    }
}

/// Which positions a head says that it has, and the version.
fn claims(head: &StoredHead) -> (Range<usize>, u8) {
    let tag = text(head, "etag").trim_matches('"').parse().unwrap();
    if !head.is_part() {
        return (0..LENGTH, tag);
    }
    let place = text(head, "content-range").strip_prefix("bytes ").unwrap();
    let (first, last) = place.split_once('/').unwrap().0.split_once('-').unwrap();
    (
        first.parse().unwrap()..last.parse::<usize>().unwrap() + 1,
        tag,
    )
}

fn span() -> impl Strategy<Value = Range<usize>> {
    (0..LENGTH, 1..=LENGTH).prop_map(|(first, count)| first..(first + count).min(LENGTH))
}

proptest! {
    #[test]
    fn parts_in_any_order_are_bytes_of_one_version_where_they_say_they_are(
        steps in proptest::collection::vec((span(), 0_u8..2, any::<bool>()), 1..12),
    ) {
        let mut stored = None;
        for (bytes, tag, knows_length) in steps {
            let (fields, body) = answer(tag, &bytes, knows_length);
            let (head, body) = publish(stored.take(), (received(fields), body));
            let (claimed, version_of_it) = claims(&head);
            prop_assert_eq!(version_of_it, tag, "the newer version is what is kept");
            prop_assert_eq!(&body, &version(tag)[claimed]);
            stored = Some((head, body));
        }
    }

    #[test]
    fn parts_without_a_strong_validator_are_never_joined(
        first in span(), second in span(), tag in prop_oneof![Just(""), Just("W/\"1\""), Just("1")],
    ) {
        let weak = |bytes| {
            let (mut fields, body) = answer(1, bytes, true);
            fields.remove(header::ETAG);
            if !tag.is_empty() {
                fields.insert(header::ETAG, tag.parse().unwrap());
            }
            (received(fields), body.len() as u64)
        };
        let ((old, old_bytes), (new, new_bytes)) = (weak(&first), weak(&second));
        let combined = combine((&old, old_bytes), (&new, new_bytes), &Settings::default());
        prop_assert!(matches!(combined, Combined::Apart));
    }

    #[test]
    fn a_part_and_the_rest_are_what_was_asked_for(
        held in span(), wanted in prop_oneof![Just(None), span().prop_map(Some)],
        open in any::<bool>(), knows_length in any::<bool>(), changed in any::<bool>(),
    ) {
        let (fields, part_body) = answer(0, &held, knows_length);
        let (part, bytes) = (received(fields), part_body.len() as u64);
        let request = Request::new(&match &wanted {
            None => String::new(),
            Some(wanted) if open => format!("Range: bytes={}-", wanted.start),
            Some(wanted) => format!("Range: bytes={}-{}", wanted.start, wanted.end - 1),
        });
        let settings = Settings::default();
        let Some(how) = completion(&request.head(), &part, bytes, &settings, after(0)) else {
            return Ok(());
        };
        let mut asked = HeaderMap::new();
        how.ask(&mut asked, &part);
        let range = asked[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let end = last.parse::<usize>().map_or(LENGTH, |last| (last + 1).min(LENGTH));
        let missing = first.parse::<usize>().unwrap()..end;
        prop_assume!(!missing.is_empty());

        let (fields, rest) = answer(u8::from(changed), &missing, true);
        let response = Response { headers: fields, ..Response::new("206 -") };
        let response: ResponseHead<'_> = response.head();
        let found = how.judge(&request.head(), &response, &part, &settings);
        let Answered::Rest(assembly) = found else {
            prop_assert!(changed);
            return Ok(());
        };
        prop_assert!(!changed, "bytes of two versions in one answer");
        let whole = [slice(&part_body, &assembly.before), rest, slice(&part_body, &assembly.after)].concat();
        prop_assert_eq!(whole.len() as u64, assembly.bytes);
        let expected = match &wanted {
            None => 0..LENGTH,
            Some(wanted) if open => wanted.start..LENGTH,
            Some(wanted) => wanted.clone(),
        };
        prop_assert_eq!(claims(&assembly.head).0, expected.clone());
        prop_assert_eq!(&whole, &version(0)[expected]);
    }

    #[test]
    fn what_is_selected_is_among_the_bytes_and_no_larger_than_them(
        set in "[0-9,\\- ]{0,40}", held in span(), short in 0_u64..3, is_part in any::<bool>(),
    ) {
        let request = Request::new(&format!("Range: bytes={set}"));
        let (fields, body) = answer(0, &held, true);
        let bytes = (body.len() as u64).saturating_sub(short);
        let head = if is_part { received(fields) } else { head("200 -", 0) };
        prop_assert!(Extent::of(&head, bytes).is_some());
        let stretches: Vec<Stretch> = match select_bytes(&request.head(), &head, bytes) {
            Selection::One(stretch) => vec![stretch],
            Selection::Several(stretches) => stretches,
            Selection::Whole | Selection::Missing | Selection::Unsatisfiable(_) => Vec::new(),
        };
        for stretch in &stretches {
            prop_assert!(stretch.body.start < stretch.body.end && stretch.body.end <= bytes);
        }
        prop_assert!(stretches.iter().map(Stretch::bytes).sum::<u64>() <= bytes);
    }
}
