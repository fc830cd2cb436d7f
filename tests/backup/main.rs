//! Backup and restore with real processes: every saved state can be restored, and the restored state equals it.
//!
//! | file | purpose |
//! |---|---|
//! | `restored.rs` | save, wipe everything, restore, on 1, 3 and 5 nodes: the same tree, and old indexes get 401 |
//! | `strangers.rs` | a member that was not wiped, or was restored again, is refused |
//! | `under_load.rs` | a backup under load is one point in the order of writes |
//! | `limits.rs` | stalled clients, a full disk, a lost majority |
//! | `damaged.rs` | a flipped bit and a truncation, in files and on the way; kill -9 during a restore |
//! | `offline.rs` | `backup` and `snapshot save --data-dir` |
//! | `unfinished.rs` | no server starts on an unfinished restore |
//! | `said.rs` | the output of the commands, as a transcript |
//!
//! `BACKUP_KEYS` sets the number of keys (1000, in `make backuptest` 100000), `BACKUP_KILLS` the number of killed
//! restores.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../harness/transcript.rs"]
mod transcript;

mod damaged;
mod limits;
mod offline;
mod restored;
mod said;
mod strangers;
mod support;
mod under_load;
mod unfinished;
