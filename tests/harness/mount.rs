//! Small file systems for tests of full disks, and a copy of the machine for tests of packages.
//!
//! Mounting a file system needs root, so tests that do it are `#[ignore]`d and run in `make roottest`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system. It is unmounted when dropped.
pub struct Mount {
    folder: TempDir,
}

impl Mount {
    pub fn tmpfs(megabytes: u32) -> Mount {
        let size = format!("size={megabytes}m");
        Mount::with(|_| {
            Ok(vec!["-t", "tmpfs", "-o", &size, "tmpfs"]
                .into_iter()
                .map(str::to_owned)
                .collect())
        })
    }

    pub fn ext4(megabytes: u64) -> Mount {
        Mount::with(|folder| {
            let image = folder.join("image");
            File::create(&image)?.set_len(megabytes << 20)?;
            let image = image.to_string_lossy().into_owned();
            run("mkfs.ext4", &["-q", "-F", &image])?;
            Ok(vec!["-o".to_owned(), "loop".to_owned(), image])
        })
    }

    /// The root folder of this machine. Changes go to `changes`, an empty file system, and not to the machine.
    pub fn copy_of_root(changes: &Mount) -> Mount {
        let part = |name: &str| {
            let path = changes.path().join(name);
            fs::create_dir(&path).expect("a folder");
            path.display().to_string()
        };
        let (upper, work) = (part("upper"), part("work"));
        let options = format!("lowerdir=/,upperdir={upper},workdir={work}");
        Mount::with(|_| {
            let words = ["-t", "overlay", "-o", &options, "overlay"];
            Ok(words.into_iter().map(str::to_owned).collect())
        })
    }

    /// `arguments`: the arguments of `mount` before the folder.
    fn with(arguments: impl FnOnce(&Path) -> std::io::Result<Vec<String>>) -> Mount {
        let folder = tempfile::Builder::new()
            .prefix("edgetcd-disk-")
            .tempdir()
            .expect("a folder");
        let mount = Mount { folder };
        fs::create_dir(mount.path()).expect("a mount point");
        let mounted = arguments(mount.folder.path()).and_then(|mut words| {
            words.push(mount.path().to_string_lossy().into_owned());
            run(
                "mount",
                &words.iter().map(String::as_str).collect::<Vec<_>>(),
            )
        });
        mounted.unwrap_or_else(|error| panic!("mounting a file system needs root: {error}"));
        mount
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Freezes the file system: all writes to it wait until the guard is dropped.
    pub fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &["--freeze", &self.path().to_string_lossy()]).expect("fsfreeze");
        Frozen(self)
    }

    pub fn make_read_only(&self) {
        let path = self.path();
        run("mount", &["-o", "remount,ro", &path.to_string_lossy()]).expect("a read-only disk");
    }

    pub fn grow_tmpfs(&self, megabytes: u32) {
        let options = format!("remount,size={megabytes}m");
        run("mount", &["-o", &options, &self.path().to_string_lossy()]).expect("a larger tmpfs");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // If the file system is not mounted, there is nothing to undo.
        let _ = run("umount", &[&self.path().to_string_lossy()]);
    }
}

/// A disk that hangs. Thaws the file system when dropped, even if the test fails, because a frozen one cannot be
/// unmounted.
pub struct Frozen<'a>(&'a Mount);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let path = self.0.path();
        let thawed = run("fsfreeze", &["--unfreeze", &path.to_string_lossy()]);
        // A second panic would hide the first.
        if let Err(error) = thawed {
            println!("{} stays frozen: {error}", path.display());
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> std::io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(std::io::Error::other(format!(
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// Writes until there is no space left.
pub fn fill(path: &Path) {
    let mut file = File::create(path).expect("a filler");
    for size in [1 << 20, 4096, 512] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
    // A file system with delayed allocation allocates the space only now.
    let _ = file.sync_all();
}
