use super::{Full, Index, Room, Unclaimable, lanes::Old};
use crate::{
    policy::Timestamp,
    queue::{
        Dead, Item, ItemId, LaneId, OnStuck, Origin, Parked, Repeat, Revival, State,
        tests::{config, item},
    },
};

const NOW: Timestamp = Timestamp::from_secs(1_000);

fn origin(name: &str) -> Origin {
    Origin::Upstream(name.to_owned())
}

fn id(number: u8) -> ItemId {
    ItemId::from_bytes([number; 16])
}

/// Write number so and so, in a lane of an origin.
fn write(number: u8, at: &str, lane: &str) -> Item {
    Item {
        id: id(number),
        origin: origin(at),
        lane: lane.to_owned(),
        lane_id: LaneId::new(&origin(at), lane),
        next_at: NOW,
        ..item()
    }
}

fn index(items: &[Item]) -> Index {
    let mut index = Index::new(&config());
    for item in items {
        index.reserve(&item.origin, Room::of(item)).unwrap();
        index.add(item);
    }
    index
}

#[test]
fn of_a_lane_the_head_is_due_and_the_next_when_it_has_ended() {
    let items = [write(1, "a", "x"), write(2, "a", "x"), write(3, "a", "y")];
    let mut index = index(&items);
    let a = origin("a");
    assert_eq!(index.take_due(&a, NOW), Some(id(1)));
    assert_eq!(index.take_due(&a, NOW), Some(id(3)));
    assert_eq!(index.take_due(&a, NOW), None);
    assert_eq!(index.next_due_at(&a), None);
    index.remove(id(1));
    assert_eq!(index.take_due(&a, NOW), Some(id(2)));
    assert_eq!(index.take_due(&origin("b"), NOW), None);
}

#[test]
fn a_head_that_waits_holds_its_lane() {
    let items = [write(1, "a", "x"), write(2, "a", "x")];
    let mut index = index(&items);
    let a = origin("a");
    assert_eq!(index.take_due(&a, NOW), Some(id(1)));
    let later = Timestamp::from_secs(1_010);
    index.change(&Item {
        state: State::Waiting,
        next_at: later,
        ..items[0].clone()
    });
    assert_eq!(index.take_due(&a, NOW), None);
    assert_eq!(index.next_due_at(&a), Some(later));
    assert_eq!(index.take_due(&a, later), Some(id(1)));
}

#[test]
fn a_stuck_head_halts_its_lane_or_leaves_it() {
    for (on_stuck, expected) in [(OnStuck::Halt, None), (OnStuck::Continue, Some(id(2)))] {
        let mut items = [write(1, "a", "x"), write(2, "a", "x")];
        items[0].on_stuck = on_stuck;
        let mut index = index(&items);
        index.take_due(&origin("a"), NOW);
        items[0].state = State::Parked(Parked::Conflict);
        index.change(&items[0]);
        assert_eq!(index.take_due(&origin("a"), NOW), expected);
        let blocked = (on_stuck == OnStuck::Halt).then_some(id(1));
        assert_eq!(index.blocked_by(id(2)), blocked);
    }
}

#[test]
fn what_an_operator_revives_goes_back_to_its_place() {
    let mut items = [write(1, "a", "x"), write(2, "a", "x")];
    items[0].on_stuck = OnStuck::Continue;
    let mut index = index(&items);
    items[0].state = State::Dead(Dead::Rejected);
    index.change(&items[0]);
    assert_eq!(index.position(id(2)), Some(0));
    items[0].state = State::Waiting;
    index.change(&items[0]);
    assert_eq!(index.position(id(2)), Some(1));
    assert_eq!(index.take_due(&origin("a"), NOW), Some(id(1)));
}

