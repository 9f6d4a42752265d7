//! Lanes: what is delivered one after the other, in order of acceptance.

use std::{borrow::Cow, fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

use super::item::Origin;

/// The identity of a lane: a hash of the origin and the lane's name. What is never ordered (`order_by = "none"`) has a lane
/// of its own for each write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u128);

impl LaneId {
    /// Of the lane of this name at this origin.
    pub fn new(origin: &Origin, name: &str) -> Self {
        let mut hasher = Xxh3::new();
        let origin = origin.to_string();
        hasher.update(&(origin.len() as u64).to_le_bytes());
        hasher.update(origin.as_bytes());
        hasher.update(name.as_bytes());
        Self(hasher.digest128())
    }

    /// Of a write that has no order.
    pub fn unordered() -> Self {
        let mut bytes = [0; 16];
        fastrand::fill(&mut bytes);
        Self(u128::from_le_bytes(bytes))
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for LaneId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// As text for people, because JSON has no numbers of 128 bits; as a number in records.
impl Serialize for LaneId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u128(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for LaneId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u128::deserialize(deserializer).map(Self);
        }
        let text = <Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::LaneId;
    use crate::queue::Origin;

    #[test]
    fn a_lane_is_told_apart_by_origin_and_name() {
        let lane = |origin: &str, name| LaneId::new(&Origin::Upstream(origin.to_owned()), name);
        assert_eq!(lane("a", "b"), lane("a", "b"));
        assert_ne!(lane("a", "b"), lane("a", "c"));
        assert_ne!(lane("a", "bc"), lane("ab", "c"));
        assert_ne!(LaneId::unordered(), LaneId::unordered());
    }

    #[test]
    fn a_lane_is_written_and_read_again() {
        let lane = LaneId::unordered();
        let json = serde_json::to_value(lane).unwrap();
        assert_eq!(json, lane.to_string());
        assert_eq!(serde_json::from_value::<LaneId>(json).unwrap(), lane);
        let record = postcard::to_stdvec(&lane).unwrap();
        assert_eq!(postcard::from_bytes::<LaneId>(&record).unwrap(), lane);
    }
}
