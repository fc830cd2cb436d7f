//! A restore with a separate log folder: files left between two steps, and folders that are refused.

use super::*;
use crate::engine::members::{Member, Members};
use crate::raft::{LogIndex, Membership, NodeId, Position, Term};

struct Made {
    identity: Identity,
    metadata: SnapshotMetadata,
    state: State,
}

fn made() -> Made {
    let member = Member {
        id: 7,
        name: "n7".into(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
    };
    let identity = Identity::alone(7, 8, Members::new(9, [member]));
    let metadata = SnapshotMetadata {
        position: Position {
            term: Term(2),
            index: LogIndex(5),
        },
        membership: Membership {
            voters: [NodeId(7)].into_iter().collect(),
            ..Membership::default()
        },
    };
    let mut state = State::new(identity.founders.clone(), 10);
    state.applied = metadata.position.index;
    Made {
        identity,
        metadata,
        state,
    }
}

fn place(folder: &Path) -> Place {
    Place {
        dir: folder.join("data"),
        wal_dir: Some(folder.join("wal")),
    }
}

fn filled(place: &Place, made: &Made) -> Aside {
    let aside = Aside::begin(place).unwrap();
    let batch = Batch::default();
    aside
        .fill(&made.identity, &made.metadata, &made.state, &batch)
        .unwrap();
    aside
}

fn names(folder: &Path) -> Vec<String> {
    list(folder).unwrap()
}

/// Ends the restore like a signal: nothing is cleaned up, and the locks are released.
fn kill(mut aside: Aside) {
    aside.locks.clear();
    std::mem::forget(aside);
}

fn again(place: &Place, made: &Made) -> Result<(), BackupError> {
    make(
        place,
        &made.identity,
        &made.metadata,
        &made.state,
        &Batch::default(),
    )
}

fn is_whole(place: &Place, made: &Made) -> bool {
    let options = Options {
        wal_dir: place.wal_dir.clone(),
        ..Options::new(&place.dir)
    };
    let seen = wal::inspect(RealDisk::default(), options).unwrap();
    seen.is_some_and(|seen| seen.start() == made.metadata.position)
}

#[test]
fn what_a_killed_restore_left_of_a_log_elsewhere_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let (place, made) = (place(folder.path()), made());
    let wal = place.wal_dir.clone().unwrap();
    let mut aside = filled(&place, &made);
    aside.place_log().unwrap();
    kill(aside);
    let left = names(&wal);
    assert!(left.iter().any(|name| name.ends_with(".wal")), "{left:?}");
    again(&place, &made).unwrap();
    assert!(is_whole(&place, &made));
    let whole = names(&wal);
    assert!(whole.iter().all(|name| !left.contains(name)), "{whole:?}");
    assert_eq!(names(&place.dir), [MEMBER]);
}

#[test]
fn a_start_refuses_what_a_killed_restore_left_and_tells_all_that_is_to_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (place, made) = (place(folder.path()), made());
    let wal = place.wal_dir.clone().unwrap();
    let inspect = || crate::node::inspect(&place.dir, Some(&wal), 0).map(|found| found.is_some());
    let refused = || match inspect() {
        Err(refused) => refused.to_string(),
        Ok(found) => panic!("a node would start ({found})"),
    };
    let aside = Aside::begin(&place).unwrap();
    assert!(refused().contains("was not finished"), "it has only begun");
    drop(aside);
    assert!(!inspect().unwrap(), "it has given up, and nothing is left");
    let mut aside = filled(&place, &made);
    aside.place_log().unwrap();
    kill(aside);
    let command = refused();
    let command = command.split("discard it: ").nth(1).unwrap();
    let mut words = command.lines().next().unwrap().split(' ').skip(2);
    assert!(words.all(|path| Path::new(path).exists()), "{command}");
    for name in names(&wal) {
        let is_told = command.contains(&name) || name == "lock";
        assert!(is_told, "{name} in {command}");
    }
    // Only the folder of the log is left, as after the data directory was discarded.
    remove(&place.dir.join(ASIDE)).unwrap();
    assert!(refused().contains(&format!("rm -r {}", wal.join(ASIDE).display())));
    remove(&wal.join(ASIDE)).unwrap();
}

