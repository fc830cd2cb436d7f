//! Errors of the disk and of the files on it. Each message names the file and the problem, so that the operator can
//! type the next command.

use crate::raft::LogIndex;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A failure of the disk, or damage to the files on it. Only an operator can repair it, not the member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalError {
    /// The file or folder concerned.
    pub path: PathBuf,
    /// Offset in that file, if there is one.
    pub offset: Option<u64>,
    /// The first log index that cannot be trusted, if known.
    pub index: Option<LogIndex>,
    /// What happened and what to do.
    pub what: String,
    /// Whether to try again, to stop, or to refuse to start.
    pub kind: WalErrorKind,
}

/// How a caller must react.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalErrorKind {
    /// No space (or quota) for another segment or snapshot. The call changed nothing, and the caller may repeat it once
    /// there is space.
    Full,
    /// A read, write or sync failed. If the log met this error, it is poisoned.
    Io,
    /// An earlier write or sync failed, so the content of the disk is unknown. The log accepts nothing until a restart.
    Poisoned,
    /// The files contradict what was confirmed. The member must not start from them.
    Damaged,
    /// The directory belongs to another program, or to a newer edgetcd.
    Foreign,
    /// A restore into the directory was not finished.
    Unfinished,
    /// Another process uses the directory.
    Locked {
        /// `None` if the lock file contains no number.
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

    /// `doing` is a verb phrase that follows "cannot", such as "sync it".
    pub(super) fn io(path: &Path, doing: &str, error: &io::Error) -> WalError {
        let kind = if is_full(error) {
            WalErrorKind::Full
        } else {
            WalErrorKind::Io
        };
        WalError::new(kind, path, format!("cannot {doing}: {error}"))
    }

    /// A failed write or sync of bytes that already have their place. It is never `Full`, because the call must not be
    /// repeated.
    pub(super) fn final_io(path: &Path, doing: &str, error: &io::Error) -> WalError {
        let what = format!("cannot {doing}: {error}; the content of the disk is now unknown");
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

/// Whether the error means that there is no space, because of the disk's size or a quota.
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
