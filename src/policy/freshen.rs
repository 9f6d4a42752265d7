//! Freshening a stored response by a 304 or by the answer to a HEAD (RFC 9111 sections 3.2, 4.3.4 and 4.3.5).

use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, SET_COOKIE, VARY},
};

use super::{
    CookiePolicy, Mark, RequestHead, ResponseHead, Settings, StoredFields, StoredHead, Terms,
    directives::CacheFields,
    storing::{clean, forbidden, is_never_stored, variant},
    validation::validators_agree,
};

/// Fields that describe the stored bytes themselves. The bytes stay, so these do (RFC 9111 section 3.2).
const OF_THE_BODY: [HeaderName; 3] = [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE];

/// What the answer to a HEAD means for a stored response to GET.
#[derive(Clone, Debug)]
pub enum HeadEffect {
    /// Nothing: no 200, or not to a HEAD; or it agrees with a part, whose fields are not those of the whole.
    Nothing,
    /// Its validators and length are the stored ones: this is the stored head now.
    Freshen(Box<StoredHead>),
    /// They differ: mark the stored response [`Mark::Stale`].
    MarkStale,
}

/// What the answer to a HEAD means for `stored`, a response to GET that could have answered it (RFC 9111 section 4.3.5).
pub fn head_effect(
    request: &RequestHead<'_>,
    response: &ResponseHead<'_>,
    stored: &StoredHead,
    settings: &Settings,
) -> HeadEffect {
    if request.method != Method::HEAD || response.status != StatusCode::OK {
        return HeadEffect::Nothing;
    }
    let validators_agree = validators_agree(response.headers, &stored.headers);
    if stored.is_part() && validators_agree {
        return HeadEffect::Nothing;
    }
    let same_length = response.headers.get(CONTENT_LENGTH).is_none_or(|new| {
        // A stored response without the field was chunked; its length is not known here.
        stored
            .headers
            .get(CONTENT_LENGTH)
            .is_none_or(|old| old == new)
    });
    if stored.status != StatusCode::OK || !same_length || !validators_agree {
        return HeadEffect::MarkStale;
    }
    HeadEffect::Freshen(Box::new(freshen(request, response, stored, settings)))
}

/// The stored head as the new response updates it. Where the new fields forbid storing, it is marked [`Mark::Invalid`]:
/// good for the answer at hand, and validated before each further one.
pub(super) fn freshen(
    request: &RequestHead<'_>,
    response: &ResponseHead<'_>,
    stored: &StoredHead,
    settings: &Settings,
) -> StoredHead {
    let mut headers = updated_fields(stored, response.headers);
    if settings.set_cookie != CookiePolicy::Store {
        // The cookie of a 304 is for one client.
        headers.remove(SET_COOKIE);
    }
    let fields = CacheFields::parse(&headers, &settings.targeted_fields);
    clean(&mut headers, &fields, response.response_time, settings);
    let terms = Terms::from_fields(
        stored.status,
        &headers,
        &fields,
        settings,
        (response.request_time, response.response_time),
    );
    let same_vary = headers
        .get_all(VARY)
        .iter()
        .eq(stored.headers.get_all(VARY));
    let variant = if same_vary {
        stored.variant.clone()
    } else {
        variant(request.headers, &headers, &terms, settings)
    };
    let storable = !variant.never_matches()
        && forbidden(
            stored.status,
            stored.authorized,
            &fields.directives,
            settings,
        )
        .is_none();
    StoredHead {
        status: stored.status,
        request_time: response.request_time,
        response_time: response.response_time,
        variant,
        authorized: stored.authorized,
        sets_cookie: headers.contains_key(SET_COOKIE),
        mark: if storable { Mark::None } else { Mark::Invalid },
        headers: StoredFields::from(&headers),
        terms,
    }
}

/// The stored fields with every field of the new response in place of the old ones, all its lines kept. `Age` and `Date`
/// never outlive the response they came with.
///
/// So they are for the client whose request led to the new response. The freshened head may lack some of them: a cookie,
/// or what the directives withhold from the store.
pub fn updated_fields(stored: &StoredHead, new: &HeaderMap) -> HeaderMap {
    let mut headers = stored.headers.to_map();
    headers.remove(AGE);
    headers.remove(DATE);
    for name in new.keys() {
        if OF_THE_BODY.contains(name) || is_never_stored(name) {
            continue;
        }
        headers.remove(name);
        for value in new.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}
