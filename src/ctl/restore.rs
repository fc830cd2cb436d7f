//! `edgetcdctl snapshot restore` and `backup`: a data directory that a server is started on. Both work on
//! files alone; no server is asked. What is made of what, `crate::backup` says.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Stop;
use super::args::Opt;
use super::command::{Command, HELP, Run};
use super::snapshot::file_argument;
use super::wal::held;
use crate::backup::{self, BUMP_MAX, BackupError, Made, Place};
use crate::config::Config;
use crate::ids;

const BUMP_INDEX: Opt = Opt::number(&["bump-index"], "how far X-Etcd-Index leaps (1000000)");

pub(super) const ALL: &[Command] = &[
    Command {
        name: "snapshot restore",
        arguments: "FILE",
        what: "make the data directory of a member of a new cluster from a saved file",
        examples: &[
            "snapshot restore keys.snap --data-dir /var/lib/edgetcd",
            "snapshot restore keys.snap --data-dir n1.etcd --name n1 \
             --initial-cluster n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380 \
             --initial-advertise-peer-urls http://10.0.0.1:2380",
        ],
        options: &[
            Opt::text(
                &["data-dir"],
                "the directory to make; must be empty or not there",
            ),
            Opt::text(&["wal-dir"], "where the log goes, if not into --data-dir"),
            Opt::text(&["name"], "as for the server (default)"),
            Opt::text(
                &["initial-cluster"],
                "all members, as for the server (this one alone)",
            ),
            Opt::text(
                &["initial-advertise-peer-urls"],
                "as for the server (http://localhost:2380)",
            ),
            Opt::text(
                &["initial-cluster-token"],
                "as for the server (etcd-cluster)",
            ),
            BUMP_INDEX,
            HELP,
        ],
        run: restore,
    },
    Command {
        name: "backup",
        arguments: "",
        what: "copy the data directory of one member, to go on alone (no server is asked)",
        examples: &["backup --data-dir /var/lib/edgetcd --backup-dir /mnt/backup/edgetcd"],
        options: &[
            Opt::text(
                &["data-dir"],
                "the directory to copy; a server may run on it",
            ),
            Opt::text(&["wal-dir"], "where its log is, if not in --data-dir"),
            Opt::text(
                &["backup-dir"],
                "the directory to make; must be empty or not there",
            ),
            Opt::text(
                &["backup-wal-dir"],
                "where the log goes, if not into --backup-dir",
            ),
            BUMP_INDEX,
            HELP,
        ],
        run: back_up,
    },
];

/// What the help says of a command besides.
pub(super) const NOTES: &[(&str, &str)] = &[
    (
        "snapshot restore",
        "For each member of the new cluster run it with the same FILE and the same flags but --name, --data-dir\n\
         and --initial-advertise-peer-urls; then start all servers. Their --initial-* flags count no more. Run it\n\
         as the user that the server runs as: the directory is readable by its owner only.\n\
         \n\
         The cluster has new ids, so a member of the old one that was not wiped cannot mix in. To restore the same\n\
         FILE a second time, wipe all members, or give another --initial-cluster-token.\n\
         \n\
         X-Etcd-Index goes on after a leap of --bump-index. Writes that the old cluster took after the backup are\n\
         lost, but clients have seen their indexes: a watch that waits for such an index would wait in silence\n\
         until as many new writes were made. After the leap it is old and gets error 401, as does every index\n\
         from before, and clients read anew. 0 is for those who know that there were no such writes. All members\n\
         must be given the same --bump-index: it is part of their ids.\n\
         \n\
         Keys with a time to live expire at the `expiration` they show: those of which it is past, soon after the\n\
         start.\n",
    ),
    (
        "backup",
        "What is copied is the newest snapshot with all of the log, under new ids of member and cluster and with\n\
         this member alone. Start a server on it, with or without --force-new-cluster, and add others. While a\n\
         server runs, `snapshot save` is better: it has what a majority has.\n\
         \n\
         X-Etcd-Index leaps as it does by `snapshot restore`, so that a watch for what the copy lacks is told so.\n\
         With --bump-index 0, for a member that lacks nothing, the index and the events that watches ask for go on.\n",
    ),
];

/// Flags that mean what they mean for the server, which reads and checks them.
const OF_THE_SERVER: [&str; 6] = [
    "data-dir",
    "wal-dir",
    "name",
    "initial-cluster",
    "initial-advertise-peer-urls",
    "initial-cluster-token",
];

