//! A differential oracle: the crate http-cache-semantics answers the same questions, over every combination of the parts
//! below. Where the two differ, the difference is listed with its reason; one that is not listed fails the test, and so
//! does one that is listed and does not occur.

use std::{collections::BTreeMap, time::SystemTime};

use http_cache_semantics::{CacheOptions, CachePolicy};

use super::{
    Circumstances, Decision, Judgement, Lookup, Request, Response, START, after, cases, judge,
    select,
};

/// What both are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    /// May the response be stored?
    Store,
    /// Is it fresh, by lifetime and age alone?
    Fresh,
    /// May it answer the second request without the origin?
    Reuse,
}

use Question::{Fresh, Reuse, Store};

const STATUSES: [&str; 6] = ["200", "203", "302", "404", "503", "599"];

const CACHE_CONTROL: [&str; 30] = [
    "-",
    "Cache-Control: max-age=60",
    "Cache-Control: max-age=0",
    "Cache-Control: MAX-AGE=60",
    "Cache-Control: max-age=\"60\"",
    "Cache-Control: max-age=60, max-age=600",
    "Cache-Control: max-age=1m",
    "Cache-Control: max-age=99999999999",
    "Cache-Control: s-maxage=60",
    "Cache-Control: max-age=1, s-maxage=60",
    "Cache-Control: public",
    "Cache-Control: public, max-age=60",
    "Cache-Control: private, max-age=60",
    "Cache-Control: no-cache, max-age=60",
    "Cache-Control: no-store",
    "Cache-Control: No-Store, max-age=60",
    "Cache-Control: must-revalidate, max-age=60",
    "Cache-Control: proxy-revalidate, max-age=60",
    "Cache-Control: immutable",
    "Cache-Control: max-age=60, stale-while-revalidate=600",
    "Cache-Control: must-understand, no-store, max-age=60",
    "Cache-Control: x=\"no-store\", max-age=60",
    "Cache-Control: x=\"a, no-store\", max-age=60",
    "Pragma: no-cache",
    "Cache-Control: max-age=60 | Cache-Control: no-store",
    "Cache-Control: max-age=600 | Cache-Control: s-maxage=60",
    "Cache-Control: max-age=60 | Pragma: no-cache",
    "CDN-Cache-Control: max-age=60",
    "CDN-Cache-Control: no-store | Cache-Control: max-age=60",
    "CDN-Cache-Control: max-age=\"60\" | Cache-Control: max-age=60",
];

const OTHER_FIELDS: [&str; 16] = [
    "-",
    "ETag: \"a\"",
    "Last-Modified: @-6000",
    "Last-Modified: @-60000000",
    "Expires: @60",
    "Expires: 0",
    "Age: 30",
    "Age: 30, 0",
    "Date: @-30",
    "Set-Cookie: a=b",
    "Vary: Foo",
    "Vary: Bar | Vary: Foo",
    "Vary: Foo, Bar",
    "Age: 30 | Age: 0",
    "Age: 70",
    "Expires: @60 | Expires: 0",
];

const REQUESTS: [&str; 4] = [
    "Foo: 1",
    "Foo: 1 | Authorization: x",
    "Cache-Control: no-store | Foo: 1",
    "HEAD: Foo: 1",
];

const SECOND_REQUESTS: [&str; 13] = [
    "Foo: 1",
    "Foo: 2",
    "Foo: 1 | Cache-Control: no-cache",
    "Foo: 1 | Pragma: no-cache",
    "Foo: 1 | Cache-Control: max-age=20",
    "Foo: 1 | Cache-Control: min-fresh=50",
    "Foo: 1 | Cache-Control: max-stale=100",
    "Foo: 1 | Cache-Control: No-Cache",
    "Foo: 1 | Bar: 2",
    "Foo: 1 | Cache-Control: max-age=100 | Cache-Control: max-age=20",
    "Foo: 1 | Cache-Control: min-fresh=5, min-fresh=50",
    "HEAD: Foo: 1",
    "POST+body: Foo: 1",
];

const SECONDS: [i64; 4] = [0, 30, 59, 100];