/// Files that are not in the list belong to somebody else, even after a killed restore.
#[test]
fn a_log_of_somebody_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (place, made) = (place(folder.path()), made());
    let wal = place.wal_dir.clone().unwrap();
    let mut aside = filled(&place, &made);
    aside.place_log().unwrap();
    kill(aside);
    let theirs = wal.join("0000000000000001-00000000.wal");
    fs::write(&theirs, "theirs").unwrap();
    let before = names(&wal);
    let error = again(&place, &made).unwrap_err().to_string();
    assert!(
        error.contains("is not empty, it contains 0000000000000001"),
        "{error}"
    );
    assert_eq!(names(&wal), before);
    // A log of a finished restore also belongs to somebody, even if the list still exists.
    fs::remove_file(theirs).unwrap();
    let aside = place.dir.join(ASIDE);
    fs::rename(aside.join(MEMBER), place.dir.join(MEMBER)).unwrap();
    fs::rename(&place.dir, folder.path().join("old")).unwrap();
    let error = again(&place, &made).unwrap_err().to_string();
    assert!(error.contains("wal is not empty"), "{error}");
}

#[test]
fn a_restore_that_fails_between_its_steps_takes_the_log_back() {
    let folder = tempfile::tempdir().unwrap();
    let (place, made) = (place(folder.path()), made());
    let aside = filled(&place, &made);
    // This file blocks the last rename.
    let obstacle = place.dir.join(MEMBER);
    fs::create_dir(&obstacle).unwrap();
    fs::write(obstacle.join("x"), "").unwrap();
    let error = aside.finish().unwrap_err().to_string();
    assert!(error.contains("cannot move it to its place"), "{error}");
    assert!(!folder.path().join("wal").exists());
    fs::remove_dir_all(obstacle).unwrap();
    again(&place, &made).unwrap();
    assert!(is_whole(&place, &made));
}

/// The directory may be the last copy, although a node does not start on it.
#[test]
fn the_directory_of_a_member_that_was_removed_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place {
        wal_dir: None,
        ..place(folder.path())
    };
    let mut made = made();
    made.state.members.remove(NodeId(7));
    made.state.members.add(Member {
        id: 8,
        name: "n8".into(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
    });
    made.metadata.membership.voters = [NodeId(8)].into();
    again(&place, &made).unwrap();
    let refused = match crate::node::inspect(&place.dir, None, 0) {
        Err(refused) => refused.to_string(),
        Ok(_) => panic!("a node would start"),
    };
    assert!(refused.contains("permanently removed"), "{refused}");
    let read = crate::backup::read_directory(&place.dir, None).unwrap();
    assert_eq!(read.contents.metadata, made.metadata);
}

#[test]
fn neither_folder_may_lie_in_the_other_whatever_they_are_called() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("there")).unwrap();
    std::os::unix::fs::symlink(root.join("there"), root.join("link")).unwrap();
    let table = [
        ("d", "w", true),
        ("d", "d", false),
        ("d", "d/member/wal", false),
        ("w/d", "w", false),
        ("there/d", "link/d", false),
        ("link/d", "there/d/wal", false),
        ("link/d", "there/w", true),
        ("there/../d", "d/wal", false),
        ("d", "./d/../w", true),
        ("d", "dd", true),
    ];
    for (dir, wal, is_fine) in table {
        let place = Place {
            dir: root.join(dir),
            wal_dir: Some(root.join(wal)),
        };
        let found = refuse_within(&place);
        assert_eq!(found.is_ok(), is_fine, "{dir} and {wal}: {found:?}");
    }
    // One of the two paths is relative.
    let here = std::env::current_dir().unwrap();
    let place = Place {
        dir: PathBuf::from("nosuch"),
        wal_dir: Some(here.join("nosuch/wal")),
    };
    assert!(refuse_within(&place).is_err());
}
