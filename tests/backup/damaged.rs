//! Every reader detects damage: on the way, in a file, and in a data directory.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Server, setting};
use crate::support::{
    command, complained, fill, folder, keys, put, restore_alone, run, said, save, snapshots, text,
    tree, url,
};

/// A server with some keys, and a backup of it.
fn saved(folder: &Path) -> (Server, PathBuf) {
    let server = Server::start(&[]);
    fill(&[server.address()], 300);
    let mut connection = server.connect();
    put(&mut connection, "/large", &"x".repeat(200_000));
    put(&mut connection, "/_hidden", "h");
    put(&mut connection, "/rich/_h", "h");
    let file = folder.join("keys.snap");
    save(&url(server.address()), &file);
    (server, file)
}

/// One offset in each field of each kind of slice. The last offset is after the end.
fn offsets(bytes: &[u8]) -> Vec<usize> {
    let mut found = vec![0, 7, 8, 11];
    let mut at = 12;
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four"));
        let end = at + 9 + usize::try_from(length).expect("a length");
        found.extend([
            at,
            at + 3,
            at + 4,
            at + 7,
            at + 8,
            at + 9,
            (at + end) / 2,
            end - 1,
        ]);
        at = end;
    }
    assert_eq!(at, bytes.len());
    found
}

fn variants(good: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut variants = Vec::new();
    for at in offsets(good) {
        let mut flipped = good.to_vec();
        flipped[at] ^= 0x01;
        variants.push((format!("flipped at {at}"), flipped));
        variants.push((format!("cut at {at}"), good[..at].to_vec()));
    }
    variants.push(("longer".into(), [good, b"\0"].concat()));
    variants
}

#[test]
fn a_damaged_file_is_refused_and_named_with_the_place() {
    let folder = folder();
    let (_server, file) = saved(folder.path());
    let good = fs::read(&file).expect("the backup");
    assert!(said(&run("", &["snapshot", "check", text(&file)])).contains(": good"));
    let (bad, dir) = (folder.path().join("bad.snap"), folder.path().join("dir"));
    for (what, bytes) in variants(&good) {
        fs::write(&bad, &bytes).expect("written");
        let output = run("", &["snapshot", "check", text(&bad)]);
        let error = complained(&output, 1);
        let named = format!("{} at byte ", text(&bad));
        assert!(error.starts_with(&named), "{what}: {error}");
        let words = ["snapshot", "restore", text(&bad), "--data-dir", text(&dir)];
        let error = complained(&run("", &words), 1);
        assert!(error.starts_with(&named), "{what}: {error}");
        assert!(!dir.exists(), "{what}: something was made");
    }
    // One good file and one bad file: both are reported, and the exit status is that of the bad one.
    let output = run(
        "",
        &["-o", "json", "snapshot", "check", text(&file), text(&bad)],
    );
    complained(&output, 1);
    let lines = String::from_utf8(output.stdout).expect("text");
    let goods: Vec<bool> = lines
        .lines()
        .map(|line| line.contains("\"good\":true"))
        .collect();
    assert_eq!(goods, [true, false]);
}

/// A check of a node's own files reports exactly what the node does.
#[test]
fn a_check_of_a_data_directory_agrees_with_the_node() {
    let mut server = Server::start(&["--snapshot-count=50"]);
    fill(&[server.address()], 400);
    server.kill();
    let files = snapshots(server.data());
    assert!(files.len() > 1, "{files:?}");
    for file in &files {
        said(&run("", &["snapshot", "check", text(file)]));
    }
    let newest = files.last().expect("one");
    let good = fs::read(newest).expect("a snapshot");
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(newest, bytes).expect("written");
    complained(&run("", &["snapshot", "check", text(newest)]), 1);
    server.launch();
    assert!(server.log().contains("moves it aside"), "{}", server.log());
    server.kill();

    // A good file under another name is a bad file, for the check as for the node.
    let other = newest.with_file_name("00000000000fffff-0000000000000001.snap");
    fs::write(&other, good).expect("written");
    let error = complained(&run("", &["snapshot", "check", text(&other)]), 1);
    assert!(
        error.contains("names another snapshot than its file name"),
        "{error}"
    );
}

/// Forwards each connection to the server, and changes the answer after a number of bytes.
fn proxy(to: SocketAddr, damage: Damage) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // Some tests are about a client that disconnects in the middle.
            let _ = relay(client, to, damage);
        }
    });
    address
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Cut(usize),
    Flip(usize),
    Stall(usize),
}

fn relay(mut client: TcpStream, to: SocketAddr, damage: Damage) -> std::io::Result<()> {
    let mut request = vec![0; 4096];
    let read = client.read(&mut request)?;
    let mut server = TcpStream::connect(to)?;
    server.write_all(&request[..read])?;
    server.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    match damage {
        Damage::Cut(at) => answer.truncate(at),
        Damage::Flip(at) => answer[at] ^= 1,
        Damage::Stall(at) => {
            client.write_all(&answer[..at])?;
            std::thread::sleep(Duration::from_secs(60));
        }
    }
    client.write_all(&answer)
}