const BUMP: u64 = 1_000_000;

fn restore(run: &mut Run) -> Result<(), Stop> {
    let file = PathBuf::from(file_argument(run)?);
    folder(run, "data-dir")?;
    let bump = bump(run)?;
    let given = OF_THE_SERVER.iter();
    let flags: Vec<OsString> = given
        .filter_map(|name| Some(format!("--{name}={}", run.parsed.text(name)?).into()))
        .collect();
    let config = Config::from_args(&flags, std::iter::empty())
        .map_err(|stop| Stop::Plain(stop.stderr.trim_end().to_owned()))?;
    // Its events are forgotten in the new cluster.
    let contents = backup::read_file(&file, 0).map_err(stop)?;
    let made = backup::restore(&config, contents, bump).map_err(stop)?;
    let others = config.initial_cluster.len() - 1;
    tell(run, &Place::of(&config), &made, &config.name)?;
    if others > 0 {
        writeln!(
            run.world.stdout,
            "restore the same FILE for the other members ({others}), with the same --initial-cluster and \
             --initial-cluster-token"
        )?;
    }
    Ok(())
}

fn bump(run: &Run) -> Result<u64, Stop> {
    let Some(given) = run.parsed.number("bump-index") else {
        return Ok(BUMP);
    };
    let bump = u64::try_from(given).ok().filter(|bump| *bump <= BUMP_MAX);
    bump.ok_or_else(|| Stop::Usage(format!("--bump-index {given} is not from 0 to {BUMP_MAX}")))
}

fn back_up(run: &mut Run) -> Result<(), Stop> {
    let path = |name: &str| run.parsed.text(name).map(PathBuf::from);
    let from = folder(run, "data-dir")?;
    let place = Place {
        dir: folder(run, "backup-dir")?,
        wal_dir: path("backup-wal-dir"),
    };
    let bump = bump(run)?;
    let copied = backup::read_directory(&from, path("wal-dir").as_deref()).map_err(stop)?;
    tell_warnings(run, &copied)?;
    let name = copied.name();
    let made = backup::copy_alone(&place, copied, bump).map_err(stop)?;
    tell(run, &place, &made, &name)
}

/// What a start would say of what it mends, and that a server may be ahead.
pub(super) fn tell_warnings(run: &mut Run, read: &backup::Directory) -> Result<(), Stop> {
    for warning in &read.warnings {
        writeln!(run.world.stderr, "{warning}")?;
    }
    if read.is_running {
        writeln!(
            run.world.stderr,
            "a server runs on it: this is what it had written a moment ago"
        )?;
    }
    Ok(())
}

/// A folder that must be named.
fn folder(run: &Run, name: &'static str) -> Result<PathBuf, Stop> {
    let given = run.parsed.text(name).filter(|path| !path.is_empty());
    given
        .map(PathBuf::from)
        .ok_or_else(|| Stop::Usage(format!("--{name} required")))
}

pub(super) fn stop(error: BackupError) -> Stop {
    Stop::Plain(error.to_string())
}

fn tell(run: &mut Run, place: &Place, made: &Made, name: &str) -> Result<(), Stop> {
    let Made {
        member,
        cluster,
        census,
        index,
        position,
    } = made;
    let (member, cluster, dir) = (ids::hex(*member), ids::hex(*cluster), place.dir.display());
    if run.globals.output == "json" {
        let line = serde_json::json!({
            "dataDir": place.dir, "walDir": place.wal_dir, "name": name, "member": member, "cluster": cluster,
            "keys": census.files, "directories": census.dirs, "index": index.0,
            "raftIndex": position.index.0, "raftTerm": position.term.0,
        });
        return Ok(writeln!(run.world.stdout, "{line}")?);
    }
    let wal_dir = place.wal_dir.as_ref();
    let wal_dir = wal_dir.map_or_else(String::new, |dir| format!(" --wal-dir {}", dir.display()));
    let name = match name {
        "" => "NAME",
        name => name,
    };
    Ok(writeln!(
        run.world.stdout,
        "{dir}: member {member} of the cluster {cluster}, {}; goes on after index {} (entry {}@{})\n\
         start it: edgetcd --name {name} --data-dir {dir}{wal_dir}, with URLs as ever",
        held(census.files, census.dirs),
        index.0,
        position.index.0,
        position.term.0
    )?)
}
