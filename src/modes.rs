//! Which mode is in force, globally and per route: what was configured, and overrides at run time with an expiry.
//!
//! Read on the way of a hit, so reading is two atomic loads. A route's own override outranks the global one, which
//! outranks the route's configured mode, which outranks the global configured one.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicI64, AtomicU8, Ordering},
};

use crate::policy::{Mode, Timestamp};

/// The modes of the gateway and of its routes.
#[derive(Debug)]
pub struct Modes {
    configured: Mode,
    global: Slot,
    routes: Vec<RouteMode>,
}

/// A runtime override of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeOverride {
    /// The mode in force instead.
    pub mode: Mode,
    /// Until when; `None`: until it is taken back.
    pub until: Option<Timestamp>,
    /// Why, for the record.
    pub reason: Option<String>,
}

#[derive(Debug)]
struct RouteMode {
    name: String,
    configured: Option<Mode>,
    slot: Slot,
}

#[derive(Debug)]
struct Slot {
    // 0: no override; else the mode's position in `Mode::ALL` plus one.
    mode: AtomicU8,
    until_millis: AtomicI64,
    reason: Mutex<Option<String>>,
}

impl Modes {
    /// With the configured modes of the gateway and of each route, in route order.
    pub fn new(configured: Mode, routes: impl IntoIterator<Item = (String, Option<Mode>)>) -> Self {
        let routes = routes
            .into_iter()
            .map(|(name, configured)| RouteMode {
                name,
                configured,
                slot: Slot::empty(),
            })
            .collect();
        Self {
            configured,
            global: Slot::empty(),
            routes,
        }
    }

    /// The mode in force for the route at this position, or where no route matched.
    pub fn effective(&self, route: Option<usize>, now: Timestamp) -> Mode {
        let route = route.and_then(|index| self.routes.get(index));
        route
            .and_then(|route| route.slot.mode(now))
            .or_else(|| self.global.mode(now))
            .or_else(|| route.and_then(|route| route.configured))
            .unwrap_or(self.configured)
    }

    /// Puts an override on, or takes it off: for one route, or globally. `false` when there is no route of that name.
    pub fn set(&self, route: Option<&str>, new: Option<ModeOverride>) -> bool {
        let Some(slot) = self.slot(route) else {
            return false;
        };
        slot.set(new);
        true
    }

    /// The override in force: of one route, or the global one.
    pub fn current(&self, route: Option<&str>, now: Timestamp) -> Option<ModeOverride> {
        self.slot(route)?.get(now)
    }

    /// Every override in force: the route's name (`None`: global) and the override.
    pub fn overrides(&self, now: Timestamp) -> Vec<(Option<&str>, ModeOverride)> {
        let global = self.global.get(now).map(|found| (None, found));
        let routes = self
            .routes
            .iter()
            .filter_map(|route| Some((Some(route.name.as_str()), route.slot.get(now)?)));
        global.into_iter().chain(routes).collect()
    }

    fn slot(&self, route: Option<&str>) -> Option<&Slot> {
        match route {
            None => Some(&self.global),
            Some(name) => self
                .routes
                .iter()
                .find(|route| route.name == name)
                .map(|route| &route.slot),
        }
    }
}

impl Slot {
    const fn empty() -> Self {
        Self {
            mode: AtomicU8::new(0),
            until_millis: AtomicI64::new(0),
            reason: Mutex::new(None),
        }
    }

    fn mode(&self, now: Timestamp) -> Option<Mode> {
        let position = self.mode.load(Ordering::Acquire).checked_sub(1)?;
        let in_force = now.as_millis() < self.until_millis.load(Ordering::Acquire);
        in_force.then(|| Mode::ALL[usize::from(position) % Mode::ALL.len()])
    }

    fn get(&self, now: Timestamp) -> Option<ModeOverride> {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let mode = self.mode(now)?;
        let until = self.until_millis.load(Ordering::Acquire);
        let until = (until != i64::MAX).then(|| Timestamp::from_millis(until));
        Some(ModeOverride {
            mode,
            until,
            reason: reason.clone(),
        })
    }

    fn set(&self, new: Option<ModeOverride>) {
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        // Off first, so that no reader sees the new mode with the old expiry.
        self.mode.store(0, Ordering::Release);
        let Some(new) = new else {
            *reason = None;
            return;
        };
        *reason = new.reason;
        self.until_millis.store(
            new.until.map_or(i64::MAX, Timestamp::as_millis),
            Ordering::Release,
        );
        let position = Mode::ALL
            .iter()
            .position(|mode| *mode == new.mode)
            .expect("ALL lists every mode");
        self.mode.store(
            u8::try_from(position).expect("four modes") + 1,
            Ordering::Release,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{ModeOverride, Modes};
    use crate::policy::{Mode, Timestamp};

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn modes() -> Modes {
        Modes::new(
            Mode::Auto,
            [("a".to_owned(), None), ("b".to_owned(), Some(Mode::Online))],
        )
    }

    fn until(mode: Mode, secs: i64) -> Option<ModeOverride> {
        Some(ModeOverride {
            mode,
            until: Some(Timestamp::from_secs(secs)),
            reason: None,
        })
    }

    #[test]
    fn the_nearest_word_on_a_mode_wins() {
        let modes = modes();
        assert_eq!(modes.effective(None, NOW), Mode::Auto);
        assert_eq!(modes.effective(Some(1), NOW), Mode::Online);
        assert!(modes.set(None, until(Mode::PreferCache, 2_000)));
        assert_eq!(modes.effective(Some(1), NOW), Mode::PreferCache);
        assert!(modes.set(Some("b"), until(Mode::Offline, 2_000)));
        assert_eq!(modes.effective(Some(1), NOW), Mode::Offline);
        assert_eq!(modes.effective(Some(0), NOW), Mode::PreferCache);
        assert!(!modes.set(Some("nobody"), None));
    }

    #[test]
    fn an_override_ends_by_itself_and_when_taken_off() {
        let modes = modes();
        modes.set(None, until(Mode::Offline, 1_001));
        assert_eq!(modes.effective(None, NOW), Mode::Offline);
        assert_eq!(
            modes.effective(None, Timestamp::from_secs(1_001)),
            Mode::Auto
        );
        modes.set(None, until(Mode::Offline, 5_000));
        modes.set(None, None);
        assert_eq!(modes.effective(None, NOW), Mode::Auto);
        assert!(modes.overrides(NOW).is_empty());
    }
}