#[test]
fn what_is_revived_before_one_in_flight_waits_for_it() {
    for is_given_back in [true, false] {
        let mut items = [write(1, "a", "x"), write(2, "a", "x")];
        items[0].on_stuck = OnStuck::Continue;
        items[0].state = State::Dead(Dead::Rejected);
        let mut index = index(&items);
        let a = origin("a");
        assert_eq!(index.take_due(&a, NOW), Some(id(2)));
        items[0].state = State::Waiting;
        index.change(&items[0]);
        assert_eq!(
            (index.take_due(&a, NOW), index.next_due_at(&a)),
            (None, None)
        );
        index.mark_sending(id(2));
        assert_eq!(index.take_due(&a, NOW), None);
        if is_given_back {
            index.release(id(2));
        } else {
            index.remove(id(2));
        }
        assert_eq!(index.take_due(&a, NOW), Some(id(1)));
    }
}

#[test]
fn a_head_that_moves_to_another_lane_leaves_its_own_to_the_next() {
    let items = [write(1, "a", "x"), write(2, "a", "x")];
    let mut index = index(&items);
    index.claim(id(1), State::is_pending).unwrap();
    index.change(&write(1, "b", "y"));
    assert_eq!(index.take_due(&origin("a"), NOW), Some(id(2)));
    assert_eq!(index.take_due(&origin("b"), NOW), Some(id(1)));
}

#[test]
fn a_stranger_is_shown_what_does_no_harm_twice() {
    let mut items = [write(1, "a", "x"), write(2, "a", "y")];
    items[1].repeat = Repeat::Harmless;
    let mut index = index(&items);
    let a = origin("a");
    assert_eq!(index.take_due_repeatable(&a, NOW), Some(id(2)));
    assert_eq!(index.take_due_repeatable(&a, NOW), None);
    assert_eq!(index.take_due(&a, NOW), Some(id(1)));
}

#[test]
fn one_at_a_time_works_on_a_write() {
    let mut index = index(&[write(1, "a", "x")]);
    let pending = State::is_pending;
    assert_eq!(index.claim(id(1), pending), Ok(State::Queued));
    assert_eq!(index.claim(id(1), pending), Err(Unclaimable::Claimed));
    index.release(id(1));
    let stuck = index.claim(id(1), State::is_stuck);
    assert_eq!(stuck, Err(Unclaimable::NotAllowed(State::Queued)));
    assert_eq!(index.claim(id(9), pending), Err(Unclaimable::Unknown));
    assert_eq!(index.take_due(&origin("a"), NOW), Some(id(1)));
}

#[test]
fn room_is_promised_within_every_limit() {
    let mut config = config();
    (
        config.max_items,
        config.max_lane_items,
        config.max_client_items,
    ) = (3, 2, 2);
    config.max_bytes = 100;
    let mut index = Index::new(&config);
    let a = origin("a");
    let room = |lane: &str, client: u64, weight_bytes| Room {
        lane: LaneId::new(&a, lane),
        client: client.into(),
        address: client.into(),
        weight_bytes,
    };
    assert_eq!(index.reserve(&a, room("x", 1, 101)), Err(Full::Bytes));
    assert_eq!(index.reserve(&a, room("x", 1, 40)), Ok(()));
    assert_eq!(index.reserve(&a, room("x", 1, 61)), Err(Full::Bytes));
    assert_eq!(index.reserve(&a, room("x", 1, 1)), Ok(()));
    assert_eq!(index.reserve(&a, room("y", 1, 1)), Err(Full::Client));
    assert_eq!(index.reserve(&a, room("x", 2, 1)), Err(Full::Lane));
    assert_eq!(index.reserve(&a, room("y", 2, 1)), Ok(()));
    assert_eq!(index.reserve(&a, room("z", 3, 1)), Err(Full::Items));
    index.release_reservation(room("x", 1, 40));
    assert_eq!(index.reserve(&a, room("z", 3, 1)), Ok(()));
}