/// `question, our answer :: parts of a case's text :: why`: in cases whose text contains all the parts, our answer may be
/// this and theirs the opposite. The most telling reason stands first.
const DIFFERENCES: &str = "
    Store no :: CDN-Cache-Control: no-store :: theirs knows no targeted fields
    Store yes :: CDN-Cache-Control: max-age=60 :: theirs knows no targeted fields
    Fresh yes :: CDN-Cache-Control: max-age=60 :: theirs knows no targeted fields
    Fresh no :: CDN-Cache-Control: max-age=60 && Last-Modified :: theirs falls to a heuristic
    Reuse yes :: CDN-Cache-Control: max-age=60 && max-stale :: theirs counts the staleness from a lifetime of 0
    Reuse no :: CDN-Cache-Control: max-age=60 && Last-Modified && min-fresh :: theirs counts from the heuristic lifetime
    Store no :: s-maxage=60 && Age: 70 :: stale from the start, without a validator, and s-maxage forbids stale reuse
    Store no :: -revalidate, max-age=60 && Age: 70 :: stale from the start, without a validator, and never reused stale
    Fresh no :: Expires: @60 | Expires: 0 :: one invalid line means stale; theirs takes the first alone
    Reuse no :: <- Foo: 1 | Cache-Control: max-age=100 | :: of a repeated directive the strictest counts; theirs takes another
    Reuse no :: <- Foo: 1 | Cache-Control: min-fresh=5, :: of a repeated directive the strictest counts; theirs takes another
    Store no :: HEAD: Foo: 1 -> :: the answer to a HEAD has no body; it updates what a GET stored
    Store no :: No-Store :: theirs takes directives in lower case only
    Store no :: Set-Cookie :: a cookie is for one client; theirs stores it as stale
    Store no :: no-cache, max-age=60 :: without a validator nothing could ever be made of it
    Store no :: Pragma: no-cache :: without a validator nothing could ever be made of it
    Store no :: Authorization && max-age=60, max-age=600 :: theirs reads a conflict as must-revalidate, which would allow sharing
    Store yes :: must-understand, no-store :: the status is understood, so no-store is not meant for us
    Store yes :: -> 503 :: explicit freshness suffices for any final status (RFC 9111 section 3)
    Store yes :: -> 599 :: explicit freshness suffices for any final status (RFC 9111 section 3)
    Store yes :: MAX-AGE=60 :: theirs takes directives in lower case only
    Fresh no :: MAX-AGE=60 :: theirs takes directives in lower case only, and falls to a heuristic
    Fresh yes :: MAX-AGE=60 :: theirs takes directives in lower case only
    Fresh yes :: no-cache :: no-cache forbids reuse; theirs expresses it as a lifetime of 0
    Fresh yes :: proxy-revalidate :: it speaks of stale responses; theirs takes the lifetime for 0
    Fresh no :: immutable :: immutable gives no lifetime (RFC 8246); theirs gives a day
    Fresh no :: Age: 30, 0 :: the first member counts; theirs ignores a list
    Fresh no :: Date: @-30 :: theirs knows no apparent age
    Reuse yes :: <- HEAD :: a stored GET answers a HEAD; theirs asks
    Reuse yes :: stale-while-revalidate :: theirs knows no stale-while-revalidate
    Reuse no :: s-maxage=60 && max-stale :: s-maxage forbids stale reuse (RFC 9111 section 5.2.2.10)
    Reuse no :: proxy-revalidate && max-stale :: proxy-revalidate forbids stale reuse
    Reuse no :: no-cache && max-stale :: no-cache forbids stale reuse
    Reuse no :: max-stale :: with neither freshness nor validator, never while the origin answers
    Reuse no :: <- Foo: 1 | Cache-Control: No-Cache :: theirs takes directives in lower case only
    Reuse no :: Age: 30, 0 && <- Foo: 1 | Cache-Control: m :: the first member counts; theirs ignores a list
    Reuse no :: Date: @-30 && <- Foo: 1 | Cache-Control: m :: theirs knows no apparent age
    Reuse yes :: immutable && Cache-Control: max-age=20 :: a fresh immutable response is as new as can be (RFC 8246)
    Reuse yes :: MAX-AGE=60 && max-stale :: theirs counts the staleness from a lifetime of 0
    Reuse yes :: max-age=60, max-age=600 && max-stale :: theirs reads a conflict as must-revalidate; ours takes the shorter
    Reuse no :: MAX-AGE=60 && Last-Modified && min-fresh :: theirs counts from the heuristic lifetime
    Reuse no :: immutable && Expires: @60 && min-fresh :: immutable gives no lifetime (RFC 8246); theirs gives a day
";

/// A line of [`DIFFERENCES`].
struct Difference {
    question: Question,
    ours: bool,
    when: Vec<&'static str>,
    line: &'static str,
}

impl Difference {
    fn parse(line: &'static str) -> Self {
        let parts: Vec<&str> = line.split(" :: ").collect();
        let [answer, when, _why] = parts[..] else {
            panic!("{line}");
        };
        let (question, ours) = answer.split_once(' ').expect("a question and an answer");
        Self {
            question: match question {
                "Store" => Store,
                "Fresh" => Fresh,
                "Reuse" => Reuse,
                _ => panic!("{line}"),
            },
            ours: ours == "yes",
            when: when.split(" && ").collect(),
            line,
        }
    }

