//! Finds other users that can change a node's files. A user who can write to a folder can replace the files in it.
//!
//! # What a hostile data directory can do
//!
//! Checksums find damage. They are no signatures, so whoever can write the files can write correct checksums, too.
//!
//! | who can write the data directory | |
//! |---|---|
//! | can change | every key, the members, the term and the vote; so it can make acknowledged writes disappear, and give a term two leaders |
//! | can be another member | with a copy of its identity |
//! | can stop the node | by removing or damaging a file; the node ends with an error that names it |
//! | cannot make the node wait | a FIFO or a device in place of a file is refused without being read |
//! | cannot make the node write elsewhere | a link in place of a file that is written is refused or replaced |
//! | cannot break a new cluster with a backup | `snapshot check` and `restore` refuse numbers, times and members that no cluster has (`engine::plausible`); the keys in it are whatever its writer chose |
//!
//! So the folders are made with mode 0700 and the files with 0600, and the start warns about anything else. `edgetcdctl
//! wal check`, `wal dump` and `snapshot check` change nothing, and escape what they print on a terminal.

use crate::config::Config;
use crate::wal;
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Warns about permissions and leftover files that an operator should change. The node starts nevertheless.
pub(super) fn warn(config: &Config) {
    let left = config.data_dir.join(wal::RESTORE);
    if left.exists() {
        log::warn!(
            "{} is left over from a restore and is not used; remove it: rm -r {}",
            left.display(),
            left.display()
        );
    }
    for folder in folders(config) {
        // At most one warning per folder: if other users can write to the folder, the permissions of its files do not
        // matter.
        let found = exposed(&folder).or_else(|| files(&folder).find_map(|file| exposed(&file)));
        if let Some(Exposed { path, who, remedy }) = found {
            log::warn!(
                "{who} can write to {path} and can change the data of this node; remove the permission: \
                 {remedy} {path}",
                path = path.display()
            );
        }
    }
}

fn folders(config: &Config) -> impl Iterator<Item = PathBuf> {
    let member = config.data_dir.join("member");
    let inner = [member.join("wal"), member.join("snap")];
    let own = [config.data_dir.clone(), member].into_iter().chain(inner);
    own.chain(config.wal_dir.clone())
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    found
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
}

/// A file or folder that another user can write to.
struct Exposed {
    path: PathBuf,
    who: String,
    /// The command that changes the permission, without the path.
    remedy: String,
}

fn exposed(path: &Path) -> Option<Exposed> {
    let (who, remedy) = other_writer(&fs::metadata(path).ok()?)?;
    Some(Exposed {
        path: path.to_owned(),
        who,
        remedy,
    })
}

/// The users that can write this, other than root and the user of this process, and the command that revokes it.
fn other_writer(about: &Metadata) -> Option<(String, String)> {
    let mode = about.permissions().mode();
    let (own, owner) = (rustix::process::geteuid().as_raw(), about.uid());
    let chmod = || "chmod go-w".to_owned();
    match () {
        () if mode & 0o002 != 0 => Some(("every user of this machine".into(), chmod())),
        () if mode & 0o020 != 0 => Some(("every user of its group".into(), chmod())),
        // An owner can grant itself the permission at any time.
        () if owner != own && owner != 0 => {
            let who = format!("its owner, the user with the uid {owner},");
            Some((who, format!("chown -R {own}")))
        }
        () => None,
    }
}
