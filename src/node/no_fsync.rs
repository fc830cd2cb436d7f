//! `--unsafe-no-fsync`: a node that does not wait for its disk.
//!
//! Such a node acknowledges writes and casts votes that only the page cache holds. They survive the end of the process,
//! and are lost if the machine stops. This is for tests and for clusters whose data nobody needs.
//!
//! | data directory | without the flag | `--unsafe-no-fsync` | `=yes-i-may-lose-data` |
//! |---|---|---|---|
//! | new | | marks it | marks it |
//! | written with syncs | | refuses to start | marks it |
//! | marked in this boot | warns, syncs everything, reads it, removes the mark | starts | starts |
//! | marked in an earlier boot | the same, and warns that writes may be missing | starts, with that warning | starts, with that warning |
//!
//! While a directory is marked, the message about a damaged file also names the mark: the file may never have been
//! complete.

use super::inspect::Refusal;
use super::stored::refused;
use crate::config::{Config, MAY_LOSE_DATA, NoFsync, Stop};
use crate::identity::Identity;
use crate::replica::clock::SystemClock;
use crate::storage::clock::{Clock, is_same_boot};
use crate::wal::{DataDir, RealDisk};
use std::path::Path;

/// Since when a data directory has been written without syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// The machine has not restarted since the first such write. The page cache still holds what the files lack.
    ThisBoot,
    /// It has restarted, or this is another machine, or the boot is not known. Writes may be missing.
    EarlierBoot,
}

impl Unsynced {
    /// Interprets the content of a mark.
    pub(super) fn since(boot_id: [u8; 16]) -> Unsynced {
        match is_same_boot(boot_id, SystemClock.boot_id()) {
            true => Unsynced::ThisBoot,
            false => Unsynced::EarlierBoot,
        }
    }
}

/// The disk of this machine, with or without syncs.
pub(super) fn disk(config: &Config) -> RealDisk {
    RealDisk {
        syncs: config.no_fsync == NoFsync::Off,
        ..RealDisk::default()
    }
}

/// Reads the mark of a data directory that was just opened, and warns about it. If the rest cannot be read, the warning
/// says why.
pub(super) fn opened(
    config: &Config,
    data_dir: &DataDir<RealDisk>,
) -> Result<Option<Unsynced>, Stop> {
    let unsynced = data_dir.unsynced_since().map_err(refused)?;
    let unsynced = unsynced.map(Unsynced::since);
    let is_off = config.no_fsync == NoFsync::Off;
    match unsynced {
        Some(Unsynced::ThisBoot) if is_off => log::warn!("{}", kept_text(config)),
        Some(Unsynced::EarlierBoot) => {
            // An identity that cannot be read is reported by the caller.
            let identity = data_dir.identity().ok().flatten();
            let identity = identity.and_then(|bytes| Identity::from_bytes(&bytes).ok());
            log::warn!(
                "{}",
                lost_text(config, identity.map(|identity| identity.id))
            );
        }
        Some(Unsynced::ThisBoot) | None => {}
    }
    Ok(unsynced)
}

/// Compares the flag with the mark, and syncs or marks the directory. `is_new`: it has no identity yet.
///
/// Nothing may have been written to the directory yet, because the mark must exist before the first unsynced write.
pub(super) fn settle(
    config: &Config,
    data_dir: &DataDir<RealDisk>,
    unsynced: Option<Unsynced>,
    is_new: bool,
) -> Result<(), Stop> {
    match (config.no_fsync, unsynced) {
        (NoFsync::Off, None) => Ok(()),
        (NoFsync::Off, Some(_)) => data_dir.sync_unsynced().map_err(refused),
        (NoFsync::ForNewData, None) if !is_new => Err(refusal(config)),
        (NoFsync::ForNewData | NoFsync::ForAnyData, _) => {
            data_dir
                .mark_unsynced(SystemClock.boot_id())
                .map_err(refused)?;
            log::warn!("{WARNING}");
            Ok(())
        }
    }
}

/// Removes the mark if this start has synced the directory. All files were read.
pub(super) fn finish(
    config: &Config,
    data_dir: &DataDir<RealDisk>,
    unsynced: Option<Unsynced>,
) -> Result<(), Stop> {
    match (config.no_fsync, unsynced) {
        (NoFsync::Off, Some(_)) => data_dir.remove_mark().map_err(refused),
        _ => Ok(()),
    }
}

/// An error about the content of a directory. If the directory is marked, the hint says so.
pub(super) fn explained(
    error: impl Into<Refusal>,
    dir: &Path,
    unsynced: Option<Unsynced>,
) -> Refusal {
    let mut refusal = error.into();
    let Some(unsynced) = unsynced else {
        return refusal;
    };
    if !refusal.hint.is_empty() {
        refusal.hint += "\n  ";
    }
    let since = match unsynced {
        Unsynced::ThisBoot => "the kernel may have reported errors of this disk since (dmesg)",
        Unsynced::EarlierBoot => "the machine has restarted since",
    };
    refusal.hint += &format!(
        "{} was written without syncs (--unsafe-no-fsync), and {since}, so its files may be incomplete. {}. If nobody \
         needs the data: type another --data-dir",
        dir.display(),
        replacement(None)
    );
    refusal
}

const WARNING: &str = "--unsafe-no-fsync: this member acknowledges writes that are not on its disk. If its machine stops, \
     they are lost, and the cluster may lose writes that other members have. Use it only for data that nobody needs";

fn refusal(config: &Config) -> Stop {
    let dir = config.data_dir.display();
    Stop::fatal(
        format!(
            "{dir} was written with syncs; with --unsafe-no-fsync, writes that it has acknowledged could be lost"
        ),
        &format!(
            "omit the flag, or type another --data-dir, or, if nobody needs the data, \
             --unsafe-no-fsync={MAY_LOSE_DATA}"
        ),
    )
}

/// What a start without the flag says about a directory whose page cache is still there.
fn kept_text(config: &Config) -> String {
    format!(
        "{} was written without syncs (--unsafe-no-fsync): syncing all of it. The machine has not restarted since, so \
         nothing is lost, if this disk was attached all the time and the kernel has reported no error of it (dmesg)",
        config.data_dir.display()
    )
}

/// The warning of a start about a directory whose page cache was lost. `id` is the member's, if it is known.
fn lost_text(config: &Config, id: Option<u64>) -> String {
    format!(
        "{} was written without syncs (--unsafe-no-fsync), and the machine has restarted since: writes and votes that \
         this member has acknowledged may be missing. {}",
        config.data_dir.display(),
        replacement(id)
    )
}

/// How to get a member whose data are complete.
fn replacement(id: Option<u64>) -> String {
    let id = id.map_or("ID".to_owned(), |id| format!("{id:x}"));
    format!(
        "If other members have the data, replace this one: stop it; edgetcdctl member remove {id}; edgetcdctl member \
         add …; then start it with an empty data directory"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../guide/log_lines.md");

    #[test]
    fn the_page_about_log_lines_names_the_warnings() {
        let config = Config::default();
        for text in [
            WARNING.to_owned(),
            kept_text(&config),
            lost_text(&config, Some(2)),
        ] {
            assert!(PAGE.contains(&format!("| `{text}` |")), "{text}");
        }
    }
}
