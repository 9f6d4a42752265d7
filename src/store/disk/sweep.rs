//! Removing body files that no record names: what a crash left, and all of them after a cold start.
//!
//! Step by step, between batches, so that it never holds up serving and never sees a file whose record is on its way.

use std::{path::PathBuf, vec};

use super::{Bodies, Disk, DiskError, Usage, tables::BODIES};
use crate::store::id::RecordId;

/// A sweep that is under way.
#[derive(Debug, Default)]
pub(in crate::store) struct Sweep {
    // Those still to look at; `None` before the first step.
    directories: Option<vec::IntoIter<PathBuf>>,
    swept: u64,
}

impl Disk {
    /// Sweeps one directory; `None` when that was the last one.
    pub(in crate::store) fn sweep(&self, mut sweep: Sweep) -> Option<Sweep> {
        let directories = sweep.directories.get_or_insert_with(|| {
            let directories = self.bodies.directories().unwrap_or_default();
            directories.into_iter()
        });
        let Some(directory) = directories.next() else {
            if sweep.swept > 0 {
                tracing::info!(
                    files = sweep.swept,
                    "Removed body files that no record names."
                );
            }
            return None;
        };
        let swept = self.read(|snapshot| {
            let bodies = snapshot.transaction.open_table(BODIES)?;
            Bodies::sweep::<DiskError>(&directory, |file| {
                let Some(id) = bodies.get(file)?.map(|id| RecordId(*id.value())) else {
                    return Ok(false);
                };
                let usage = snapshot.usage.get(&id.0)?;
                let usage = usage.and_then(|row| Usage::decode(id, row.value()));
                Ok(usage.is_some_and(|usage| usage.body_file == file))
            })
        });
        match swept {
            Ok(swept) => {
                sweep.swept += swept;
                Some(sweep)
            }
            // At the next start, then.
            Err(_) => None,
        }
    }
}
