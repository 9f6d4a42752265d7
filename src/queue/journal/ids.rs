//! Ids: UUIDv7 that increase strictly, whatever the clock does.

use super::super::item::ItemId;
use crate::policy::Timestamp;

/// The random bits of a UUIDv7 (RFC 9562 section 5.7): `rand_a` and `rand_b`.
const RANDOM_BITS: u32 = 74;

/// By how much at most an id of the same millisecond is ahead of the one before. Leaves room for 2^17 ids in a millisecond
/// from the middle on, and 56 bits that nobody guesses.
const STEP_BITS: u32 = 56;

/// The bits of `rand_b`, below the variant's two.
const LOW_BITS: u32 = 62;

/// Gives ids.
#[derive(Debug, Default)]
pub(super) struct Ids {
    last: Option<ItemId>,
}

impl Ids {
    /// Goes on after the last id given before.
    pub(super) const fn after(last: Option<ItemId>) -> Self {
        Self { last }
    }

    /// Goes on after this one, given elsewhere, if it is ahead.
    pub(super) fn pass(&mut self, id: ItemId) {
        self.last = self.last.max(Some(id));
    }

    /// The next id: of this moment, or, while the clock is behind, of the last id's.
    pub(super) fn next(&mut self, now: Timestamp) -> ItemId {
        let mut random = [0; 16];
        // Without the system's randomness ids are still unique; only they might be guessed.
        if getrandom::fill(&mut random).is_err() {
            fastrand::fill(&mut random);
        }
        let random = u128::from_le_bytes(random);
        let now_millis = u64::try_from(now.as_millis()).unwrap_or_default();
        let (millis, bits) = match self.last.map(parts) {
            Some((millis, bits)) if millis >= now_millis => {
                let step = 1 + (random & ((1 << STEP_BITS) - 1));
                match bits + step {
                    bits if bits >> RANDOM_BITS == 0 => (millis, bits),
                    _ => (millis + 1, random & ((1 << (RANDOM_BITS - 1)) - 1)),
                }
            }
            // The highest bit stays clear, as room for ids of the same millisecond.
            _ => (now_millis, random & ((1 << (RANDOM_BITS - 1)) - 1)),
        };
        let id = with_parts(millis, bits);
        self.last = Some(id);
        id
    }
}

/// The milliseconds and the random bits.
fn parts(id: ItemId) -> (u64, u128) {
    let id = u128::from_be_bytes(*id.as_bytes());
    let millis = (id >> 80) as u64;
    let high = (id >> 64) & 0xfff;
    let low = id & ((1 << LOW_BITS) - 1);
    (millis, high << LOW_BITS | low)
}

fn with_parts(millis: u64, bits: u128) -> ItemId {
    let mut random = [0; 10];
    let high = (bits >> LOW_BITS) as u16;
    let low = (bits & ((1 << LOW_BITS) - 1)) as u64;
    random[..2].copy_from_slice(&high.to_be_bytes());
    random[2..].copy_from_slice(&low.to_be_bytes());
    // Version and variant go over the bits that are clear.
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    ItemId::from_bytes(*uuid.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Ids, parts, with_parts};
    use crate::policy::Timestamp;

    #[test]
    fn ids_increase_while_the_clock_stands_steps_back_and_after_a_restart() {
        let mut ids = Ids::default();
        let mut last = ids.next(Timestamp::from_millis(1_000));
        let mut check = |ids: &mut Ids, millis| {
            let id = ids.next(Timestamp::from_millis(millis));
            assert!(id > last, "{id} after {last} at {millis}");
            last = id;
        };
        for _ in 0..100_000 {
            check(&mut ids, 1_000);
        }
        for millis in [999, 0, -5, 1_001, 5_000, 4_999] {
            check(&mut ids, millis);
        }
        let mut ids = Ids::after(ids.last);
        for millis in [1, 5_000, 5_001] {
            check(&mut ids, millis);
        }
    }

    #[test]
    fn ids_come_after_one_that_was_given_elsewhere() {
        let mut ids = Ids::default();
        let before = ids.next(Timestamp::from_millis(2_000));
        ids.pass(with_parts(1_000, 7));
        let next = ids.next(Timestamp::from_millis(2_000));
        assert!(next > before, "one that is behind changes nothing");
        let ahead = with_parts(9_000, 7);
        ids.pass(ahead);
        assert!(ids.next(Timestamp::from_millis(2_000)) > ahead);
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7_of_its_moment() {
        let id = Ids::default().next(Timestamp::from_millis(1_700_000_000_123));
        let uuid = uuid::Uuid::from_bytes(*id.as_bytes());
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(parts(id).0, 1_700_000_000_123);
    }

    #[test]
    fn when_a_millisecond_is_used_up_the_next_one_begins() {
        let full = with_parts(7, (1 << 74) - 1);
        assert_eq!(parts(full), (7, (1 << 74) - 1));
        let id = Ids::after(Some(full)).next(Timestamp::from_millis(7));
        assert!(id > full);
        assert_eq!(parts(id).0, 8);
    }
}