#[test]
fn everything_is_given_back_at_the_end() {
    let mut items = [write(1, "a", "x"), write(2, "b", "y")];
    items[1].floor_until = Some(NOW);
    let mut index = index(&items);
    assert_eq!(index.floor_until(&origin("b")), Some(NOW));
    assert_eq!((index.usage().items, index.counts()[0]), (2, 2));
    let pending = index.pending();
    let key = &items[0].stored_under;
    assert_eq!(pending.ids(key, 9), Some(vec![id(1), id(2)]));
    for item in &items {
        index.change(&Item {
            state: State::Cancelled,
            ..item.clone()
        });
    }
    assert_eq!(index.usage(), super::Usage::default());
    assert_eq!(index.counts(), [0; 7]);
    assert!(index.lanes.is_empty() && index.origins.is_empty());
    assert!(index.heads.is_empty() && index.revived.is_empty());
    assert!(index.clients.is_empty() && pending.is_empty());
    assert_eq!(index.floor_until(&origin("b")), None);
}

#[test]
fn a_lane_is_not_empty_while_a_write_is_on_its_way_to_the_disk() {
    let item = write(1, "a", "x");
    let mut index = Index::new(&config());
    index.reserve(&item.origin, Room::of(&item)).unwrap();
    assert_eq!(index.lane_len(item.lane_id), 1);
    index.add(&item);
    assert_eq!(index.lane_len(item.lane_id), 1);
    index.remove(item.id);
    assert_eq!(index.lane_len(item.lane_id), 0);
}

#[test]
fn the_old_are_found_behind_a_stuck_head_too() {
    let mut items = [write(1, "a", "x"), write(2, "a", "x"), write(3, "a", "x")];
    for (item, secs) in items.iter_mut().zip([1, 2, 50]) {
        item.accepted_at = Timestamp::from_secs(secs);
    }
    items[0].state = State::Parked(Parked::Auth);
    let index = index(&items);
    let old = index.accepted_by(Timestamp::from_secs(10), None, 9).writes;
    assert_eq!(old, [id(2)]);
    let old = index.accepted_by(Timestamp::from_secs(59), None, 9).writes;
    assert_eq!(old, [id(2), id(3)]);
    assert_eq!(index.oldest(), Some(Timestamp::from_secs(1)));
    items[1].revived = Some(Revival {
        at: Timestamp::from_secs(60),
        attempts: 3,
    });
    let index = self::index(&items);
    let old = index.accepted_by(Timestamp::from_secs(59), None, 9).writes;
    assert_eq!(old, [id(3)], "a revived one counts anew");
}

#[test]
fn the_old_are_found_a_few_lanes_at_a_time() {
    let lanes = (1..=200).map(|number| write(number, "a", &(number / 2).to_string()));
    let items: Vec<Item> = lanes.collect();
    let mut index = Index::new(&crate::queue::Config {
        max_client_items: 1_000,
        ..config()
    });
    items.iter().for_each(|item| index.load(item));
    // Expired writes stay in their lanes, or leave them.
    for leave in [false, true] {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let Old { writes, next } = index.accepted_by(NOW, from, 7);
            assert!(writes.len() <= 7);
            if leave {
                writes.iter().for_each(|id| index.remove(*id));
            }
            found.extend(writes);
            let Some(next) = next else { break };
            assert_ne!(from, Some(next), "no progress");
            from = Some(next);
        }
        assert_eq!(found, items.iter().map(|item| item.id).collect::<Vec<_>>());
    }
}

#[test]
fn the_oldest_is_the_first_of_all_lanes() {
    let mut items = [write(1, "a", "x"), write(2, "b", "y"), write(3, "a", "x")];
    for (item, secs) in items.iter_mut().zip([7, 8, 9]) {
        item.accepted_at = Timestamp::from_secs(secs);
    }
    let mut index = index(&items);
    for (number, expected_secs) in [(1, Some(8)), (2, Some(9)), (3, None)] {
        index.remove(id(number));
        assert_eq!(index.oldest(), expected_secs.map(Timestamp::from_secs));
    }
}

