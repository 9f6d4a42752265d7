//! What waited for longer than `queue.max_age` is dead, whether its turn came or not: it is shown to an operator, never deleted.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::warn;

use super::{Replay, claim::Claim, settle::uncut};
use crate::{
    policy::Timestamp,
    queue::{ItemId, Outlet, State, index::Cursor, journal::Change},
};

const EVERY: Duration = Duration::from_secs(60);

/// So many are recorded together, so that they share commits.
const BATCH: usize = 256;

/// Sweeps once a minute, for ever.
pub(super) async fn run<O: Outlet>(replay: &Arc<Replay<O>>) {
    loop {
        sleep(EVERY).await;
        sweep(replay).await;
    }
}

async fn sweep<O: Outlet>(replay: &Arc<Replay<O>>) {
    let (mut expired, mut from) = (0, None);
    loop {
        let now = replay.clock.now();
        let (batch, next) = claim_old(replay, from);
        let work = batch.into_iter();
        let ended = join_all(work.map(|claim| expire(replay, claim, now))).await;
        // What cannot be read or recorded now is for the next sweep.
        expired += ended.into_iter().filter(|is_dead| *is_dead).count();
        if next.is_none() {
            break;
        }
        from = next;
    }
    if expired > 0 {
        warn!(
            expired,
            "Queued writes waited for too long; they are dead letters now."
        );
    }
}

/// A batch of what is old, from a place on, and where to go on when there may be more.
fn claim_old<O: Outlet>(
    replay: &Replay<O>,
    from: Option<Cursor>,
) -> (Vec<(ItemId, Claim)>, Option<Cursor>) {
    let by = replay.journal.ago(replay.config.max_age);
    let mut index = replay.index();
    let mut old = index.accepted_by(by, from, BATCH);
    old.writes
        .retain(|id| index.claim(*id, State::is_pending).is_ok());
    let claims = old.writes.into_iter();
    let claims = claims.map(|id| (id, Claim::of(&replay.index, id)));
    (claims.collect(), old.next)
}

/// Whether it is dead now.
async fn expire<O: Outlet>(
    replay: &Replay<O>,
    (id, mut claim): (ItemId, Claim),
    now: Timestamp,
) -> bool {
    let Ok(item) = replay.journal.claimed(id).await else {
        return false;
    };
    if !item.state.is_pending() {
        // Made again from a damaged record: its delivery says so, when its turn comes.
        return false;
    }
    let mut item = uncut(item, now);
    let Some((state, remark)) = replay.obstacle(&item, now) else {
        return false;
    };
    (item.state, item.remark) = (state, Some(remark));
    claim.hand_over();
    let recorded = replay.journal.record(Change::Update(item.clone())).await;
    if recorded.is_ok() {
        replay.announce(&item);
    }
    recorded.is_ok()
}
