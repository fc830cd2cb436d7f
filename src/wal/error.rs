//! What can be wrong with the disk, told so that its reader can type the next command.

use crate::raft::LogIndex;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A failure of the disk, or of what is on it. The node cannot mend it; a person can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalError {
    /// The file or folder concerned.
    pub path: PathBuf,
    /// The byte in that file, where there is one.
    pub offset: Option<u64>,
    /// The first log index that cannot be trusted, where it is known.
    pub index: Option<LogIndex>,
    /// What happened and what to do.
    pub what: String,
    /// Whether to try again, to stop, or to refuse to start.
    pub kind: WalErrorKind,
}

/// What a caller does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalErrorKind {
    /// No space (or quota) for another segment or snapshot. Nothing was changed: the same call may
    /// be made again once there is space.
    Full,
    /// A read, write or sync failed. A log that met one is poisoned.
    Io,
    /// An earlier write or sync failed, so nobody knows what is on disk: this log takes no more.
    Poisoned,
    /// What is on disk contradicts what was confirmed: the node must not start from it.
    Damaged,
    /// The directory belongs to another program, or to a newer edgetcd.
    Foreign,
    /// A restore into the directory has not been finished.
    Unfinished,
    /// Another process has the directory; its pid, if the lock file tells it.
    Locked {
        /// None: the lock file holds no number.
        pid: Option<u32>,
    },
}

impl WalError {
    pub(super) fn new(kind: WalErrorKind, path: &Path, what: impl Into<String>) -> WalError {
        WalError {
            path: path.to_path_buf(),
            offset: None,
            index: None,
            what: what.into(),
            kind,
        }
    }

    /// `doing` is a verb phrase that follows "cannot": "sync it".
    pub(super) fn io(path: &Path, doing: &str, error: &io::Error) -> WalError {
        let kind = if is_full(error) {
            WalErrorKind::Full
        } else {
            WalErrorKind::Io
        };
        WalError::new(kind, path, format!("cannot {doing}: {error}"))
    }

    /// A failed write or sync of bytes that already have their place: never "full, try again".
    pub(super) fn final_io(path: &Path, doing: &str, error: &io::Error) -> WalError {
        let what = format!("cannot {doing}: {error}; nobody knows what is on disk now");
        WalError::new(WalErrorKind::Io, path, what)
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> WalError {
        WalError::new(WalErrorKind::Damaged, path, what)
    }

    pub(super) fn at(mut self, offset: u64) -> WalError {
        self.offset = Some(offset);
        self
    }

    pub(super) fn index(mut self, index: LogIndex) -> WalError {
        self.index = Some(index);
        self
    }
}

/// Whether the error says that there is no room, by space or by quota.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for WalError {}
