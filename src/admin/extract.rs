//! What handlers take from a request, with every rejection a problem document: parameters, and JSON bodies of bounded
//! size and time.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};

// The largest sensible body, a purge with a long URL, is far below.
pub(super) const BODY_LIMIT_BYTES: usize = 64 * 1024;
// As for a head: an operator's client sends both at once.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The query of the request.
pub(super) struct Parameters<T>(pub(super) T);

/// A percent-decoded segment of the path.
pub(super) struct Segment(pub(super) String);

/// The body of the request, which has to say that it is JSON.
pub(super) struct JsonBody<T>(pub(super) T);

/// As [`JsonBody`]; without a body, what is meant where nothing is said.
pub(super) struct OptionalJson<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let Query(parameters) = Query::try_from_uri(&parts.uri)
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        Ok(Self(parameters))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(segment) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        Ok(Self(segment))
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        read_json(request, BODY_LIMIT_BYTES).await.map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if request.headers().contains_key(CONTENT_TYPE) {
            return read_json(request, BODY_LIMIT_BYTES).await.map(Self);
        }
        let body = read(request.into_body(), BODY_LIMIT_BYTES).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        Err(not_json())
    }
}

/// The body of a request as JSON of at most so many bytes.
pub(super) async fn read_json<T: DeserializeOwned>(
    request: Request,
    limit_bytes: usize,
) -> Result<T, Problem> {
    if !is_json(request.headers()) {
        return Err(not_json());
    }
    let body = read(request.into_body(), limit_bytes).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("in the body: {error}")))
}

fn not_json() -> Problem {
    Problem::new(
        Kind::NotJson,
        "send the body as `Content-Type: application/json`",
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(media_type), None) = (types.next(), types.next()) else {
        return false;
    };
    let media_type = media_type.as_bytes();
    let essence = media_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
}

async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, Problem> {
    let whole = Limited::new(body, limit_bytes).collect();
    match tokio::time::timeout(BODY_TIME, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            Kind::BodyTooLarge,
            format!("a body may have {limit_bytes} bytes"),
        )),
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body broke off: {error}"))),
        Err(_elapsed) => Err(Problem::new(
            Kind::BodyTimeout,
            format!("the body was not whole after {} s", BODY_TIME.as_secs()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::FromRequest, response::IntoResponse};
    use bytes::Bytes;
    use http::Request;
    use serde::Deserialize;

    use super::{BODY_LIMIT_BYTES, JsonBody};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        name: String,
    }

    async fn read(content_type: Option<&str>, body: Body) -> Result<String, u16> {
        let mut request = Request::builder();
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        JsonBody::<Wanted>::from_request(request.body(body).unwrap(), &())
            .await
            .map(|JsonBody(wanted)| wanted.name)
            .map_err(|problem| problem.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn a_body_is_json_of_bounded_size_or_a_problem() {
        const JSON: Option<&str> = Some("application/json");
        let name = r#"{"name":"a"}"#;
        let padded = |bytes: usize| format!("{}{name}", " ".repeat(bytes - name.len()));
        for (content_type, body, expected) in [
            (JSON, name.to_owned(), Ok("a".to_owned())),
            (
                Some("Application/JSON; charset=utf-8"),
                name.to_owned(),
                Ok("a".to_owned()),
            ),
            (JSON, padded(BODY_LIMIT_BYTES), Ok("a".to_owned())),
            (JSON, padded(BODY_LIMIT_BYTES + 1), Err(413)),
            (None, name.to_owned(), Err(415)),
            (Some("text/plain"), name.to_owned(), Err(415)),
            (
                Some("application/x-www-form-urlencoded"),
                name.to_owned(),
                Err(415),
            ),
            (Some("application/jsonx"), name.to_owned(), Err(415)),
            (JSON, String::new(), Err(400)),
            (JSON, r#"{"name":"a"} x"#.to_owned(), Err(400)),
            (JSON, r#"{"name":"a","nmae":"b"}"#.to_owned(), Err(400)),
        ] {
            let excerpt: String = body.chars().take(40).collect();
            assert_eq!(
                read(content_type, body.into()).await,
                expected,
                "{content_type:?} {excerpt}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let body = Body::from_stream(endless);
        assert_eq!(read(Some("application/json"), body).await, Err(408));
    }
}
