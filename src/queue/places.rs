//! Where the configured upstreams are now. A queued write belongs to its upstream, not to a place: of one that has moved since
//! (its `url` in the configuration is another one) the writes follow it, with the same path below the new one's.
//!
//! Invariant: a write that is read is as if it had been accepted where its upstream is now; on disk it may still be as it was.
//! What was written to a path outside the upstream's, which only an operator's edit does, keeps that path. A write whose
//! upstream is no longer configured, or that was forward-proxied, stays where it is.

use std::{borrow::Cow, collections::BTreeMap};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::item::{Item, Origin};
use crate::policy::CacheKey;

/// Where each configured upstream is, by its name.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Place>);

/// Where an upstream is.
#[derive(Clone, Debug)]
struct Place {
    scheme: Scheme,
    authority: Authority,
    /// Without a trailing slash; empty for none.
    base_path: String,
}

impl Places {
    /// From the URLs of the upstreams: the first one of each makes effective URIs. One that is no URL is no place.
    pub fn new(urls: impl IntoIterator<Item = (String, Uri)>) -> Self {
        let places = urls.into_iter();
        Self(
            places
                .filter_map(|(name, url)| Some((name, Place::of(&url)?)))
                .collect(),
        )
    }

    /// The write, as if it had been accepted where its upstream is now.
    pub(super) fn follow(&self, item: Item) -> Item {
        let Some(place) = self.moved(&item) else {
            return item;
        };
        Item {
            url: place.url(&item),
            stored_under: place.key(&item),
            base_path: place.base_path.clone(),
            ..item
        }
    }

    /// What the target of the write is stored under now.
    pub(super) fn key<'a>(&self, item: &'a Item) -> Cow<'a, str> {
        match self.moved(item) {
            Some(place) => place.key(item).into(),
            None => item.stored_under.as_str().into(),
        }
    }

    /// Where the upstream of the write is, if that is another place than it was.
    fn moved(&self, item: &Item) -> Option<&Place> {
        let Origin::Upstream(name) = &item.origin else {
            return None;
        };
        self.0.get(name).filter(|place| !place.is_of(item))
    }
}

impl Place {
    fn of(url: &Uri) -> Option<Self> {
        Some(Self {
            scheme: url.scheme()?.clone(),
            authority: url.authority()?.clone(),
            base_path: url.path().trim_end_matches('/').to_owned(),
        })
    }

    fn is_of(&self, item: &Item) -> bool {
        let after_scheme = item.url.strip_prefix(self.scheme.as_str());
        let after_scheme = after_scheme.and_then(|rest| rest.strip_prefix("://"));
        let path = after_scheme.and_then(|rest| rest.strip_prefix(self.authority.as_str()));
        item.base_path == self.base_path && path.is_some_and(|path| path.starts_with('/'))
    }

    fn url(&self, item: &Item) -> String {
        let path = item.url.parse::<Uri>().ok();
        let path = path.as_ref().and_then(Uri::path_and_query);
        let path = self.path(&item.base_path, path.map_or("/", PathAndQuery::as_str));
        format!("{}://{}{path}", self.scheme, self.authority)
    }

    fn key(&self, item: &Item) -> String {
        let before = CacheKey::from_text(&item.stored_under);
        let path = self.path(&item.base_path, before.path_and_query());
        let (scheme, authority) = (self.scheme.as_str(), self.authority.as_str());
        let mut key = String::new();
        CacheKey::write(&mut key, before.partition(), scheme, authority, &path);
        key
    }

    /// A path and query here that was below this base path there.
    fn path(&self, base_path: &str, path: &str) -> String {
        match below(base_path, path) {
            Some(below) => format!("{}{below}", self.base_path),
            None => path.to_owned(),
        }
    }
}

/// What of a path is below the base path of its upstream; it stays when the upstream moves. `None`: it is outside.
pub fn below<'a>(base_path: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(base_path)
        .filter(|below| below.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::Places;
    use crate::queue::{Item, Origin, tests::item};

    fn places(url: &str) -> Places {
        Places::new([("api".to_owned(), url.parse().unwrap())])
    }

    /// A write to this URL, below this base path.
    fn write(base_path: &str, url: &str, stored_under: &str) -> Item {
        Item {
            base_path: base_path.to_owned(),
            url: url.to_owned(),
            stored_under: stored_under.to_owned(),
            ..item()
        }
    }

    #[test]
    fn a_write_follows_its_upstream() {
        let plain = write("", "http://api.example/a?b", "http://api.example/a?b");
        let below = write(
            "/v1",
            "http://api.example/v1/a",
            "~host-x http://api.example/v1/a",
        );
        let outside = write("/v1", "http://api.example/v10", "http://api.example/v10");
        for (item, now, url, key) in [
            (&plain, "http://b:81", "http://b:81/a?b", "http://b:81/a?b"),
            (
                &plain,
                "https://B:443/v2/",
                "https://B:443/v2/a?b",
                "https://b/v2/a?b",
            ),
            (
                &below,
                "http://api.example",
                "http://api.example/a",
                "~host-x http://api.example/a",
            ),
            (
                &below,
                "http://b/v2",
                "http://b/v2/a",
                "~host-x http://b/v2/a",
            ),
            (&outside, "http://b/v2", "http://b/v10", "http://b/v10"),
            (
                &plain,
                "http://api.example.org",
                "http://api.example.org/a?b",
                "http://api.example.org/a?b",
            ),
        ] {
            let places = places(now);
            let moved = places.follow(item.clone());
            assert_eq!((&*moved.url, &*moved.stored_under), (url, key), "{now}");
            assert_eq!(places.key(item), key, "{now}");
            // It has followed, and need not again.
            assert_eq!(places.follow(moved.clone()), moved, "{now}");
        }
    }

    #[test]
    fn what_has_no_upstream_that_moved_stays() {
        let here = write("/v1", "http://b/v1/a", "http://b/v1/a");
        assert_eq!(places("http://b/v1/").follow(here.clone()), here);
        let gone = Item {
            origin: Origin::Upstream("other".to_owned()),
            ..here.clone()
        };
        let forwarded = Item {
            origin: Origin::Forward {
                scheme: "http".to_owned(),
                authority: "b".to_owned(),
            },
            ..here
        };
        for item in [gone, forwarded] {
            assert_eq!(places("http://c").follow(item.clone()), item);
        }
    }
}
