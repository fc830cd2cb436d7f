//! `edgetcdctl snapshot restore` and `backup`: create a data directory on which a server can start. Both work only on
//! files and ask no server. `crate::backup` documents the conversion.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Stop;
use super::args::Opt;
use super::command::{Command, HELP, Run};
use super::snapshot::file_argument;
use super::wal::held;
use crate::backup::{self, BUMP_MAX, BackupError, Made, Place};
use crate::config::Config;
use crate::identity::ids;

const BUMP_INDEX: Opt = Opt::number(
    &["bump-index"],
    "how far X-Etcd-Index jumps forward (1000000)",
);

pub(super) const ALL: &[Command] = &[
    Command {
        name: "snapshot restore",
        arguments: "FILE",
        what: "create the data directory of a member of a new cluster from a saved file",
        examples: &[
            "snapshot restore keys.snap --data-dir /var/lib/edgetcd",
            "snapshot restore keys.snap --data-dir n1.etcd --name n1 \
             --initial-cluster n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380 \
             --initial-advertise-peer-urls http://10.0.0.1:2380",
        ],
        options: &[
            Opt::text(
                &["data-dir"],
                "the directory to create; must be empty or not exist",
            ),
            Opt::text(
                &["wal-dir"],
                "the directory for the log, if not in --data-dir",
            ),
            Opt::text(&["name"], "as for the server (default)"),
            Opt::text(
                &["initial-cluster"],
                "all members, as for the server (only this one)",
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
        what: "copy the data directory of one member so that it can run alone (asks no server)",
        examples: &["backup --data-dir /var/lib/edgetcd --backup-dir /mnt/backup/edgetcd"],
        options: &[
            Opt::text(
                &["data-dir"],
                "the directory to copy; a server may be running on it",
            ),
            Opt::text(
                &["wal-dir"],
                "the directory of its log, if not in --data-dir",
            ),
            Opt::text(
                &["backup-dir"],
                "the directory to create; must be empty or not exist",
            ),
            Opt::text(
                &["backup-wal-dir"],
                "the directory for the log, if not in --backup-dir",
            ),
            BUMP_INDEX,
            HELP,
        ],
        run: back_up,
    },
];

/// More text in the help of a command.
pub(super) const NOTES: &[(&str, &str)] = &[
    (
        "snapshot restore",
        "Run it for each member of the new cluster, with the same FILE and the same flags except --name,\n\
         --data-dir and --initial-advertise-peer-urls. Then start all servers. They do not need the --initial-*\n\
         flags. Run it as the user of the server, because the directory is readable only by its owner.\n\
         \n\
         The cluster has new ids, so a member of the old cluster that was not wiped cannot join it. To restore\n\
         the same FILE a second time, wipe all members, or use another --initial-cluster-token.\n\
         \n\
         X-Etcd-Index continues after a gap of --bump-index. Writes that the old cluster accepted after the\n\
         backup are lost, but clients may have seen their indexes. Without the gap, a watch for such an index\n\
         would wait silently until the new cluster reaches it. With the gap, every old index gets error 401, and\n\
         clients read the data again. Use 0 only if there were no such writes. Use the same --bump-index for all\n\
         members, because their ids are computed from it.\n\
         \n\
         Keys with a time to live expire at their `expiration`. If that time is past, they expire soon after the\n\
         start.\n",
    ),
    (
        "backup",
        "Copies the newest snapshot and the whole log, with new ids of member and cluster and with this member\n\
         alone. Start a server on the copy, with or without --force-new-cluster, and add other members. While a\n\
         server runs, prefer `snapshot save`, which contains everything that a majority has stored.\n\
         \n\
         X-Etcd-Index jumps forward as with `snapshot restore`, so that a watch for writes that the copy lacks\n\
         gets an error. If the copy lacks no writes, use --bump-index 0: the index and the events for watches\n\
         then continue.\n",
    ),
];

/// Flags with the same meaning as for the server, whose code parses and checks them.
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
    // Its events are not kept in the new cluster.
    let contents = backup::read_file(&file, 0).map_err(stop)?;
    let made = backup::restore(&config, contents, bump).map_err(stop)?;
    let others = config.initial_cluster.len() - 1;
    print_result(run, &Place::of(&config), &made, &config.name)?;
    if others > 0 {
        let flags = match run.parsed.number("bump-index") {
            Some(bump) => {
                format!("--initial-cluster, --initial-cluster-token and --bump-index {bump}")
            }
            None => "--initial-cluster and --initial-cluster-token".to_owned(),
        };
        writeln!(
            run.world.stdout,
            "restore the same FILE for the other members ({others}) with the same {flags}"
        )?;
    }
    Ok(())
}

fn bump(run: &Run) -> Result<u64, Stop> {
    let Some(given) = run.parsed.number("bump-index") else {
        return Ok(BUMP);
    };
    let bump = u64::try_from(given).ok().filter(|bump| *bump <= BUMP_MAX);
    bump.ok_or_else(|| {
        Stop::Usage(format!(
            "--bump-index {given} is not in the range 0 to {BUMP_MAX}"
        ))
    })
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
    print_result(run, &place, &made, &name)
}

/// Prints the warnings of a start about repairs, and whether a server may have newer data.
pub(super) fn tell_warnings(run: &mut Run, read: &backup::Directory) -> Result<(), Stop> {
    for warning in &read.warnings {
        writeln!(run.world.stderr, "{warning}")?;
    }
    if read.is_running {
        writeln!(
            run.world.stderr,
            "a server is running on the directory: this copy has its state of a moment ago"
        )?;
    }
    Ok(())
}

/// The value of a required folder option.
fn folder(run: &Run, name: &'static str) -> Result<PathBuf, Stop> {
    let given = run.parsed.text(name).filter(|path| !path.is_empty());
    given
        .map(PathBuf::from)
        .ok_or_else(|| Stop::Usage(format!("--{name} required")))
}

pub(super) fn stop(error: BackupError) -> Stop {
    Stop::Plain(error.to_string())
}

fn print_result(run: &mut Run, place: &Place, made: &Made, name: &str) -> Result<(), Stop> {
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
        "{dir}: member {member} of the cluster {cluster}, {}; continues after index {} (entry {}@{})\n\
         start it: edgetcd --name {name} --data-dir {dir}{wal_dir}, with the usual URLs",
        held(census.files, census.dirs),
        index.0,
        position.index.0,
        position.term.0
    )?)
}
