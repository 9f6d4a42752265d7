//! The deliveries to one origin: a task with a phase, each phase a method that returns the next.
//!
//! ```text
//! disconnected -> recovering -> (verify) -> canary -> slow start 1, 2, 4 .. lanes -> steady
//!       ^                          |           |               |                       |
//!       +------ captive <----------+-----------+---------------+-----------------------+
//! ```
//!
//! Invariants: of a lane at most one delivery is in flight; while disconnected there is one future that waits, and nothing
//! sent; an origin that asked to be left alone is, in every phase. Bounds: as many deliveries as the outlet's share, as fast as
//! `queue.replay_rate`; a wait is looked at again after a minute, whatever the clock did meanwhile. A task without work ends.

mod flow;

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    PhaseName, Replay,
    delivery::{Finished, Sign},
    pace::{Backoff, FIRST_PAUSE, LONGEST_LOOK, LONGEST_PAUSE, Pace, Trouble},
};
use crate::{
    policy::{Connectivity, Timestamp},
    queue::{ItemId, LaneId, Occasion, Origin, Outlet, Proof, verdict::Trial},
};

/// How long a wait for a permit is at most: live traffic must not starve the queue.
const LONGEST_BUSY: Duration = Duration::from_secs(2);

/// The deliveries to one origin.
pub(super) struct OriginReplay<O> {
    replay: Arc<Replay<O>>,
    origin: Origin,
    wake: Arc<Notify>,
    shutdown: CancellationToken,
    deliveries: JoinSet<Finished>,
    pace: Pace,
    trouble: Trouble,
    /// Between tries that sent nothing.
    unsent: Backoff,
    /// Between looks at a captive portal.
    captive: Backoff,
    is_captive: bool,
    proof: Proof,
    /// Writes that were refused with a page. A refusal after the next plausible answer is believed.
    doubted: HashSet<ItemId>,
    /// The origin asked to be left alone until then.
    floor: Instant,
    /// The wish that writes keep on disk, and when it ends by tokio's clock as of when it was noted.
    kept_floor: Option<(Timestamp, Instant)>,
    /// We leave it alone until then.
    hold: Instant,
    worked_at: Instant,
}

/// How far the origin is from full speed.
#[derive(Debug)]
enum Phase {
    /// The link is lost.
    Disconnected,
    /// It is back, and the first delivery waits its part of `queue.recovery_spread`.
    Recovering { wait: Duration },
    /// Who answers is to be asked first.
    Verifying(Occasion),
    /// Somebody else than the origin answers, and what was seen of it; how long it is left alone at most.
    Captive { why: String, longest: Duration },
    /// One delivery at a time, until one gets a plausible answer.
    Canary,
    /// So many lanes at once, twice as many after as many good answers.
    SlowStart,
    /// As many lanes at once as the outlet's share.
    Steady,
    /// There is nothing to do, or the gateway shuts down.
    Ended,
}

/// What a phase hears of.
enum Event {
    Sign(Sign),
    /// The link is lost.
    Lost,
    /// Nothing to do, or shutdown.
    End,
}

impl<O: Outlet> OriginReplay<O> {
    pub(super) fn new(
        replay: Arc<Replay<O>>,
        origin: Origin,
        wake: Arc<Notify>,
        shutdown: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        Self {
            pace: Pace::new(replay.config.replay_rate),
            replay,
            origin,
            wake,
            shutdown,
            deliveries: JoinSet::new(),
            trouble: Trouble::default(),
            unsent: Backoff::default(),
            captive: Backoff::default(),
            is_captive: false,
            proof: Proof::Unproven,
            doubted: HashSet::new(),
            floor: now,
            kept_floor: None,
            hold: now,
            worked_at: now,
        }
    }

    /// Delivers until there is nothing left, or shutdown; then waits for what is in flight.
    pub(super) async fn run(mut self) -> Origin {
        // What the link was before the start is not known: no spread, but a canary.
        let mut phase = Phase::Verifying(Occasion::Begin);
        loop {
            self.tell(&phase);
            phase = match phase {
                Phase::Disconnected => self.disconnected().await,
                Phase::Recovering { wait } => self.recovering(wait).await,
                Phase::Verifying(occasion) => self.verifying(occasion).await,
                Phase::Captive { why, longest } => self.captive(why, longest).await,
                Phase::Canary => self.canary().await,
                Phase::SlowStart => self.slow_start().await,
                Phase::Steady => self.steady().await,
                Phase::Ended => break,
            };
        }
        while let Some(joined) = self.deliveries.join_next().await {
            self.note(joined);
        }
        self.replay.statuses.leave(&self.origin);
        self.origin
    }

    async fn disconnected(&mut self) -> Phase {
        let (replay, origin) = (Arc::clone(&self.replay), self.origin.clone());
        if replay.outlet.connectivity(&origin) == Connectivity::Connected {
            // A delivery found no connection, but the link is not taken for lost: nothing else paces the next try.
            let pause = self.unsent.next();
            if self.meanwhile(sleep(pause)).await.is_none() {
                return Phase::Ended;
            }
        }
        match self.meanwhile(replay.outlet.connected(&origin)).await {
            Some(()) => Phase::Recovering {
                wait: replay.config.recovery_spread.mul_f64(fastrand::f64()),
            },
            None => Phase::Ended,
        }
    }

    async fn recovering(&mut self, wait: Duration) -> Phase {
        match self.meanwhile(sleep(wait)).await {
            Some(()) => Phase::Verifying(Occasion::Doubt),
            None => Phase::Ended,
        }
    }