/// There may be a million: this is what the bound in the module's documentation is made of.
#[test]
fn what_is_known_of_a_write_is_small() {
    assert!(
        size_of::<super::Entry>() <= 64,
        "{}",
        size_of::<super::Entry>()
    );
}

#[test]
fn a_client_counts_by_its_principal_and_by_its_address() {
    let config = crate::queue::Config {
        max_client_items: 2,
        ..config()
    };
    let mut index = Index::new(&config);
    let of = |number, client, address| Item {
        client,
        address,
        ..write(number, "a", "x")
    };
    let reserve = |index: &mut Index, item: &Item| index.reserve(&item.origin, Room::of(item));
    // Without an address it counts once.
    for number in 1..=2 {
        reserve(&mut index, &of(number, 1, 1)).unwrap();
    }
    assert_eq!(reserve(&mut index, &of(3, 1, 1)), Err(Full::Client));
    // Another credential each time, from one address.
    for number in 4..=5 {
        reserve(&mut index, &of(number, number.into(), 100)).unwrap();
    }
    assert_eq!(reserve(&mut index, &of(6, 6, 100)), Err(Full::Client));
    reserve(&mut index, &of(6, 6, 101)).unwrap();
    // One credential, from another address each time.
    reserve(&mut index, &of(7, 6, 102)).unwrap();
    assert_eq!(reserve(&mut index, &of(8, 6, 103)), Err(Full::Client));
    index.release_reservation(Room::of(&of(4, 4, 100)));
    reserve(&mut index, &of(9, 9, 100)).unwrap();
}

#[test]
fn what_is_stuck_or_moved_is_not_pending_where_it_was() {
    let mut item = write(1, "a", "x");
    let mut index = index(std::slice::from_ref(&item));
    let pending = index.pending();
    let before = std::mem::replace(&mut item.stored_under, "elsewhere".to_owned());
    index.change(&item);
    assert_eq!((pending.count(&before), pending.count("elsewhere")), (0, 1));
    item.state = State::Parked(Parked::Conflict);
    index.change(&item);
    assert!(pending.is_empty());
    item.state = State::Waiting;
    index.change(&item);
    assert_eq!(pending.count("elsewhere"), 1);
}

/// Each look at the list held the index for as long as it takes to sort every lane.
#[test]
fn lanes_are_listed_by_origin_a_page_at_a_time() {
    let mut number = 0;
    let mut items = Vec::new();
    for at in ["b", "a", "c"] {
        for lane in ["x", "y", "z"] {
            number += 1;
            items.push(write(number, at, lane));
        }
    }
    // A second one of a lane is no second lane, and one that is on its way to the disk none yet.
    items.push(write(100, "a", "x"));
    let mut index = index(&items);
    let reserved = write(101, "a", "reserved");
    index
        .reserve(&reserved.origin, Room::of(&reserved))
        .unwrap();
    let mut expected: Vec<_> = items[..9].iter().collect();
    expected.sort_by_key(|item| (item.origin.clone(), item.lane_id));
    let b = origin("b");
    for of in [None, Some(&b)] {
        let expected = expected.iter().map(|item| item.id);
        let expected: Vec<_> = match of {
            Some(_) => expected.skip(3).take(3).collect(),
            None => expected.collect(),
        };
        for limit in 1..=10 {
            let mut found = Vec::new();
            let mut after: Option<(Origin, LaneId)> = None;
            loop {
                let reached = after.as_ref().map(|(origin, lane)| (origin, *lane));
                let page = index.lanes(of, reached, limit);
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some((last.origin.clone(), last.lane));
                found.extend(page.iter().map(|lane| lane.head));
            }
            assert_eq!(found, expected, "{of:?}, {limit} at a time");
        }
    }
    index.release_reservation(Room::of(&reserved));
    for item in &items {
        index.remove(item.id);
    }
    assert!(index.lanes(None, None, 1).is_empty() && index.origins.is_empty());
}
