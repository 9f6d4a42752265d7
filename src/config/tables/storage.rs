//! `[storage]`.

use std::path::PathBuf;

use etcetera::BaseStrategy;

use crate::{
    config::{
        problem::Problem,
        reader::options,
        tree::Origin,
        units::{Budget, ByteSize},
        value::FilePath,
    },
    store,
};

options! {
    /// Where stored responses are kept, and how many bytes of them.
    struct Storage {
        /// Data directory. Empty: the user's, `$XDG_DATA_HOME/hardtack` or `~/.local/share/hardtack`.
        dir: FilePath = "",
        /// Memory tier, weighed in bytes.
        memory: Budget = "256MiB",
        /// Disk tier; what was used longest ago is evicted first. "0": no disk tier.
        disk: ByteSize = "10GiB",
        /// Larger bodies stream through and are not stored.
        max_object: Budget = "64MiB",
        /// Storing stops before the filesystem has less than this free.
        disk_free_min: ByteSize = "1GiB",
    }
}

impl Storage {
    pub(in crate::config) fn check(&self, problems: &mut Vec<Problem>) -> store::Config {
        if self.dir.0.is_none() && self.dir.origin != Origin::Refused {
            problems.push(no_dir());
        }
        self.check_max_object(problems);
        store::Config {
            dir: self.dir.0.clone().unwrap_or_default(),
            memory_bytes: self.memory.0.get(),
            disk_bytes: self.disk.0,
            max_object_bytes: self.max_object.0.get(),
            disk_free_min_bytes: self.disk_free_min.0,
        }
    }

    fn check_max_object(&self, problems: &mut Vec<Problem>) {
        let (tier, bytes, origin) = match self.disk.0 {
            0 => ("memory", self.memory.0.get(), self.memory.origin),
            bytes => ("disk", bytes, self.disk.origin),
        };
        let origins = [self.max_object.origin, self.disk.origin, origin];
        if self.max_object.0.get() <= bytes || origins.contains(&Origin::Refused) {
            return;
        }
        // Whichever was written is the one to change; the other may be a default.
        let culprit = match self.max_object.origin {
            Origin::Default => origin,
            written => written,
        };
        let title = format!("`storage.max_object`: one object would not fit into `storage.{tier}`");
        let label = format!("at most the {bytes} bytes of `storage.{tier}`");
        problems.push(Problem::error(culprit, title).label(label));
    }
}

/// The user's data directory by the XDG base directory specification.
pub(in crate::config) fn user_data_dir() -> Option<PathBuf> {
    let strategy = etcetera::base_strategy::Xdg::new().ok()?;
    Some(strategy.data_dir().join("hardtack"))
}

fn no_dir() -> Problem {
    let title = "no data directory: this user has no home, and none was named";
    Problem::error(Origin::Default, title)
        .help("name one: `--data-dir /var/lib/hardtack`, HARDTACK_STORAGE__DIR=/var/lib/hardtack, or in the file\n[storage]\ndir = \"/var/lib/hardtack\"")
}
