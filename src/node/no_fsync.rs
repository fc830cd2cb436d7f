//! `--unsafe-no-fsync`: a node that does not wait for its disk.
//!
//! Such a node acknowledges writes and casts votes that only the page cache holds. They survive the end of the process,
//! and are lost if the machine stops. This is for tests and for clusters whose data nobody needs.
//!
//! | data directory | without the flag | `--unsafe-no-fsync` | `=yes-i-may-lose-data` |
//! |---|---|---|---|
//! | new | | marks it | marks it |
//! | written with syncs | | refuses to start | marks it |
//! | marked in this boot | syncs everything, removes the mark, warns | starts | starts |
//! | marked in an earlier boot | the same, and warns that writes may be missing | starts | starts |

use super::stored::refused;
use crate::config::{Config, MAY_LOSE_DATA, NoFsync, Stop};
use crate::identity::Identity;
use crate::replica::clock::SystemClock;
use crate::storage::clock::Clock;
use crate::wal::{DataDir, RealDisk};

/// The disk of this machine, with or without syncs.
pub(super) fn disk(config: &Config) -> RealDisk {
    RealDisk {
        syncs: config.no_fsync == NoFsync::Off,
        ..RealDisk::default()
    }
}

/// Compares the flag with the mark of the data directory. `known` is the identity in it; `None`: it is new.
///
/// Nothing may have been written to the directory yet, because the mark must exist before the first unsynced write.
pub(super) fn settle(
    config: &Config,
    data_dir: &DataDir<RealDisk>,
    known: Option<&Identity>,
) -> Result<(), Stop> {
    let since = data_dir.unsynced_since().map_err(refused)?;
    let boot_id = SystemClock.boot_id();
    match (config.no_fsync, since) {
        (NoFsync::Off, None) => Ok(()),
        (NoFsync::Off, Some(since)) => {
            data_dir.sync_unsynced().map_err(refused)?;
            let is_same_boot = since == boot_id && since != [0; 16];
            log::warn!("{}", synced_text(config, is_same_boot, known));
            Ok(())
        }
        (NoFsync::ForNewData, None) if known.is_some() => Err(refusal(config)),
        (NoFsync::ForNewData | NoFsync::ForAnyData, _) => {
            data_dir.mark_unsynced(boot_id).map_err(refused)?;
            log::warn!("{WARNING}");
            Ok(())
        }
    }
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

/// What a start without the flag says about a directory that was written without syncs.
fn synced_text(config: &Config, is_same_boot: bool, known: Option<&Identity>) -> String {
    let dir = config.data_dir.display();
    if is_same_boot {
        return format!(
            "{dir} was written without syncs (--unsafe-no-fsync). The machine has not restarted since, so nothing is \
             lost, and all of it is synced now"
        );
    }
    let id = known.map_or(0, |identity| identity.id);
    format!(
        "{dir} was written without syncs (--unsafe-no-fsync), and the machine has restarted since: writes and votes that \
         this member has acknowledged may be missing. If other members have the data, replace this one: stop it; \
         edgetcdctl member remove {id:x}; edgetcdctl member add …; then start it with an empty data directory"
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
            synced_text(&config, true, None),
            synced_text(&config, false, None),
        ] {
            assert!(PAGE.contains(&format!("| `{text}` |")), "{text}");
        }
    }
}
