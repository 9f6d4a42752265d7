//! The lane of a write: what is delivered before it must have been accepted before it.

use std::borrow::Cow;

use http::HeaderMap;

use crate::{
    proxy::Identity,
    queue::{LaneId, OrderBy, Origin},
};

/// A longer value of a field is shown by its keyed digest.
const VALUE_MAX_BYTES: usize = 100;

/// A lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) id: LaneId,
}

/// The lane of a write by this route to this path of this origin. `is_secret`: whether values of the field that makes the
/// order are never to be shown.
pub(super) fn of(
    order_by: &OrderBy,
    origin: &Origin,
    route: &str,
    path: &str,
    headers: &HeaderMap,
    is_secret: bool,
    identity: &Identity,
) -> Lane {
    let name: Cow<'static, str> = match order_by {
        OrderBy::None => {
            let (name, id) = ("none".to_owned(), LaneId::unordered());
            return Lane { name, id };
        }
        OrderBy::Origin => "origin".into(),
        OrderBy::Route => format!("route:{route}").into(),
        OrderBy::Path => format!("path:{path}").into(),
        OrderBy::Header(field) => match headers.get(field) {
            None => format!("header:{field}").into(),
            Some(value) => format!(
                "header:{field}={}",
                shown(value.as_bytes(), is_secret, identity)
            )
            .into(),
        },
    };
    Lane {
        id: LaneId::new(origin, &name),
        name: name.into_owned(),
    }
}

fn shown<'a>(value: &'a [u8], is_secret: bool, identity: &Identity) -> Cow<'a, str> {
    match std::str::from_utf8(value) {
        Ok(text) if !is_secret && value.len() <= VALUE_MAX_BYTES => text.into(),
        _ => format!("keyed:{}", identity.value_digest(value)).into(),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::of;
    use crate::{
        proxy::Identity,
        queue::{OrderBy, Origin},
    };

    fn identity() -> Identity {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap()
    }

    #[test]
    fn a_lane_is_named_by_what_makes_its_order() {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("seven"));
        let origin = Origin::Upstream("api".to_owned());
        let check = |order_by: OrderBy, is_secret, expected: &str| {
            let identity = identity();
            let lane = of(
                &order_by, &origin, "orders", "/o/1", &headers, is_secret, &identity,
            );
            assert_eq!(lane.name, expected);
        };
        let field = |name| OrderBy::Header(HeaderName::from_static(name));
        check(OrderBy::Origin, false, "origin");
        check(OrderBy::Route, false, "route:orders");
        check(OrderBy::Path, false, "path:/o/1");
        check(OrderBy::None, false, "none");
        check(field("x-tenant"), false, "header:x-tenant=seven");
        check(field("x-other"), false, "header:x-other");
    }

    #[test]
    fn what_is_secret_is_named_by_what_nobody_else_can_make() {
        let order_by = OrderBy::Header(HeaderName::from_static("x-api-key"));
        let origin = Origin::Upstream("api".to_owned());
        let lane = |identity: &Identity, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-api-key", HeaderValue::from_static(value));
            of(&order_by, &origin, "orders", "/", &headers, true, identity)
        };
        let (ours, others) = (identity(), identity());
        let seven = lane(&ours, "seven");
        assert!(seven.name.starts_with("header:x-api-key=keyed:"));
        assert!(!seven.name.contains("seven"));
        assert_eq!(seven, lane(&ours, "seven"));
        assert_ne!(seven, lane(&ours, "eight"));
        assert_ne!(seven.name, lane(&others, "seven").name);
    }
}
