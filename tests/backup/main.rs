//! Backup and restore, with real processes: what is saved can be restored, and what is restored is what was
//! saved.
//!
//! | file | what it shows |
//! |---|---|
//! | `restored.rs` | save, wipe all, restore, on 1, 3 and 5 nodes: the same tree, old indexes get 401 |
//! | `strangers.rs` | a member that was not wiped, or was restored again, stays out |
//! | `under_load.rs` | a backup under load is one point of the order of writes |
//! | `limits.rs` | stalled clients, a full disk, a lost majority |
//! | `damaged.rs` | a flipped bit and a cut, in files and on the way; kill -9 in the middle of a restore |
//! | `offline.rs` | `backup` and `snapshot save --data-dir` |
//! | `said.rs` | what is printed, as a transcript |
//!
//! `BACKUP_KEYS` says how many keys (1000, `make backuptest` has 100000), `BACKUP_KILLS` how many restores are
//! killed.

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
