//! Random histories against a small model: what was acknowledged is never lost, executed twice only where that does no harm,
//! and executed first in the order of its lane.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};
use tokio::time::sleep;

use super::{
    Fixture, origin,
    support::{Does, ok, status},
    write,
};
use crate::{
    policy::Connectivity::{Connected, Disconnected},
    queue::{
        Item, ItemId, OnStuck, Repeat, State,
        journal::{Change, faults::Keeps},
    },
};

const LANES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Action {
    Append {
        lane: usize,
        method: &'static str,
        is_keyed: bool,
        on_stuck: OnStuck,
    },
    /// What the origin does from now on.
    Origin(Origin),
    Pass {
        millis: u64,
    },
    Crash(Keeps),
    Restart,
    /// The client takes one back.
    Cancel {
        number: usize,
    },
    Pause,
    Resume,
    /// The disk fails, until it is healed.
    FailDisk,
    HealDisk,
}

#[derive(Clone, Copy, Debug)]
enum Origin {
    Succeeds,
    /// Executes it, and says 500.
    Fails,
    /// Executes it, and the answer gets lost.
    LosesAnswers,
    HandsBack,
    Refuses,
    Hangs,
    IsLost,
    IsBack,
}

fn action() -> impl Strategy<Value = Action> {
    let methods = prop_oneof![Just("POST"), Just("PUT"), Just("DELETE")];
    let on_stuck = prop_oneof![Just(OnStuck::Halt), Just(OnStuck::Continue)];
    let origin = prop_oneof![
        4 => Just(Origin::Succeeds),
        2 => Just(Origin::Fails),
        2 => Just(Origin::LosesAnswers),
        1 => Just(Origin::HandsBack),
        1 => Just(Origin::Refuses),
        1 => Just(Origin::Hangs),
        1 => Just(Origin::IsLost),
        2 => Just(Origin::IsBack),
    ];
    let keeps = prop_oneof![
        Just(Keeps::Nothing),
        Just(Keeps::Everything),
        any::<u64>().prop_map(Keeps::SomePages),
    ];
    let millis = prop_oneof![0..200_u64, 200..5_000_u64, 5_000..400_000_u64];
    prop_oneof![
        8 => (0..LANES.len(), methods, any::<bool>(), on_stuck).prop_map(
            |(lane, method, is_keyed, on_stuck)| Action::Append { lane, method, is_keyed, on_stuck }
        ),
        6 => origin.prop_map(Action::Origin),
        8 => millis.prop_map(|millis| Action::Pass { millis }),
        3 => keeps.prop_map(Action::Crash),
        1 => Just(Action::Restart),
        2 => (0..20_usize).prop_map(|number| Action::Cancel { number }),
        1 => Just(Action::Pause),
        2 => Just(Action::Resume),
        1 => Just(Action::FailDisk),
        2 => Just(Action::HealDisk),
    ]
}

/// What was acknowledged, in order, and what was taken back.
struct History {
    fixture: Fixture,
    acknowledged: Vec<Item>,
    cancelled: Vec<ItemId>,
    appends: usize,
    disk_fails: bool,
}

