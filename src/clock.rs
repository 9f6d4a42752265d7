//! The seam for wall-clock time: the system's, or one that tests set. Everything below `proxy` takes time as an argument.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::policy::Timestamp;

/// A source of wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Time since some moment in the past, however the clock is set meanwhile; what a machine slept through counts.
    fn steady(&self) -> Duration;
}

/// The clock everything shares.
pub type SharedClock = Arc<dyn Clock>;

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The time now, from the UNIX epoch on: for log lines, which say it in microseconds and whatever clock is shared.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the replacement the lint names"
    )]
    pub fn since_epoch() -> Duration {
        let now = SystemTime::now();
        now.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the replacement the lint names"
    )]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    #[cfg(target_os = "linux")]
    fn steady(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};

        Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the replacement the lint names"
    )]
    fn steady(&self) -> Duration {
        static BEGIN: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        BEGIN.elapsed()
    }
}

/// A clock that stands still until it is moved: for tests, forwards and backwards.
#[derive(Debug)]
pub struct VirtualClock {
    millis: AtomicI64,
    steady_millis: AtomicI64,
}

impl VirtualClock {
    /// A clock that stands at `start`.
    pub const fn new(start: Timestamp) -> Self {
        Self {
            millis: AtomicI64::new(start.as_millis()),
            steady_millis: AtomicI64::new(0),
        }
    }

    /// Moves the clock by this many seconds: so much time passes. Negative sets it back.
    pub fn step_secs(&self, secs: i64) {
        let passed_secs = secs.max(0);
        self.steady_millis
            .fetch_add(passed_secs.saturating_mul(1_000), Ordering::Relaxed);
        self.set_forward_secs(secs);
    }

    /// Sets the clock forward by so many seconds, without that time passing.
    pub fn set_forward_secs(&self, secs: i64) {
        self.millis
            .fetch_add(secs.saturating_mul(1_000), Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::Relaxed))
    }

    fn steady(&self) -> Duration {
        let millis = self.steady_millis.load(Ordering::Relaxed);
        Duration::from_millis(millis.unsigned_abs())
    }
}
