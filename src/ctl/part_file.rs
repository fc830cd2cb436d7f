//! A file under a name of its own until it is whole: whoever finds the name finds all of it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::Stop;
use crate::wal::{Disk, RealDisk};

/// A file that has not its name yet. Dropped before [`PartFile::finish`], it leaves nothing.
pub(super) struct PartFile {
    path: PathBuf,
    /// To be written to.
    pub file: File,
    finished: bool,
}

impl PartFile {
    /// Readable by its owner only, as the data directory is.
    pub fn create(path: &Path) -> Result<PartFile, Stop> {
        let Some(name) = path.file_name() else {
            return Err(Stop::Plain(format!(
                "{} is no name of a file",
                path.display()
            )));
        };
        // Drawn at random, and new: a link that lies there is not followed.
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
            Stop::Plain(format!("{path}: cannot make a file beside it: {error}"))
        })?;
        Ok(PartFile {
            path: part,
            file,
            finished: false,
        })
    }

    /// Makes it durable, and gives it its name.
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
            // It is of no use, and no harm if it stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A signal that ends the program does not leave a half of a large file on the disk.
fn remove_when_told_to_end(part: PathBuf) -> Result<(), Stop> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Once it has its own name, there is nothing under this one.
            let _ = fs::remove_file(part);
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}
