//! How many connections may be open: of all clients, of one client, and as the process's file descriptors permit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::client::ClientKey;

// For listeners, the stores' files, the admin API and what is open besides.
const RESERVED_DESCRIPTORS: u64 = 256;

// A client's connection mostly needs another one to an origin.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// Counts connections. A clone counts with the original.
#[derive(Clone, Debug)]
pub struct Connections {
    counts: Arc<Mutex<Counts>>,
    max: usize,
    max_per_client: usize,
}

/// Leave to have one connection open, given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    counts: Arc<Mutex<Counts>>,
    client: Option<ClientKey>,
}

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    // As many entries as open connections at most.
    per_client: HashMap<ClientKey, usize>,
}

impl Connections {
    /// So many at most, or fewer where the process may not have so many files open.
    pub fn new(max: usize, max_per_client: usize) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current;
        Self {
            counts: Arc::default(),
            max: max.min(affordable(descriptors)),
            max_per_client,
        }
    }

    pub(super) fn admit(&self, client: ClientKey) -> Option<ConnectionPermit> {
        let mut counts = self.lock();
        let of_client = counts.per_client.get(&client).copied().unwrap_or(0);
        if counts.open >= self.max || of_client >= self.max_per_client {
            return None;
        }
        counts.open += 1;
        counts.per_client.insert(client, of_client + 1);
        Some(self.permit(Some(client)))
    }

    /// One that counts only among all.
    pub(super) fn admit_any(&self) -> Option<ConnectionPermit> {
        let mut counts = self.lock();
        if counts.open >= self.max {
            return None;
        }
        counts.open += 1;
        Some(self.permit(None))
    }

    pub(super) fn open(&self) -> usize {
        self.lock().open
    }

    fn permit(&self, client: Option<ClientKey>) -> ConnectionPermit {
        let counts = Arc::clone(&self.counts);
        ConnectionPermit { counts, client }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.open -= 1;
        let Some(client) = self.client else { return };
        match counts.per_client.get_mut(&client) {
            Some(of_client) if *of_client > 1 => *of_client -= 1,
            _ => {
                counts.per_client.remove(&client);
            }
        }
    }
}

/// Raises the soft limit of open files to the hard one: the soft default of 1,024 exists for programs that use
/// `select(2)`. Call it once at start, before [`Connections::new`]. Returns the limit in force, if there is one.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Refused in some sandboxes; then what we have has to do.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current
}

fn affordable(descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else {
        return usize::MAX;
    };
    let spare = descriptors.saturating_sub(RESERVED_DESCRIPTORS);
    usize::try_from(spare / DESCRIPTORS_PER_CONNECTION)
        .unwrap_or(usize::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{ClientKey, Connections, affordable};

    fn client(text: &str) -> ClientKey {
        ClientKey::of(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_client_has_its_share_and_all_have_theirs() {
        let connections = Connections::new(3, 2);
        let first = connections.admit(client("192.0.2.1"));
        let second = connections.admit(client("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(connections.admit(client("192.0.2.1")).is_none());
        let third = connections.admit(client("192.0.2.2"));
        assert!(third.is_some());
        assert!(connections.admit(client("192.0.2.3")).is_none());
        assert!(connections.admit_any().is_none());
        drop(first);
        assert!(connections.admit(client("192.0.2.1")).is_some());
    }

    #[test]
    fn a_closed_connection_leaves_nothing_behind() {
        let connections = Connections::new(1_000, 10);
        for n in 0..1_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            drop(connections.admit(ClientKey::of(address)));
        }
        assert_eq!(connections.open(), 0);
        assert!(connections.lock().per_client.is_empty());
    }

    #[test]
    fn the_descriptor_limit_bounds_the_connections() {
        assert_eq!(affordable(Some(1_024)), 384);
        assert_eq!(affordable(Some(64)), 1);
        assert_eq!(affordable(None), usize::MAX);
    }
}