#[test]
fn what_is_damaged_on_the_way_is_not_saved_and_another_endpoint_is_asked() {
    let folder = folder();
    let (server, file) = saved(folder.path());
    let length = fs::metadata(&file).expect("the backup").len() as usize;
    let good = url(server.address());
    let saved = folder.path().join("way.snap");
    // The header of the answer has about 300 bytes.
    for damage in [
        Damage::Cut(100),
        Damage::Cut(400),
        Damage::Cut(length / 2),
        Damage::Cut(length),
        Damage::Flip(length / 2),
        Damage::Flip(length),
        Damage::Stall(length / 2),
    ] {
        let bad = url(proxy(server.address(), damage));
        let words = [
            "--no-sync",
            "--timeout=1s",
            "snapshot",
            "save",
            text(&saved),
        ];
        complained(&run(&bad, &words), 4);
        let names = fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(
            names, 1,
            "{damage:?} left a file in addition to the first backup"
        );
        let output = run(&format!("{bad},{good}"), &words);
        assert!(said(&output).contains(&good), "{damage:?}");
        fs::remove_file(&saved).expect("it was saved");
    }
}

/// A killed restore leaves nothing that a server would use, or everything.
#[test]
fn a_killed_restore_leaves_nothing_or_all() {
    let folder = folder();
    let (server, file) = saved(folder.path());
    fill(&[server.address()], keys());
    let words = ["--force", text(&file)];
    said(&run(
        &url(server.address()),
        &[&["snapshot", "save"], &words[..]].concat(),
    ));
    let full = tree(&server);
    let began = std::time::Instant::now();
    restore_alone(&Server::prepare(&[]), &file, &[]);
    let whole = began.elapsed();
    let kills = setting("BACKUP_KILLS", 8);
    for kill in 0..kills {
        let mut restored = Server::prepare(&[]);
        let words = ["snapshot", "restore", text(&file), "--data-dir"];
        let mut words = words.to_vec();
        let peer = format!(
            "--initial-advertise-peer-urls={}",
            url(restored.peer_address())
        );
        words.extend([text(restored.data()), &peer]);
        let mut child = command("", &words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        std::thread::sleep(
            whole * u32::try_from(kill).expect("few") / u32::try_from(kills).expect("few"),
        );
        child.kill().expect("kill -9");
        child.wait().expect("its end");
        if !restored.data().join("member").exists() {
            // It left nothing. Files in the temporary folder do no harm.
            said(&run("", &words));
        }
        restored.launch();
        assert_eq!(tree(&restored), full, "killed {kill}/{kills} through");
    }
}

/// Two restores that run at the same time do not mix their files.
#[test]
fn of_restores_at_once_one_makes_the_directory() {
    let folder = folder();
    let (server, file) = saved(folder.path());
    let full = tree(&server);
    for round in 0..5 {
        let mut restored = Server::prepare(&[]);
        let peer = format!(
            "--initial-advertise-peer-urls={}",
            url(restored.peer_address())
        );
        let words = [
            "snapshot",
            "restore",
            text(&file),
            "--data-dir",
            text(restored.data()),
            &peer,
        ];
        let begun: Vec<_> = (0..4)
            .map(|_| {
                let mut command = command("", &words);
                command.stdout(Stdio::null()).stderr(Stdio::piped());
                command.spawn().expect("it starts")
            })
            .collect();
        let ended = begun
            .into_iter()
            .map(|child| child.wait_with_output().expect("its end"));
        let (made, refused): (Vec<_>, Vec<_>) = ended.partition(|output| output.status.success());
        assert_eq!(made.len(), 1, "round {round}: {refused:?}");
        for output in refused {
            let error = complained(&output, 1);
            let why = ["another restore is running", "is not empty"];
            assert!(why.iter().any(|why| error.contains(why)), "{error}");
        }
        restored.launch();
        assert_eq!(tree(&restored), full);
    }
}

/// The server begins an answer and then hangs. The save is ended by a person who loses patience, or by cron.
#[test]
fn a_save_that_is_told_to_end_leaves_no_half_of_a_file() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::process::ExitStatusExt;

    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let (over, wait) = std::sync::mpsc::channel::<()>();
    let silent = std::thread::spawn(move || {
        let (mut client, _) = listener.accept()?;
        let _ = client.read(&mut [0; 4096])?;
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
        let _ = wait.recv();
        std::io::Result::Ok(())
    });
    let folder = folder();
    let file = folder.path().join("keys.snap");
    let words = [
        "--no-sync",
        "--timeout",
        "60s",
        "snapshot",
        "save",
        text(&file),
    ];
    let mut child = command(&url(address), &words).spawn().expect("it starts");
    let files = || fs::read_dir(folder.path()).expect("the folder").count();
    crate::harness::wait_for("the file that is begun", Duration::from_secs(30), || {
        (files() == 1).then_some(())
    });
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let status = child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status}");
    assert_eq!(files(), 0, "nothing is left");
    drop(over);
    silent.join().expect("no panic").expect("it was asked");
}
