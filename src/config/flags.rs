//! The flags: one table that the parser, the environment and the help text are made from.
//!
//! Flags are read as Go's flag package reads them, since existing command lines are written for
//! it: one or two dashes, `--flag=value` or `--flag value`; a boolean stands alone or takes its
//! value behind `=`, never the next word; a flag that is given again replaces what it said before;
//! the first word that is no flag ends the flags. A flag's variable is its name in capitals with
//! `_` for `-` and `ETCD_` in front; an empty variable counts as unset.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use getopts::{Fail, HasArg, Occur, Options, ParsingStyle};

/// How a flag takes its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bool,
}

/// What a flag is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Does what its help says.
    Ours(&'static str),
    /// Accepted so that command lines of etcd start; the text says why it changes nothing.
    Warned(&'static str),
    /// Refused when it asks for something; the text says what to do instead.
    Refused(&'static str),
    /// A flag of etcd 0.4 and 2, which etcd 3 accepts with any value, and ignores with a note.
    Gone,
}

#[derive(Debug)]
pub(super) struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// As the help text shows it; what is not given is this.
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

use Role::{Gone, Ours, Refused, Warned};

const MEMBER: &str = "Member";
const CLUSTER: &str = "Clustering";
const HTTP: &str = "HTTP";
const LOG: &str = "Logging";
const UNSAFE: &str = "Unsafe";
const OTHER: &str = "Other";

const V3: &str = "it belongs to the v3 API, which is not served";
const NO_TLS: &str = "there is no TLS yet: use http:// URLs, behind a TLS proxy if one is needed";
const NO_DISCOVERY: &str = "there is no discovery: name all members with --initial-cluster";
const NO_PROXY: &str = "there is no proxy mode: point clients at the members themselves";
const TO_STDERR: &str =
    "log lines go to stderr: leave the flag out, and write them to a file with 2>>FILE";
const PROXY_TIMES: &str = "there is no proxy mode";

/// All flags of the reference, and ours, in the order of the help text.
pub(super) const FLAGS: &[Flag] = &[
    text(
        "name",
        "default",
        MEMBER,
        Ours("This member's name, as --initial-cluster has it."),
    ),
    text(
        "data-dir",
        "${name}.etcd",
        MEMBER,
        Ours("Where this member keeps its data. Only one process may use it."),
    ),
    text(
        "wal-dir",
        "",
        MEMBER,
        Ours("Where to keep the log instead, such as on a faster disk."),
    ),
    text(
        "snapshot-count",
        "100000",
        MEMBER,
        Ours("After how many writes a snapshot is made and the log before it is dropped."),
    ),
    text(
        "heartbeat-interval",
        "100",
        MEMBER,
        Ours("How often a leader is heard, in ms."),
    ),
    text(
        "election-timeout",
        "1000",
        MEMBER,
        Ours("How long a silent leader is believed in, in ms: 5 heartbeats or more, up to 50000."),
    ),
    text(
        "listen-peer-urls",
        "http://localhost:2380",
        MEMBER,
        Ours("Where to listen for other members: IP addresses or localhost, comma list."),
    ),
    text(
        "listen-client-urls",
        "http://localhost:2379",
        MEMBER,
        Ours(
            "Where to listen for clients: IP addresses or localhost, or a socket (unix:///run/edgetcd.sock, for whom \
             the umask says), comma list.",
        ),
    ),
    text(
        "listen-metrics-urls",
        "",
        MEMBER,
        Ours("Where to serve /metrics and /health as well, and nothing else, comma list."),
    ),
    text(
        "max-snapshots",
        "5",
        MEMBER,
        Ours("How many snapshots to keep (0: all)."),
    ),
    text(
        "max-wals",
        "5",
        MEMBER,
        Ours("How many log files to keep (0: all). One still needed is never removed."),
    ),
    text(
        "watch-history",
        "1000",
        MEMBER,
        Ours(
            "How many events a watch with waitIndex can look back; with N,BYTES, how many bytes of them, too (a \
             sixteenth of the disk otherwise). etcd has no such flag.",
        ),
    ),
    text(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        CLUSTER,
        Ours("Where the other members reach this one, comma list."),
    ),
    text(
        "initial-cluster",
        "NAME=PEER-URL",
        CLUSTER,
        Ours("All founding members: name=url,name=url. A member with two URLs comes twice."),
    ),
    text(
        "initial-cluster-state",
        "new",
        CLUSTER,
        Ours("'new' to found a cluster, 'existing' to join one that has added this member."),
    ),
    text(
        "initial-cluster-token",
        "etcd-cluster",
        CLUSTER,
        Ours("A word that keeps clusters with the same URLs apart."),
    ),
    text(
        "advertise-client-urls",
        "http://localhost:2379",
        CLUSTER,
        Ours("Where clients reach this member, comma list; needed with --listen-client-urls."),
    ),
    boolean(
        "strict-reconfig-check",
        "true",
        CLUSTER,
        Ours("Refuse changes of the members that could cost the quorum."),
    ),
    text(
        "cors",
        "",
        HTTP,
        Ours("Origins whose web pages may use this API, comma list; '*' is any. Empty: none."),
    ),
    text(
        "host-whitelist",
        "*",
        HTTP,
        Ours("Host names that requests may be for, comma list; '*' or empty: any."),
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
        Ours("text or json. etcd has no such flag."),
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
        Ours("Drop all other members and go on alone with the data that is here."),
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
        Ours("Print this and exit; also -h."),
    ),
    // Refused: what they ask for is not here, and a node without it is not what was meant.
    text(
        "config-file",
        "",
        OTHER,
        Refused("give flags or ETCD_* variables instead"),
    ),
    text("discovery", "", CLUSTER, Refused(NO_DISCOVERY)),
    text("discovery-srv", "", CLUSTER, Refused(NO_DISCOVERY)),
    text("discovery-srv-name", "", CLUSTER, Refused(NO_DISCOVERY)),
    text("discovery-proxy", "", CLUSTER, Refused(NO_DISCOVERY)),
    text("proxy", "off", OTHER, Refused(NO_PROXY)),
    text("cert-file", "", HTTP, Refused(NO_TLS)),
    text("key-file", "", HTTP, Refused(NO_TLS)),
    text("ca-file", "", HTTP, Refused(NO_TLS)),
    boolean("client-cert-auth", "false", HTTP, Refused(NO_TLS)),
    text("client-crl-file", "", HTTP, Refused(NO_TLS)),
    text("client-cert-allowed-hostname", "", HTTP, Refused(NO_TLS)),
    text("trusted-ca-file", "", HTTP, Refused(NO_TLS)),
    boolean("auto-tls", "false", HTTP, Refused(NO_TLS)),
    text("peer-cert-file", "", HTTP, Refused(NO_TLS)),
    text("peer-key-file", "", HTTP, Refused(NO_TLS)),
    text("peer-ca-file", "", HTTP, Refused(NO_TLS)),
    boolean("peer-client-cert-auth", "false", HTTP, Refused(NO_TLS)),
    text("peer-trusted-ca-file", "", HTTP, Refused(NO_TLS)),
    text("peer-cert-allowed-cn", "", HTTP, Refused(NO_TLS)),
    text("peer-cert-allowed-hostname", "", HTTP, Refused(NO_TLS)),
    boolean("peer-auto-tls", "false", HTTP, Refused(NO_TLS)),
    text("peer-crl-file", "", HTTP, Refused(NO_TLS)),
    text("cipher-suites", "", HTTP, Refused(NO_TLS)),
    boolean(
        "unsafe-no-fsync",
        "false",
        UNSAFE,
        Refused("a write is acknowledged only once it is synced: leave the flag out"),
    ),
    // Accepted: a command line that has them starts and does what it did, as far as v2 goes.
    boolean(
        "enable-v2",
        "true",
        OTHER,
        Ours("The v2 API. There is no other, so =false is refused."),
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
        Warned("a node that is alone leads at once"),
    ),
    text(
        "discovery-fallback",
        "proxy",
        OTHER,
        Warned("there is no discovery"),
    ),
    text("proxy-failure-wait", "5000", OTHER, Warned(PROXY_TIMES)),
    text(
        "proxy-refresh-interval",
        "30000",
        OTHER,
        Warned(PROXY_TIMES),
    ),
    text("proxy-dial-timeout", "1000", OTHER, Warned(PROXY_TIMES)),
    text("proxy-write-timeout", "5000", OTHER, Warned(PROXY_TIMES)),
    text("proxy-read-timeout", "0", OTHER, Warned(PROXY_TIMES)),
    text("quota-backend-bytes", "0", OTHER, Warned(V3)),
    text("backend-batch-interval", "", OTHER, Warned(V3)),
    text("backend-batch-limit", "0", OTHER, Warned(V3)),
    text("backend-bbolt-freelist-type", "map", OTHER, Warned(V3)),
    text("max-txn-ops", "128", OTHER, Warned(V3)),
    text(
        "max-request-bytes",
        "1572864",
        OTHER,
        Warned("a v2 request may hold 10 MiB"),
    ),
    text("max-concurrent-streams", "", OTHER, Warned(V3)),
    text("grpc-keepalive-min-time", "5s", OTHER, Warned(V3)),
    text("grpc-keepalive-interval", "2h", OTHER, Warned(V3)),
    text("grpc-keepalive-timeout", "20s", OTHER, Warned(V3)),
    text("auto-compaction-retention", "0", OTHER, Warned(V3)),
    text("auto-compaction-mode", "periodic", OTHER, Warned(V3)),
    text("auth-token", "simple", OTHER, Warned(V3)),
    text("auth-token-ttl", "300", OTHER, Warned(V3)),
    text("bcrypt-cost", "10", OTHER, Warned(V3)),
    boolean(
        "enable-pprof",
        "false",
        OTHER,
        Warned("there is no Go runtime to look into"),
    ),
    text(
        "metrics",
        "basic",
        OTHER,
        Warned("/metrics always shows all there is"),
    ),
    text("logger", "", OTHER, Warned("see --log-format")),
    text("log-output", "default", OTHER, Refused(TO_STDERR)),
    text("log-outputs", "default", OTHER, Refused(TO_STDERR)),
    text("log-package-levels", "", OTHER, Warned("see --log-level")),
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
    boolean("v", "", OTHER, Gone),
    boolean("vv", "", OTHER, Gone),
    boolean(
        "experimental-initial-corrupt-check",
        "false",
        OTHER,
        Warned(V3),
    ),
    text("experimental-corrupt-check-time", "0s", OTHER, Warned(V3)),
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
    text(
        "experimental-compaction-batch-limit",
        "1000",
        OTHER,
        Warned(V3),
    ),
    boolean(
        "experimental-peer-skip-client-san-verification",
        "false",
        OTHER,
        Warned(V3),
    ),
    text(
        "experimental-watch-progress-notify-interval",
        "10m",
        OTHER,
        Warned(V3),
    ),
    text(
        "experimental-warning-apply-duration",
        "100ms",
        OTHER,
        Warned(V3),
    ),
];

/// Where a value comes from: bad ones are named, and answered, by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    CommandLine,
    Environment,
}

/// The values that were given, the last one of each flag.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: BTreeMap<&'static str, (String, Source)>,
    /// Words that are no flags, and all behind the first of them.
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

/// A command line that cannot be read. `message` in Go's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misuse {
    pub message: String,
    pub hint: String,
}

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// Reads the words behind the program's name.
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
        // A boolean that stands alone has a position but no value.
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
            Kind::Text => HasArg::Yes,
            Kind::Bool => HasArg::Maybe, // a long one never takes the next word
        };
        // A name of one letter is a short one to getopts; both are written with one dash or two.
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

/// The flag that a mistyped name comes closest to, if it is close.
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

/// Adds what the environment says about flags that the command line leaves open.
///
/// # Errors
/// A variable whose value is not in UTF-8.
pub(super) fn read_env(
    given: &mut Given,
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), Misuse> {
    let mut variables: Vec<(OsString, OsString)> = env
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ETCD_"))
        .collect();
    variables.sort();
    variables
        .iter()
        .try_for_each(|(name, value)| read_variable(given, name, value))
}

fn read_variable(given: &mut Given, name: &OsStr, value: &OsStr) -> Result<(), Misuse> {
    let shown = name.to_string_lossy();
    let Some(flag) = FLAGS.iter().find(|flag| variable(flag.name) == shown) else {
        // The one that the reference knows besides its flags: it lets it start on odd processors.
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

/// A flag's environment variable. `--version` and `--help` have none: images set `ETCD_VERSION` to
/// something else.
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
