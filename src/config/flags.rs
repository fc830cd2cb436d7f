//! The table of all flags. The parser, the environment and the help text use it.
//!
//! Flags are parsed as in Go's flag package, because existing command lines are written for it. A flag has one or two
//! dashes, and is `--flag=value` or `--flag value`. A boolean flag stands alone or has its value after `=`; it never
//! takes the next word. If a flag appears several times, the last one counts. The first word that is not a flag ends
//! the flags. The environment variable of a flag is `ETCD_` and its name in capitals, with `_` for `-`. An empty
//! variable counts as unset.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use getopts::{Fail, HasArg, Occur, Options, ParsingStyle};

/// The values that a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text. Flags with an effect are parsed where they are read.
    Text,
    /// The only kind that may stand without a value.
    Bool,
    /// A whole number of 64 bits with a sign.
    Int,
    /// A whole number of 64 bits without a sign.
    Uint,
    /// A whole number of 32 bits without a sign.
    Uint32,
    /// A time with units, such as `1m30s`.
    Duration,
}

/// How this server treats a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Supported. The text is its help.
    Ours(&'static str),
    /// Accepted so that etcd's command lines work. The text is the reason why the flag has no effect.
    Warned(&'static str),
    /// Refused unless it has its default value. The text says what to do instead.
    Refused(&'static str),
    /// A flag of etcd 0.4 or 2. etcd 3 accepts it with any value and ignores it with a warning.
    Gone,
}

#[derive(Debug)]
pub(super) struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// The default, as the help text shows it.
    pub default: &'static str,
    pub group: &'static str,
    pub role: Role,
}

const fn text(name: &'static str, default: &'static str, group: &'static str, role: Role) -> Flag {
    Flag {
        name,
        kind: Kind::Text,
        default,
        group,
        role,
    }
}

const fn boolean(
    name: &'static str,
    default: &'static str,
    group: &'static str,
    role: Role,
) -> Flag {
    Flag {
        name,
        kind: Kind::Bool,
        default,
        group,
        role,
    }
}

/// A flag whose value is checked and has no effect.
const fn ignored(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Flag {
    Flag {
        name,
        kind,
        default,
        group: OTHER,
        role: Warned(why),
    }
}

use Role::{Gone, Ours, Refused, Warned};

const MEMBER: &str = "Member";
const CLUSTER: &str = "Clustering";
const HTTP: &str = "HTTP";
const TLS: &str = "TLS";
const LOG: &str = "Logging";
const UNSAFE: &str = "Unsafe";
const OTHER: &str = "Other";

const V3: &str = "it belongs to the v3 API, which is not served";
const NO_CA_FILE: &str =
    "type --trusted-ca-file=FILE, or --peer-trusted-ca-file=FILE, which have replaced it";
const NO_DISCOVERY: &str = "discovery is not supported: list all members with --initial-cluster";
const NO_PROXY: &str = "proxy mode is not supported: connect clients to the members directly";
const TO_STDERR: &str =
    "log lines go to stderr: omit the flag, and redirect them to a file with 2>>FILE";
const CORRUPT: &str = "it compares the members' v3 keys, and there are none; the log and the snapshots here have \
     checksums that are always verified";
const PROXY_TIMES: &str = "proxy mode is not supported";

/// All flags of the reference and our own, in the order of the help text.
pub(super) const FLAGS: &[Flag] = &[
    text(
        "name",
        "default",
        MEMBER,
        Ours("Name of this member, as used in --initial-cluster."),
    ),
    text(
        "data-dir",
        "${name}.etcd",
        MEMBER,
        Ours("Data directory of this member. Only one process can use it."),
    ),
    text(
        "wal-dir",
        "",
        MEMBER,
        Ours("Directory of the log, for example on a faster disk. Empty: in the data directory."),
    ),
    text(
        "snapshot-count",
        "100000",
        MEMBER,
        Ours("Number of writes between snapshots. After a snapshot, the log before it is removed."),
    ),
    text(
        "heartbeat-interval",
        "100",
        MEMBER,
        Ours("Time between two heartbeats of the leader, in ms."),
    ),
    text(
        "election-timeout",
        "1000",
        MEMBER,
        Ours(
            "How long followers wait for the leader before an election, in ms: 5 heartbeats to 50000.",
        ),
    ),
    text(
        "listen-peer-urls",
        "http://localhost:2380",
        MEMBER,
        Ours(
            "URLs to listen on for other members, separated by commas: IP addresses or localhost.",
        ),
    ),
    text(
        "listen-client-urls",
        "http://localhost:2379",
        MEMBER,
        Ours(
            "URLs to listen on for clients, separated by commas: IP addresses or localhost, or a Unix socket \
             (unix:///run/edgetcd.sock; the umask decides who may connect).",
        ),
    ),
    text(
        "listen-metrics-urls",
        "",
        MEMBER,
        Ours("More URLs to listen on, separated by commas, which serve only /metrics and /health."),
    ),
    text(
        "max-snapshots",
        "5",
        MEMBER,
        Ours("Number of snapshots to keep (0: all)."),
    ),
    text(
        "max-wals",
        "5",
        MEMBER,
        Ours(
            "Number of log files to keep (0: all). Files that are still needed are never removed.",
        ),
    ),
    text(
        "watch-history",
        "1000",
        MEMBER,
        Ours(
            "Number of past events that a watch with waitIndex can read. N,BYTES also limits their total size \
             (default: a sixteenth of the disk). etcd does not have this flag.",
        ),
    ),
    text(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        CLUSTER,
        Ours("URLs at which the other members can reach this one, separated by commas."),
    ),
    text(
        "initial-cluster",
        "NAME=PEER-URL",
        CLUSTER,
        Ours("All initial members: name=url,name=url. A member with two URLs is listed twice."),
    ),
    text(
        "initial-cluster-state",
        "new",
        CLUSTER,
        Ours(
            "'new' to start a new cluster, 'existing' to join a cluster that has added this member.",
        ),
    ),
    text(
        "initial-cluster-token",
        "etcd-cluster",
        CLUSTER,
        Ours("A word that distinguishes clusters with the same URLs."),
    ),
    text(
        "advertise-client-urls",
        "http://localhost:2379",
        CLUSTER,
        Ours("URLs at which clients can reach this member. Required with --listen-client-urls."),
    ),
    boolean(
        "strict-reconfig-check",
        "true",
        CLUSTER,
        Ours("Refuse member changes that could cost the quorum."),
    ),
    text(
        "cors",
        "",
        HTTP,
        Ours(
            "Origins of web pages that may use this API, separated by commas. '*': all. Empty: none.",
        ),
    ),
    text(
        "host-whitelist",
        "*",
        HTTP,
        Ours("Host names that requests may use, separated by commas. '*' or empty: all."),
    ),
    text(
        "cert-file",
        "",
        TLS,
        Ours(
            "Certificate for https:// URLs of clients, in PEM, with the certificates that lead to its CA.",
        ),
    ),
    text(
        "key-file",
        "",
        TLS,
        Ours("Its key. This file and the other ones are read again when they change."),
    ),
    boolean(
        "client-cert-auth",
        "false",
        TLS,
        Ours("Clients need a certificate of the CA in --trusted-ca-file."),
    ),
    text(
        "trusted-ca-file",
        "",
        TLS,
        Ours("Certificates of the CAs of clients, in PEM. Clients then need a certificate."),
    ),
    text(
        "client-crl-file",
        "",
        TLS,
        Ours("Revoked certificates of clients, in PEM or DER."),
    ),
    text(
        "client-cert-allowed-hostname",
        "",
        TLS,
        Ours("A host that the certificates of clients must be valid for."),
    ),
    boolean(
        "auto-tls",
        "false",
        TLS,
        Ours("Make a self-signed certificate for clients, in the data directory."),
    ),
    text(
        "peer-cert-file",
        "",
        TLS,
        Ours("Certificate for https:// URLs of members, both to listen and to connect."),
    ),
    text("peer-key-file", "", TLS, Ours("Its key.")),
    boolean(
        "peer-client-cert-auth",
        "false",
        TLS,
        Ours("Members need a certificate of the CA in --peer-trusted-ca-file."),
    ),
    text(
        "peer-trusted-ca-file",
        "",
        TLS,
        Ours("Certificates of the CAs of members, in PEM. Members then need a certificate."),
    ),
    text(
        "peer-crl-file",
        "",
        TLS,
        Ours("Revoked certificates of members, in PEM or DER."),
    ),
    text(
        "peer-cert-allowed-cn",
        "",
        TLS,
        Ours("The common name that the certificates of members must have."),
    ),
    text(
        "peer-cert-allowed-hostname",
        "",
        TLS,
        Ours("A host that the certificates of members must be valid for."),
    ),
    boolean(
        "experimental-peer-skip-client-san-verification",
        "false",
        TLS,
        Ours("Accept members whose certificate is for other addresses than their own."),
    ),
    boolean(
        "peer-auto-tls",
        "false",
        TLS,
        Ours(
            "Make a self-signed certificate for members. They encrypt and do not verify each other.",
        ),
    ),
    text(
        "cipher-suites",
        "",
        TLS,
        Ours(
            "Cipher suites of TLS 1.2, separated by commas. Empty: all. Those of TLS 1.3 are always allowed.",
        ),
    ),
    text(
        "log-level",
        "info",
        LOG,
        Ours("debug, info, warn or error."),
    ),
    text(
        "log-format",
        "text",
        LOG,
        Ours("text or json. etcd does not have this flag."),
    ),
    text(
        "trace",
        "",
        LOG,
        Ours(
            "File to which each event of raft is appended, as a line of JSON. At 64 MiB it becomes FILE.1. etcd does \
             not have this flag.",
        ),
    ),
    text(
        "log-package-levels",
        "",
        LOG,
        Ours(
            "PACKAGE=LEVEL, separated by commas. All modules log at the most detailed level of the list.",
        ),
    ),
    text(
        "logger",
        "capnslog",
        LOG,
        Ours("zap: the same as --log-format=json. capnslog: the same as --log-format=text."),
    ),
    boolean(
        "debug",
        "false",
        LOG,
        Ours("The same as --log-level=debug."),
    ),
    boolean(
        "force-new-cluster",
        "false",
        UNSAFE,
        Ours("Remove all other members and continue alone with the data of this one."),
    ),
    boolean(
        "unsafe-no-fsync",
        "false",
        UNSAFE,
        Ours(
            "Acknowledge writes that are not on the disk yet, for tests. If the machine stops, they are lost. \
             =yes-i-may-lose-data: also with data that were written with syncs.",
        ),
    ),
    boolean(
        "version",
        "false",
        OTHER,
        Ours("Print the version and exit."),
    ),
    boolean(
        "help",
        "false",
        OTHER,
        Ours("Print this help and exit. Also -h."),
    ),
    // Refused flags: they ask for features that this server does not have. Without these features, the node would not
    // do what the user wants.
    text(
        "config-file",
        "",
        OTHER,
        Refused("use flags or ETCD_* variables instead"),
    ),
    text("discovery", "", CLUSTER, Refused(NO_DISCOVERY)),
    text("discovery-srv", "", CLUSTER, Refused(NO_DISCOVERY)),
    text("discovery-srv-name", "", CLUSTER, Refused(NO_DISCOVERY)),
    text("discovery-proxy", "", CLUSTER, Refused(NO_DISCOVERY)),
    text("proxy", "off", OTHER, Refused(NO_PROXY)),
    text("ca-file", "", TLS, Refused(NO_CA_FILE)),
    text("peer-ca-file", "", TLS, Refused(NO_CA_FILE)),
    // Accepted flags: etcd's command lines that use them start, and work as before as far as API v2 is concerned.
    boolean(
        "enable-v2",
        "true",
        OTHER,
        Ours("Serve the v2 API. It is the only API here, so =false is refused."),
    ),
    boolean(
        "pre-vote",
        "true",
        OTHER,
        Warned("elections always begin with a pre-vote"),
    ),
    boolean(
        "initial-election-tick-advance",
        "true",
        OTHER,
        Warned("a single node becomes leader at once"),
    ),
    text(
        "discovery-fallback",
        "proxy",
        OTHER,
        Warned("discovery is not supported"),
    ),
    ignored("proxy-failure-wait", Kind::Uint, "5000", PROXY_TIMES),
    ignored("proxy-refresh-interval", Kind::Uint, "30000", PROXY_TIMES),
    ignored("proxy-dial-timeout", Kind::Uint, "1000", PROXY_TIMES),
    ignored("proxy-write-timeout", Kind::Uint, "5000", PROXY_TIMES),
    ignored("proxy-read-timeout", Kind::Uint, "0", PROXY_TIMES),
    ignored("quota-backend-bytes", Kind::Int, "0", V3),
    ignored("backend-batch-interval", Kind::Duration, "100ms", V3),
    ignored("backend-batch-limit", Kind::Int, "0", V3),
    text("backend-bbolt-freelist-type", "map", OTHER, Warned(V3)),
    ignored("max-txn-ops", Kind::Uint, "128", V3),
    ignored(
        "max-request-bytes",
        Kind::Uint,
        "1572864",
        "a v2 request may be up to 10 MiB",
    ),
    ignored("max-concurrent-streams", Kind::Uint32, "4294967295", V3),
    boolean("enable-grpc-gateway", "true", OTHER, Warned(V3)),
    ignored("grpc-keepalive-min-time", Kind::Duration, "5s", V3),
    ignored("grpc-keepalive-interval", Kind::Duration, "2h", V3),
    ignored("grpc-keepalive-timeout", Kind::Duration, "20s", V3),
    text("auto-compaction-retention", "0", OTHER, Warned(V3)),
    text("auto-compaction-mode", "periodic", OTHER, Warned(V3)),
    text("auth-token", "simple", OTHER, Warned(V3)),
    ignored("auth-token-ttl", Kind::Uint, "300", V3),
    ignored("bcrypt-cost", Kind::Uint, "10", V3),
    boolean(
        "enable-pprof",
        "false",
        OTHER,
        Refused(
            "there is no Go runtime to profile: omit the flag, and use perf record -p PID and /metrics",
        ),
    ),
    text(
        "metrics",
        "basic",
        OTHER,
        Warned("/metrics always shows all metrics"),
    ),
    text("log-output", "default", OTHER, Refused(TO_STDERR)),
    text("log-outputs", "default", OTHER, Refused(TO_STDERR)),
    boolean("cluster-active-size", "", OTHER, Gone),
    boolean("cluster-remove-delay", "", OTHER, Gone),
    boolean("cluster-sync-interval", "", OTHER, Gone),
    boolean("config", "", OTHER, Gone),
    boolean("force", "", OTHER, Gone),
    boolean("max-result-buffer", "", OTHER, Gone),
    boolean("max-retry-attempts", "", OTHER, Gone),
    boolean("peer-heartbeat-interval", "", OTHER, Gone),
    boolean("peer-election-timeout", "", OTHER, Gone),
    boolean("retry-interval", "", OTHER, Gone),
    boolean("snapshot", "", OTHER, Gone),
    boolean("test.coverprofile", "", OTHER, Gone),
    boolean("test.outputdir", "", OTHER, Gone),
    boolean("v", "", OTHER, Gone),
    boolean("vv", "", OTHER, Gone),
    boolean(
        "experimental-initial-corrupt-check",
        "false",
        OTHER,
        Warned(CORRUPT),
    ),
    ignored(
        "experimental-corrupt-check-time",
        Kind::Duration,
        "0s",
        CORRUPT,
    ),
    text("experimental-enable-v2v3", "", OTHER, Warned(V3)),
    text(
        "experimental-backend-bbolt-freelist-type",
        "array",
        OTHER,
        Warned(V3),
    ),
    boolean(
        "experimental-enable-lease-checkpoint",
        "false",
        OTHER,
        Warned(V3),
    ),
    boolean(
        "experimental-enable-lease-checkpoint-persist",
        "false",
        OTHER,
        Warned(V3),
    ),
    ignored("experimental-compaction-batch-limit", Kind::Int, "1000", V3),
    ignored(
        "experimental-watch-progress-notify-interval",
        Kind::Duration,
        "10m",
        V3,
    ),
    ignored(
        "experimental-warning-apply-duration",
        Kind::Duration,
        "100ms",
        V3,
    ),
];

/// Where a value was set. Errors name the source, and their exit status depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    CommandLine,
    Environment,
}

/// The given values: the last one of each flag.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: BTreeMap<&'static str, (String, Source)>,
    /// Words that are not flags, and all words after the first of them.
    pub strays: Vec<String>,
    pub warnings: Vec<String>,
}

