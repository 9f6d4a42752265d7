//! What a write becomes by a verdict. Pure but for the jitter of its pause.

use std::time::Duration;

use super::pace::pause_after;
use crate::{
    policy::Timestamp,
    queue::{
        Attempt, Config, Dead, Item, Parked, State,
        verdict::{Effect, Verdict},
    },
};

/// The write after an attempt.
///
/// [`Verdict::Unsent`] and [`Verdict::Captive`] leave it as it is: for them no attempt was made.
pub(super) fn settle(
    before: &Item,
    verdict: &Verdict,
    attempt: Attempt,
    config: &Config,
    now: Timestamp,
) -> Item {
    let mut item = before.clone();
    if matches!(verdict, Verdict::Unsent(_) | Verdict::Captive(_)) {
        return item;
    }
    let began_at = attempt.at;
    item.attempts = item.attempts.saturating_add(1);
    item.last = Some(attempt);
    item.remark = None;
    match verdict {
        Verdict::Done(how) => {
            item.state = State::Done(*how);
            item.ended_at = Some(now);
        }
        Verdict::Retry(effect) => {
            if *effect == Effect::Possible {
                item.ambiguous_since.get_or_insert(began_at);
            }
            wait(&mut item, config, now);
        }
        Verdict::Refresh => {
            wait(&mut item, config, now);
            item.remark = Some("the origin does not accept the credential".to_owned());
        }
        Verdict::Park(why, remark) => {
            if *why == Parked::Ambiguous {
                item.ambiguous_since.get_or_insert(began_at);
            }
            item.state = State::Parked(*why);
            item.remark.clone_from(remark);
        }
        Verdict::Suspect(suspicion) => {
            item.ambiguous_since.get_or_insert(began_at);
            item.state = State::Parked(Parked::Ambiguous);
            item.remark = Some(format!(
                "a captive portal may have answered, or the origin, and then it was executed: {}; if the origin answers so, \
                 its upstream needs a probe, or the route `answers_html`",
                suspicion.as_str()
            ));
        }
        Verdict::Rejected => item.state = State::Dead(Dead::Rejected),
        Verdict::Unsent(_) | Verdict::Captive(_) => {}
    }
    item
}

/// Adds what the origin asked for with `Retry-After`. An earlier, longer wish stands.
pub(super) fn keep_floor(item: &mut Item, asked: Option<Duration>, now: Timestamp) {
    let until = asked.map(|asked| now.plus(asked));
    item.floor_until = item.floor_until.max(until);
}

/// A write that is `sending` on disk although nobody sends it: a delivery was cut, and nobody knows whether it was executed.
/// Whether it may be sent again is asked before it is.
pub(super) fn uncut(mut item: Item, now: Timestamp) -> Item {
    if item.state == State::Sending {
        let began_at = item.last.as_ref().map_or(now, |last| last.at);
        item.ambiguous_since.get_or_insert(began_at);
        item.state = State::Waiting;
    }
    item
}

fn wait(item: &mut Item, config: &Config, now: Timestamp) {
    if item.counted_attempts() >= config.max_attempts {
        item.state = State::Dead(Dead::Attempts);
        return;
    }
    item.state = State::Waiting;
    item.next_at = now.plus(pause_after(item.counted_attempts()));
}