    fn explains(&self, question: Question, case: &str, ours: bool) -> bool {
        self.question == question
            && self.ours == ours
            && self.when.iter().all(|part| case.contains(part))
    }
}

fn theirs(request: &Request, response: &Response) -> CachePolicy {
    let mut asked = http::Request::builder()
        .method(request.method.clone())
        .uri("http://a.example/")
        .body(())
        .unwrap();
    *asked.headers_mut() = request.headers.clone();
    let mut answered = http::Response::new(());
    *answered.status_mut() = response.status;
    *answered.headers_mut() = response.headers.clone();
    CachePolicy::new_options(
        &asked,
        &answered,
        SystemTime::from(START),
        CacheOptions::default(),
    )
}

fn their_reuse(policy: &CachePolicy, request: &Request, secs: i64) -> bool {
    let mut asked = http::Request::builder()
        .method(request.method.clone())
        .uri("http://a.example/")
        .body(())
        .unwrap();
    *asked.headers_mut() = request.headers.clone();
    policy
        .before_request(&asked, SystemTime::from(after(secs)))
        .satisfies_without_revalidation()
}

/// Every answer on which the two differ: the question, the case, ours.
#[derive(Default)]
struct Findings {
    compared: usize,
    differing: Vec<(Question, String, bool)>,
}

impl Findings {
    fn compare(&mut self, question: Question, case: impl Fn() -> String, ours: bool, theirs: bool) {
        self.compared += 1;
        if ours != theirs {
            self.differing.push((question, case(), ours));
        }
    }

    fn ask(&mut self, first: &str, response_text: &str) {
        let circumstances = Circumstances::default();
        let (request, response) = (Request::new(first), Response::new(response_text));
        let policy = theirs(&request, &response);
        let judgement = judge(
            &request.head(),
            &response.head(),
            None,
            &circumstances.settings,
        );
        let case = || format!("{first} -> {response_text}");
        let Judgement::Store(head) = judgement else {
            self.compare(Store, case, false, policy.is_storable());
            return;
        };
        self.compare(Store, case, true, policy.is_storable());
        if !policy.is_storable() {
            return;
        }
        for secs in SECONDS {
            let fresh = head
                .freshness(&circumstances.settings, after(secs))
                .is_fresh();
            let case = || format!("{} at {secs}", case());
            let fresh_to_them = !policy.is_stale(SystemTime::from(after(secs)));
            self.compare(Fresh, case, fresh, fresh_to_them);
            if fresh != fresh_to_them {
                // What follows from this difference is no difference of its own.
                continue;
            }
            for second in SECOND_REQUESTS {
                let asked = Request::new(second);
                let lookup = match select(&asked.headers, [head.as_ref()].into_iter()) {
                    Some(_) => Lookup::Stored(&head),
                    None => Lookup::OtherVariants,
                };
                let decision = circumstances.decide(second, lookup, secs);
                let ours = matches!(decision, Decision::Reuse(_));
                let case = || format!("{} <- {second}", case());
                self.compare(Reuse, case, ours, their_reuse(&policy, &asked, secs));
            }
        }
    }
}

#[test]
fn every_difference_from_http_cache_semantics_is_known() {
    let mut findings = Findings::default();
    for first in REQUESTS {
        for status in STATUSES {
            for cache_control in CACHE_CONTROL {
                for other in OTHER_FIELDS {
                    findings.ask(first, &format!("{status} {cache_control} | {other}"));
                }
            }
        }
    }
    assert!(
        findings.compared > 40_000,
        "{} comparisons",
        findings.compared
    );
    let known: Vec<Difference> = cases(DIFFERENCES).map(Difference::parse).collect();
    let mut seen = vec![0; known.len()];
    let mut unknown: BTreeMap<Question, Vec<String>> = BTreeMap::new();
    for (question, case, ours) in findings.differing {
        let explanation = known
            .iter()
            .position(|known| known.explains(question, &case, ours));
        match explanation {
            Some(index) => seen[index] += 1,
            None => unknown
                .entry(question)
                .or_default()
                .push(format!("ours {ours}: {case}")),
        }
    }
    for (question, cases) in &unknown {
        let shown: Vec<_> = cases.iter().step_by(cases.len().div_ceil(25)).collect();
        println!("{question:?}: {} cases, among them {shown:#?}", cases.len());
    }
    assert!(unknown.is_empty(), "unlisted differences, see above");
    for (count, known) in seen.iter().zip(&known) {
        assert_ne!(*count, 0, "no longer so: {}", known.line);
    }
}
