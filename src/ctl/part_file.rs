//! A file that is written under a temporary name until it is complete, so that a file with the final name is always
//! complete.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::{Stop, terminal};
use crate::wal::{Disk, RealDisk};

/// A file that does not have its final name yet. If it is dropped before [`PartFile::finish`], it is removed.
pub(super) struct PartFile {
    path: PathBuf,
    /// The file to write to.
    pub file: File,
    finished: bool,
}

impl PartFile {
    /// Creates the file. Only its owner can read it, like the data directory.
    pub fn create(path: &Path) -> Result<PartFile, Stop> {
        let Some(name) = path.file_name() else {
            return Err(Stop::Plain(format!(
                "{} is not a file name",
                path.display()
            )));
        };
        // The name is random and the file new, so a symbolic link is not followed.
        let random = RealDisk::default().random();
        let part = format!("{}.part-{random:08x}", name.to_string_lossy());
        let part = path.with_file_name(part);
        remove_when_told_to_end(part.clone())?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part);
        let file = file.map_err(|error| {
            let path = path.display();
            Stop::Plain(format!(
                "{path}: cannot create a temporary file in its folder: {error}"
            ))
        })?;
        Ok(PartFile {
            path: part,
            file,
            finished: false,
        })
    }

    /// Syncs the file and gives it its final name.
    pub fn finish(&mut self, path: &Path) -> Result<(), Stop> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let finished = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, path))
            .and_then(|()| File::open(folder)?.sync_all());
        finished.map_err(|error| Stop::Plain(format!("{}: {error}", path.display())))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.finished {
            // The file is not needed. If it cannot be removed, it does no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file if a signal ends the program, so that no part of a large file stays on the disk.
fn remove_when_told_to_end(part: PathBuf) -> Result<(), Stop> {
    let handled = [SIGINT, SIGTERM, SIGHUP];
    let mut signals = Signals::new(handled)?;
    terminal::leave_signals(&handled);
    thread::Builder::new().spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // If the file already has its final name, this name does not exist.
            let _ = fs::remove_file(part);
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}