impl Given {
    pub fn get(&self, name: &str) -> Option<(&str, Source)> {
        debug_assert!(find(name).is_some(), "no such flag in the table: {name}");
        self.values
            .get(name)
            .map(|(value, source)| (value.as_str(), *source))
    }
}

/// A command line that cannot be parsed. `message` is in Go's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misuse {
    pub message: String,
    pub hint: String,
}

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// Parses the words after the program's name.
pub(super) fn read_args(args: &[OsString]) -> Result<Given, Misuse> {
    if let Some(arg) = args.iter().find(|arg| arg.to_str().is_none()) {
        return Err(Misuse {
            message: format!("not in UTF-8: {}", arg.to_string_lossy()),
            hint: "flags and their values, paths too, must be written in UTF-8".to_owned(),
        });
    }
    let matches = options().parse(args).map_err(|fail| misuse(&fail))?;
    let mut given = Given {
        strays: matches.free.clone(),
        ..Given::default()
    };
    for flag in FLAGS {
        let Some(&last) = matches.opt_positions(flag.name).last() else {
            continue;
        };
        // A boolean flag that stands alone has a position but no value.
        let with_value = matches.opt_strs_pos(flag.name).into_iter().next_back();
        let value = with_value
            .filter(|(at, _)| *at == last)
            .map_or("true".into(), |(_, v)| v);
        given.values.insert(flag.name, (value, Source::CommandLine));
    }
    Ok(given)
}

