//! Command lines and their results, as transcripts in `transcripts/config/`.
//!
//! A transcript contains command lines as for a shell (variables in front), a line `---`, and the result of each. The
//! result is how the configuration differs from the one without flags, the warnings, and the error of a first start.
//! If there is no configuration, it is the exit status with all output. `UPDATE=1` writes the part below the line
//! again.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;

use edgetcd::config::{self, Config, Place, Stop};
use edgetcd::urls;

#[path = "harness/transcript.rs"]
mod transcript;

fn transcript(name: &str) {
    transcript::check(&format!("config/{name}"), run);
}

fn run(line: &str) -> String {
    let words = shell_words(line);
    let program = words
        .iter()
        .position(|word| !word.contains('='))
        .expect("a program");
    let env = words[..program].iter().map(|word| {
        let (name, value) = word.split_once('=').unwrap();
        (OsString::from(name), OsString::from(value))
    });
    let args: Vec<OsString> = words[program + 1..].iter().map(OsString::from).collect();
    match Config::from_args(&args, env) {
        Ok(config) => show(&config),
        Err(stop) => show_stop(&stop),
    }
}

/// Splits a line at blanks. Single quotes keep blanks in a word, and make an empty word.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn show_stop(stop: &Stop) -> String {
    format!("{}{}status {}\n", stop.stdout, stop.stderr, stop.status)
}

/// The settings that differ from those without flags.
fn show(config: &Config) -> String {
    let default = Config::default();
    let mut out = String::new();
    for (got, without_flags) in fields(config).into_iter().zip(fields(&default)) {
        if got != without_flags {
            writeln!(out, "{got}").unwrap();
        }
    }
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}").unwrap();
    }
    if let Err(stop) = config::check_first_start(config) {
        write!(out, "at the first start: {}", show_stop(&stop)).unwrap();
    }
    if out.is_empty() {
        "(as without flags)\n".to_owned()
    } else {
        out
    }
}

/// `http` or `https` or both, and the address.
fn places(places: &[Place<SocketAddr>]) -> String {
    let each = places
        .iter()
        .map(|place| match (place.is_plain, place.is_tls) {
            (true, true) => format!("{} with and without TLS", place.at),
            (false, true) => format!("{} with TLS", place.at),
            _ => place.at.to_string(),
        });
    format!("[{}]", each.collect::<Vec<_>>().join(", "))
}

fn fields(c: &Config) -> Vec<String> {
    let cluster: Vec<String> = c
        .initial_cluster
        .iter()
        .map(|(name, list)| format!("{name} at {}", urls::join(list)))
        .collect();
    vec![
        format!("name: {}", c.name),
        format!("data dir: {}", c.data_dir.display()),
        format!("wal dir: {:?}", c.wal_dir),
        format!("snapshot count: {}", c.snapshot_count),
        format!("heartbeat: {:?}", c.heartbeat_interval),
        format!("election: {:?}", c.election_timeout),
        format!("snapshots kept: {}", c.max_snapshots),
        format!("wals kept: {}", c.max_wals),
        format!("events kept: {}", c.watch_history),
        format!("listens to clients: {}", places(&c.client_addresses())),
        format!("listens to peers: {}", places(&c.peer_addresses())),
        format!(
            "advertises to clients: {}",
            urls::join(&c.advertise_client_urls)
        ),
        format!(
            "advertises to peers: {}",
            urls::join(&c.initial_advertise_peer_urls)
        ),
        format!("cluster: {}", cluster.join("; ")),
        format!("cluster state: {:?}", c.initial_cluster_state),
        format!("token: {}", c.initial_cluster_token),
        format!("strict reconfig check: {}", c.strict_reconfig_check),
        format!("force new cluster: {}", c.force_new_cluster),
        format!("no fsync: {:?}", c.no_fsync),
        format!("cors: {:?}", c.cors),
        format!("host whitelist: {:?}", c.host_whitelist),
        format!("TLS for clients: {:?}", c.client_tls),
        format!("TLS for peers: {:?}", c.peer_tls),
        format!("log: {} {:?}", c.log_level, c.log_format),
        format!("trace: {:?}", c.trace),
    ]
}

#[test]
fn forms_of_flags() {
    transcript("forms-of-flags");
}

#[test]
fn tls() {
    transcript("tls");
}

#[test]
fn environment() {
    transcript("environment");
}

#[test]
fn documented_command_lines() {
    transcript("documented-command-lines");
}

#[test]
fn usage_errors() {
    transcript("usage-errors");
}

#[test]
fn refused_values() {
    transcript("refused-values");
}

#[test]
fn no_fsync() {
    transcript("no-fsync");
}

#[test]
fn refused_flags() {
    transcript("refused-flags");
}

#[test]
fn flags_without_effect() {
    transcript("flags-without-effect");
}

#[test]
fn ignored_values() {
    transcript("ignored-values");
}

#[test]
fn first_start() {
    transcript("first-start");
}

#[test]
fn help() {
    transcript("help");
}

/// The version depends on the machine (the processor's name), so it is not in a transcript.
#[test]
fn the_version_has_the_lines_that_scripts_cut_up() {
    let args = [OsString::from("-version")];
    let stop = Config::from_args(&args, std::iter::empty()).unwrap_err();
    assert_eq!((stop.status, stop.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = stop.stdout.lines().collect();
    let [version, sha, go, os] = lines[..] else {
        panic!("not four lines: {lines:?}")
    };
    assert!(version.starts_with("etcd Version: 3.4.0 "), "{version}");
    assert!(
        version.contains(concat!("edgetcd ", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
    assert!(
        sha.starts_with("Git SHA: ") && go.starts_with("Go Version: "),
        "{sha} {go}"
    );
    assert!(os.starts_with("Go OS/Arch: ") && os.contains('/'), "{os}");
}

/// Help can be requested in several ways, also together with a word that would be an error.
#[test]
fn every_way_to_ask_for_help_gives_the_same() {
    let ask = |words: &[&str]| {
        let args: Vec<OsString> = words.iter().map(OsString::from).collect();
        Config::from_args(&args, std::iter::empty()).unwrap_err()
    };
    let help = ask(&["--help"]);
    assert_eq!((help.status, help.stderr.as_str()), (0, ""));
    for words in [
        &["-h"][..],
        &["-help"],
        &["--h"],
        &["--election-timeout", "1", "-h"],
    ] {
        assert_eq!(ask(words), help, "{words:?}");
    }
}

/// A member that listens on all addresses advertises this machine's own address, not localhost, unless there is none.
#[test]
fn a_member_on_all_addresses_advertises_its_own() {
    let args = ["--listen-peer-urls", "http://0.0.0.0:7777"].map(OsString::from);
    let config = Config::from_args(&args, std::iter::empty()).unwrap();
    let url = &config.initial_advertise_peer_urls[0];
    assert!(url.host() == "localhost" || url.port() == 7777, "{url}");
    assert_eq!(
        config.initial_cluster,
        [("default".to_owned(), vec![url.clone()])]
    );
    assert_eq!(config::check_first_start(&config), Ok(()));
}

#[cfg(unix)]
#[test]
fn what_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(b"/data/\xff".to_vec());
    let args = [OsString::from("--data-dir"), odd.clone()];
    assert_eq!(
        Config::from_args(&args, std::iter::empty())
            .unwrap_err()
            .status,
        2
    );
    let env = [(OsString::from("ETCD_DATA_DIR"), odd)];
    assert_eq!(
        Config::from_args(&[], env.into_iter()).unwrap_err().status,
        1
    );
}
