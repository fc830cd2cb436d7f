//! Finds other users that can change a node's files. A user who can write to a folder can replace the files in it.

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
            "{} is left over from a restore, and nothing in it is used; remove it: rm -r {}",
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
                "{who} can write to {path}, and so change what this node has stored; take that away: {remedy} {path}",
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
            let who = format!("its owner, the user with the number {owner},");
            Some((who, format!("chown -R {own}")))
        }
        () => None,
    }
}