    async fn verifying(&mut self, occasion: Occasion) -> Phase {
        let (replay, origin) = (Arc::clone(&self.replay), self.origin.clone());
        if replay.outlet.connectivity(&origin) == Connectivity::Disconnected {
            return Phase::Disconnected;
        }
        match self
            .meanwhile(replay.outlet.verify(&origin, occasion))
            .await
        {
            Some(Ok(proof)) => {
                self.proof = proof;
                Phase::Canary
            }
            Some(Err(why)) => Phase::Captive {
                why: why.to_string(),
                longest: LONGEST_LOOK,
            },
            None => Phase::Ended,
        }
    }

    async fn captive(&mut self, why: String, longest: Duration) -> Phase {
        if !std::mem::replace(&mut self.is_captive, true) {
            warn!(origin = %self.origin, why, "What answers is not taken for the origin; deliveries wait.");
        }
        let pause = self.captive.next_up_to(longest);
        match self.meanwhile(sleep(pause)).await {
            Some(()) => Phase::Verifying(Occasion::Doubt),
            None => Phase::Ended,
        }
    }

    async fn canary(&mut self) -> Phase {
        loop {
            match self.next(1, Trial::Canary).await {
                Event::Sign(Sign::Well) => {
                    self.recovered();
                    return Phase::SlowStart;
                }
                Event::Sign(Sign::Failing(lane)) => {
                    let pause = self.trouble.failed(lane).unwrap_or(FIRST_PAUSE);
                    self.hold_for(pause);
                }
                Event::Sign(Sign::Doubted(_, why)) => {
                    return Phase::Captive {
                        why,
                        longest: LONGEST_PAUSE,
                    };
                }
                event => {
                    if let Some(phase) = self.leave(event) {
                        return phase;
                    }
                }
            }
        }
    }

    async fn slow_start(&mut self) -> Phase {
        let (mut width, mut well) = (1, 0);
        while width < self.share() {
            match self.next(width, Trial::Passed).await {
                Event::Sign(Sign::Well) => {
                    self.trouble.clear();
                    well += 1;
                    if well >= width {
                        (width, well) = (width.saturating_mul(2), 0);
                    }
                }
                Event::Sign(Sign::Failing(lane)) => {
                    self.failing(lane);
                    (width, well) = (1, 0);
                }
                event => {
                    if let Some(phase) = self.leave(event) {
                        return phase;
                    }
                }
            }
        }
        Phase::Steady
    }

    async fn steady(&mut self) -> Phase {
        loop {
            match self.next(self.share(), Trial::Passed).await {
                Event::Sign(Sign::Well) => self.trouble.clear(),
                Event::Sign(Sign::Failing(lane)) => {
                    if self.failing(lane) {
                        return Phase::SlowStart;
                    }
                }
                event => {
                    if let Some(phase) = self.leave(event) {
                        return phase;
                    }
                }
            }
        }
    }

    /// What every phase of delivering does alike; the phase that follows, if another.
    fn leave(&mut self, event: Event) -> Option<Phase> {
        match event {
            Event::Sign(Sign::Disconnected) | Event::Lost => Some(Phase::Disconnected),
            // Live traffic has the permits, and may give one back at any moment.
            Event::Sign(Sign::Busy) => {
                let pause = self.unsent.next_up_to(LONGEST_BUSY);
                self.hold_for(pause);
                None
            }
            Event::Sign(Sign::Stalled) => {
                let pause = self.unsent.next();
                self.hold_for(pause);
                None
            }
            // The next look is a write that may end up in the portal again.
            Event::Sign(Sign::Captive(why)) => Some(Phase::Captive {
                why,
                longest: LONGEST_PAUSE,
            }),
            // Only another write's plausible answer tells the origin's own page from a portal's.
            Event::Sign(Sign::Doubted(..)) => Some(Phase::Verifying(Occasion::Doubt)),
            Event::Sign(Sign::Well | Sign::Failing(_) | Sign::Nothing) => None,
            Event::End => Some(Phase::Ended),
        }
    }

    fn failing(&mut self, lane: LaneId) -> bool {
        let pause = self.trouble.failed(lane);
        if let Some(pause) = pause {
            self.hold_for(pause);
        }
        pause.is_some()
    }

    fn recovered(&mut self) {
        self.trouble.clear();
        self.captive.reset();
        if std::mem::take(&mut self.is_captive) {
            warn!(origin = %self.origin, "The origin itself answers again; deliveries go on.");
        }
    }

    /// Says how far it is. A portal is one until a canary has passed it, however often it is asked.
    fn tell(&self, phase: &Phase) {
        let statuses = &self.replay.statuses;
        match phase {
            Phase::Captive { why, .. } => {
                statuses.enter(&self.origin, phase.name(), Some(why.clone()));
            }
            Phase::Verifying(_) | Phase::Canary if self.is_captive => {}
            _ => statuses.enter(&self.origin, phase.name(), None),
        }
    }
}

impl Phase {
    const fn name(&self) -> PhaseName {
        match self {
            Self::Disconnected => PhaseName::Disconnected,
            Self::Recovering { .. } | Self::Verifying(_) => PhaseName::Recovering,
            Self::Captive { .. } => PhaseName::Captive,
            Self::Canary => PhaseName::Canary,
            Self::SlowStart => PhaseName::SlowStart,
            Self::Steady | Self::Ended => PhaseName::Steady,
        }
    }
}