fn options() -> Options {
    let mut options = Options::new();
    options
        .long_only(true)
        .parsing_style(ParsingStyle::StopAtFirstFree);
    for flag in FLAGS {
        let has_arg = match flag.kind {
            Kind::Bool => HasArg::Maybe, // a long flag never takes the next word
            _ => HasArg::Yes,
        };
        // A name of one character is a short flag for getopts. Both kinds work with one dash or two.
        let (short, long) = match flag.name {
            "help" => ("h", "help"),
            name if name.len() == 1 => (name, ""),
            name => ("", name),
        };
        options.opt(short, long, "", "", has_arg, Occur::Multi);
    }
    options
}

fn misuse(fail: &Fail) -> Misuse {
    match fail {
        Fail::UnrecognizedOption(name) if name.is_empty() || name.starts_with('-') => Misuse {
            message: format!("bad flag syntax: --{name}"),
            hint: "type --flag=value or --flag value".to_owned(),
        },
        Fail::UnrecognizedOption(name) => Misuse {
            message: format!("flag provided but not defined: -{name}"),
            hint: match nearest(name) {
                Some(flag) => format!("did you mean --{flag}?"),
                None => "--help lists all flags".to_owned(),
            },
        },
        Fail::ArgumentMissing(name) => Misuse {
            message: format!("flag needs an argument: -{name}"),
            hint: format!("type --{name}=VALUE"),
        },
        other => Misuse {
            message: other.to_string(),
            hint: "--help lists all flags".to_owned(),
        },
    }
}