impl History {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        fixture.origins.set_latency(Duration::from_millis(100));
        Self {
            fixture,
            acknowledged: Vec::new(),
            cancelled: Vec::new(),
            appends: 0,
            disk_fails: false,
        }
    }

    async fn act(mut self, action: Action) -> Self {
        match action {
            // What waits for the disk to be healed would wait for ever.
            Action::Cancel { .. } | Action::Pause | Action::Resume if self.disk_fails => {}
            Action::Append {
                lane,
                method,
                is_keyed,
                on_stuck,
            } => self.append(LANES[lane], method, is_keyed, on_stuck).await,
            Action::Origin(does) => self.origin(does),
            Action::Pass { millis } => sleep(Duration::from_millis(millis)).await,
            Action::Crash(keeps) => {
                self.fixture = self.fixture.crash(keeps).await;
                self.disk_fails = false;
            }
            Action::Restart => {
                self.heal_disk();
                self.fixture = self.fixture.restart().await;
            }
            Action::Cancel { number } => self.cancel(number).await,
            Action::Pause => self.fixture.pause(vec![None]).await,
            Action::Resume => self.fixture.pause(Vec::new()).await,
            Action::FailDisk => {
                self.fixture.storage.fail_after(0);
                self.disk_fails = true;
            }
            Action::HealDisk => self.heal_disk(),
        }
        self
    }

    async fn append(&mut self, lane: &str, method: &str, is_keyed: bool, on_stuck: OnStuck) {
        self.appends += 1;
        let path = format!("/{}", self.appends);
        let mut item = write(method, lane, &path);
        item.on_stuck = on_stuck;
        if method == "POST" && is_keyed {
            item.repeat = Repeat::Keyed;
        }
        // Refused while the disk fails, and a while after: the journal's tests hold that.
        self.acknowledged
            .extend(self.fixture.try_append(item, &[]).await.ok());
    }

    fn origin(&self, does: Origin) {
        let origins = &self.fixture.origins;
        match does {
            Origin::Succeeds => origins.always(ok()),
            Origin::Fails => origins.always(status(500)),
            Origin::LosesAnswers => origins.always(Does::Lose),
            Origin::HandsBack => origins.always(Does::HandBack),
            Origin::Refuses => origins.always(Does::Disconnect),
            Origin::Hangs => origins.always(Does::Hang),
            Origin::IsLost => origins.set_link(&origin("api"), Disconnected),
            Origin::IsBack => origins.set_link(&origin("api"), Connected),
        }
    }

    /// As a client does it: only what was never sent.
    async fn cancel(&mut self, number: usize) {
        let Some(item) = self.acknowledged.get(number) else {
            return;
        };
        let replay = &self.fixture.replay;
        let is_queued = |state| state == State::Queued;
        if replay.index().claim(item.id, is_queued).is_err() {
            return;
        }
        let item = Item {
            state: State::Cancelled,
            ended_at: Some(replay.clock.now()),
            ..self.fixture.item(item.id).await
        };
        let id = item.id;
        let change = Change::End { item, answer: None };
        self.fixture.journal.record(change).await.unwrap();
        replay.wake.notify_one();
        self.cancelled.push(id);
    }

    fn heal_disk(&mut self) {
        self.fixture.storage.heal();
        self.disk_fails = false;
    }

    /// Lets everything come to rest, and compares.
    async fn check(mut self) -> Result<(), TestCaseError> {
        self.heal_disk();
        // Whatever hangs is cut.
        self.fixture = self.fixture.crash(Keeps::Nothing).await;
        self.origin(Origin::Succeeds);
        self.origin(Origin::IsBack);
        self.fixture.pause(Vec::new()).await;
        self.fixture.pass_secs(20_000).await;
        self.check_fates().await?;
        self.check_executions().await?;
        self.check_order()
    }

    /// Nothing is lost: it is delivered, shown to an operator, taken back, or behind one that is.
    async fn check_fates(&self) -> Result<(), TestCaseError> {
        for item in &self.acknowledged {
            let found = self.fixture.journal.item(item.id).await.unwrap();
            let Some(found) = found else {
                return Err(TestCaseError::fail(format!("{} is lost", item.url)));
            };
            let blocked = self.fixture.replay.index().blocked_by(item.id);
            let is_at_rest = !found.state.is_pending() || blocked.is_some();
            prop_assert!(is_at_rest, "{found:#?} was not delivered");
            let was_taken_back = self.cancelled.contains(&item.id);
            prop_assert_eq!(found.state == State::Cancelled, was_taken_back);
        }
        Ok(())
    }

    async fn check_executions(&self) -> Result<(), TestCaseError> {
        let executed = self.executions();
        for item in &self.acknowledged {
            let times = executed.get(path(item)).map_or(0, Vec::len);
            let state = self.fixture.item(item.id).await.state;
            if item.repeat == Repeat::Doubtful {
                prop_assert!(times <= 1, "{} was executed {times} times", item.url);
            }
            if matches!(state, State::Done(_)) {
                prop_assert!(times >= 1, "{} is {state:?} and was not executed", item.url);
            }
            // A PUT that was on its way at a crash is queued again, and may be taken back.
            if state == State::Cancelled && item.method != "PUT" {
                prop_assert_eq!(times, 0, "{} was executed and taken back", &item.url);
            }
        }
        Ok(())
    }

    /// Of each lane, what was executed was executed first in order of acceptance.
    fn check_order(&self) -> Result<(), TestCaseError> {
        let executed = self.executions();
        for lane in LANES {
            let of_lane = self.acknowledged.iter().filter(|item| item.lane == lane);
            let firsts: Vec<usize> = of_lane
                .filter_map(|item| executed.get(path(item))?.first().copied())
                .collect();
            prop_assert!(firsts.is_sorted(), "lane {lane}: {firsts:?}");
        }
        Ok(())
    }

    /// When each path was executed: its places among everything that was seen.
    fn executions(&self) -> BTreeMap<String, Vec<usize>> {
        let mut executions = BTreeMap::<_, Vec<_>>::new();
        for (place, seen) in self.fixture.origins.seen().into_iter().enumerate() {
            if seen.is_executed {
                executions.entry(seen.path).or_default().push(place);
            }
        }
        executions
    }
}

fn path(item: &Item) -> &str {
    item.url.trim_start_matches("http://api.example")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_delivered_in_order_and_once_or_shown(actions in vec(action(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut history = History::new().await;
            for action in actions {
                history = history.act(action).await;
            }
            history.check().await
        })?;
    }
}