/// Returns the flag that is most similar to a mistyped name, if one is similar enough.
fn nearest(name: &str) -> Option<&'static str> {
    let close = |flag: &Flag| (distance(name, flag.name), flag.name);
    let (edits, flag) = FLAGS.iter().map(close).min()?;
    (edits <= 2 && edits * 3 <= name.len()).then_some(flag)
}

/// Levenshtein's edit distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Adds the environment variables of flags that are not on the command line.
///
/// # Errors
/// Fails if the value of a variable is not in UTF-8.
pub(super) fn read_env(
    given: &mut Given,
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), Misuse> {
    let mut variables: Vec<(OsString, OsString)> = env
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ETCD_"))
        .collect();
    variables.sort_unstable();
    variables
        .iter()
        .try_for_each(|(name, value)| read_variable(given, name, value))
}

fn read_variable(given: &mut Given, name: &OsStr, value: &OsStr) -> Result<(), Misuse> {
    let shown = name.to_string_lossy();
    let Some(flag) = FLAGS.iter().find(|flag| variable(flag.name) == shown) else {
        // The reference knows this variable too, although it has no flag. It lets the reference start on unsupported
        // processors.
        if shown != "ETCD_UNSUPPORTED_ARCH" {
            given
                .warnings
                .push(format!("unrecognized environment variable {shown}"));
        }
        return Ok(());
    };
    if value.is_empty() {
        return Ok(());
    }
    if given.values.contains_key(flag.name) {
        given.warnings.push(format!(
            "recognized environment variable {shown}, but unused: shadowed by corresponding flag"
        ));
        return Ok(());
    }
    let value = value.to_str().ok_or_else(|| Misuse {
        message: format!("the value of {shown} is not in UTF-8"),
        hint: "flags and their values, paths too, must be written in UTF-8".to_owned(),
    })?;
    given
        .values
        .insert(flag.name, (value.to_owned(), Source::Environment));
    Ok(())
}

/// The environment variable of a flag. `--version` and `--help` have none, because container images set
/// `ETCD_VERSION` for another purpose.
pub(super) fn variable(flag: &str) -> String {
    match flag {
        "version" | "help" => String::new(),
        _ => format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_is_listed_twice() {
        let mut names: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("data-dri"), Some("data-dir"));
        assert_eq!(nearest("nosuchflag"), None);
        assert_eq!(nearest("x"), None);
    }
}
