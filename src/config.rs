//! Flags and environment to a checked [`Config`].
//!
//! The flags are etcd's, since existing command lines, unit files and container images are what
//! this server is started with; a few of our own stand beside them. Three things may come out of
//! reading them:
//!
//! | outcome | for | status |
//! |---|---|---|
//! | a [`Config`], with warnings | everything that can start | |
//! | a [`Stop`] with text for stdout | `--help`, `--version` | 0 |
//! | a [`Stop`] with a message for stderr | a flag that is none, a value that cannot be read | 2 |
//! | the same | a value that can be read but not used; anything wrong in the environment | 1 |
//!
//! A message keeps the reference's words, where it has some, and a second line says what to type.
//!
//! A flag that only means something to the v3 API is accepted with a warning; one that asks for
//! something a user would miss (TLS, discovery, a proxy, a file of flags) is refused, never ignored.
//!
//! What only matters on the very first start (`--initial-*`) is checked by [`check_first_start`],
//! which its caller leaves out when the data directory already holds a member.

mod first_start;
mod flags;
mod help;
mod values;

use std::ffi::OsString;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::first_start::check_first_start;

use self::flags::{FLAGS, Given, Kind, Misuse, Role};
use self::values::Values;
use crate::allowed::Allowed;
use crate::logging::Format;
use crate::urls::{Scheme, Url};

/// Everything a node is started with, checked. Plain data; [`Config::default`] is what no flags at
/// all give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Not empty; without `,` and `=`.
    pub name: String,
    /// May not exist yet.
    pub data_dir: PathBuf,
    /// `None`: inside the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries from one snapshot to the next. At least 1.
    pub snapshot_count: u64,
    /// More than 0.
    pub heartbeat_interval: Duration,
    /// At least 5 heartbeats, at most 50 s. A node waits a random one to two times this long.
    pub election_timeout: Duration,
    /// Files to keep; 0 keeps all.
    pub max_snapshots: usize,
    /// Files to keep; 0 keeps all.
    pub max_wals: usize,
    /// Events kept for `waitIndex`. At least 1.
    pub watch_history: usize,
    /// Bytes that those may have together; None: a sixteenth of the disk.
    pub watch_history_bytes: Option<u64>,
    /// http, with an IP address or `localhost`, see [`Config::client_addresses`]; or unix.
    pub listen_client_urls: Vec<Url>,
    /// The same for whoever watches this process.
    pub listen_metrics_urls: Vec<Url>,
    /// The same for other members; see [`Config::peer_addresses`].
    pub listen_peer_urls: Vec<Url>,
    /// http or https: a proxy in front may add the TLS.
    pub advertise_client_urls: Vec<Url>,
    /// http; with [`Config::initial_cluster`] what this member's id is made from.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The founders, sorted by name, each with its sorted URLs. Empty if the text below cannot be
    /// read, which [`check_first_start`] reports.
    pub initial_cluster: Vec<(String, Vec<Url>)>,
    /// `--initial-cluster` as it was given.
    pub initial_cluster_text: String,
    /// What a first start is. Checked and kept; no start depends on it yet.
    pub initial_cluster_state: ClusterState,
    /// Goes into the ids of the founders.
    pub initial_cluster_token: String,
    /// Refuse a change of the members that could cost the quorum.
    pub strict_reconfig_check: bool,
    /// Drop all other members and go on alone.
    pub force_new_cluster: bool,
    /// Origins that browsers may write from. Off by default.
    pub cors: Allowed,
    /// Names that a Host header may have. Any by default.
    pub host_whitelist: Allowed,
    /// Lines of this gravity and graver are shown.
    pub log_level: log::LevelFilter,
    /// How a line on stderr is written.
    pub log_format: Format,
    /// One line each, to be logged once there is a log.
    pub warnings: Vec<String>,
}

/// What a first start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// All of the initial cluster start for the first time.
    New,
    /// A running cluster has added this member.
    Existing,
}

/// Why no node is started, and what the process prints before it exits with `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The process's exit status.
    pub status: u8,
    /// What was asked for with `--help` or `--version`; else empty.
    pub stdout: String,
    /// Message, hint and perhaps the usage, ending with a newline; empty with status 0.
    pub stderr: String,
}

impl Stop {
    /// Something the user has to change before a node can start (status 1). `hint` says how.
    pub fn fatal(reason: impl Display, hint: &str) -> Stop {
        Stop::with_message(1, &format!("edgetcd: {reason}"), hint, "")
    }

    fn verify(reason: &str, hint: &str) -> Stop {
        Stop::fatal(
            format!("error verifying flags, {reason}. See 'edgetcd --help'."),
            hint,
        )
    }

    fn usage(message: &str, hint: &str) -> Stop {
        Stop::with_message(2, message, hint, help::USAGE)
    }

    fn with_message(status: u8, message: &str, hint: &str, usage: &str) -> Stop {
        let hint = if hint.is_empty() {
            String::new()
        } else {
            format!("  {hint}\n")
        };
        let stderr = format!("{message}\n{hint}{usage}");
        Stop {
            status,
            stdout: String::new(),
            stderr,
        }
    }

    fn print(stdout: String) -> Stop {
        Stop {
            status: 0,
            stdout,
            stderr: String::new(),
        }
    }
}

impl From<Misuse> for Stop {
    fn from(misuse: Misuse) -> Stop {
        Stop::usage(&misuse.message, &misuse.hint)
    }
}

impl Default for Config {
    fn default() -> Config {
        match Config::from_args(&[], std::iter::empty()) {
            Ok(config) => config,
            Err(stop) => unreachable!("no flags at all are a valid command line: {}", stop.stderr),
        }
    }
}

impl Config {
    /// Reads `args`, the words behind the program's name, and then `env` for what they leave open.
    ///
    /// # Errors
    /// A [`Stop`] when there is nothing to start: help or version were asked for, or something
    /// given cannot be used.
    pub fn from_args(
        args: &[OsString],
        env: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Config, Stop> {
        let mut given = flags::read_args(args)?;
        stop_to_print(&Values::new(&given))?;
        flags::read_env(&mut given, env)
            .map_err(|misuse| Stop::verify(&misuse.message, &misuse.hint))?;
        let mut config = read(&given)?;
        check_strays(&given)?;
        let values = Values::new(&given);
        refuse(&values)?;
        check(&config)?;
        check_advertised(&values)?;
        config.warnings.extend(warnings(&config, &values)?);
        Ok(config)
    }

    /// Where to listen for clients, each address once.
    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.listen_client_urls)
    }

    /// The sockets to listen on for clients.
    pub fn client_sockets(&self) -> Vec<&Path> {
        sockets(&self.listen_client_urls)
    }

    /// Where to serve numbers only, each address once.
    pub fn metrics_addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.listen_metrics_urls)
    }

    /// The sockets to serve numbers on.
    pub fn metrics_sockets(&self) -> Vec<&Path> {
        sockets(&self.listen_metrics_urls)
    }

    /// Where to listen for other members, each address once.
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.listen_peer_urls)
    }
}

fn addresses(urls: &[Url]) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = urls.iter().filter_map(Url::listen_address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn sockets(urls: &[Url]) -> Vec<&Path> {
    urls.iter().filter_map(Url::socket_path).collect()
}

fn stop_to_print(values: &Values) -> Result<(), Stop> {
    if values.boolean("help")? {
        return Err(Stop::print(help::help()));
    }
    if values.boolean("version")? {
        return Err(Stop::print(help::version()));
    }
    Ok(())
}

/// Everything that was given as the types it stands for; nothing is compared yet.
fn read(given: &Given) -> Result<Config, Stop> {
    let values = Values::new(given);
    let name = values.text("name").to_owned();
    let listen_peer_urls = values.urls("listen-peer-urls")?;
    let initial_advertise_peer_urls = advertised_peer_urls(&values, &listen_peer_urls)?;
    let initial_cluster_text = match values.some_text("initial-cluster") {
        Some(text) => text.to_owned(),
        None => first_start::alone(&name, &initial_advertise_peer_urls),
    };
    let data_dir = values
        .some_text("data-dir")
        .map_or(format!("{name}.etcd"), Into::into);
    let (watch_history, watch_history_bytes) = values.one_or_two("watch-history")?;
    Ok(Config {
        data_dir: data_dir.into(),
        wal_dir: values.some_text("wal-dir").map(Into::into),
        snapshot_count: match values.uint("snapshot-count")? {
            0 => 100_000, // the reference takes its default, too
            count => count,
        },
        heartbeat_interval: Duration::from_millis(values.uint("heartbeat-interval")?),
        election_timeout: Duration::from_millis(values.uint("election-timeout")?),
        max_snapshots: to_usize(values.uint("max-snapshots")?),
        max_wals: to_usize(values.uint("max-wals")?),
        watch_history: to_usize(watch_history),
        watch_history_bytes,
        listen_client_urls: values.urls("listen-client-urls")?,
        listen_metrics_urls: match values.is_given("listen-metrics-urls") {
            true => values.urls("listen-metrics-urls")?,
            false => Vec::new(),
        },
        listen_peer_urls,
        advertise_client_urls: values.urls("advertise-client-urls")?,
        initial_advertise_peer_urls,
        initial_cluster: first_start::parse_cluster(&initial_cluster_text).unwrap_or_default(),
        initial_cluster_text,
        initial_cluster_state: values.choice(
            "initial-cluster-state",
            &[
                ("new", ClusterState::New),
                ("existing", ClusterState::Existing),
            ],
        )?,
        initial_cluster_token: values.text("initial-cluster-token").to_owned(),
        strict_reconfig_check: values.boolean("strict-reconfig-check")?,
        force_new_cluster: values.boolean("force-new-cluster")?,
        cors: Allowed::parse(values.text("cors"), Allowed::Nobody),
        host_whitelist: Allowed::parse(values.text("host-whitelist"), Allowed::Anybody),
        log_level: log_level(&values)?,
        log_format: values.choice(
            "log-format",
            &[("text", Format::Text), ("json", Format::Json)],
        )?,
        warnings: given.warnings.clone(),
        name,
    })
}

/// A count too large for this machine is as good as no limit.
fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The reference's levels; its `panic` and `fatal` are our `error`. `--debug` wins.
fn log_level(values: &Values) -> Result<log::LevelFilter, Stop> {
    use log::LevelFilter::{Debug, Error, Info, Warn};
    let level = values.choice(
        "log-level",
        &[
            ("debug", Debug),
            ("info", Info),
            ("warn", Warn),
            ("error", Error),
            ("panic", Error),
            ("fatal", Error),
        ],
    )?;
    Ok(if values.boolean("debug")? {
        Debug
    } else {
        level
    })
}

/// `--initial-advertise-peer-urls`; by default localhost, but a member that listens on all
/// addresses (0.0.0.0) advertises this machine's own, as the reference does.
fn advertised_peer_urls(values: &Values, listen: &[Url]) -> Result<Vec<Url>, Stop> {
    let name = "initial-advertise-peer-urls";
    let urls = values.urls(name)?;
    let everywhere = listen.iter().find(|url| url.host() == "0.0.0.0");
    let Some(listen) = everywhere.filter(|_| !values.is_given(name)) else {
        return Ok(urls);
    };
    let own = own_address().map(|ip| format!("http://{}", SocketAddr::new(ip, listen.port())));
    Ok(own
        .and_then(|text| Url::parse(&text).ok())
        .map_or(urls, |url| vec![url]))
}

/// The address this machine has towards the rest of the network, if there is any: that of a
/// datagram socket with a route to a documentation address (RFC 5737). Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn check_strays(given: &Given) -> Result<(), Stop> {
    match given.strays.first() {
        None => Ok(()),
        Some(word) => Err(Stop::verify(
            &format!("'{word}' is not a valid flag"),
            "flags begin with a dash; a boolean takes its value behind '=', as in --debug=false",
        )),
    }
}

/// Flags that ask for what is not here.
fn refuse(values: &Values) -> Result<(), Stop> {
    let discovery = values.is_given("discovery") || values.is_given("discovery-srv");
    if discovery && values.is_given("initial-cluster") {
        return Err(Stop::verify(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery\" or \"discovery-srv\"",
            "leave the discovery flags out: there is no discovery here",
        ));
    }
    if !values.boolean("enable-v2")? {
        return Err(Stop::verify(
            "--enable-v2=false leaves nothing to serve",
            "the v2 API is the only one here: leave the flag out",
        ));
    }
    values.choice("proxy", &[("off", ()), ("readonly", ()), ("on", ())])?;
    for flag in FLAGS {
        let Role::Refused(why) = flag.role else {
            continue;
        };
        let asked = match flag.kind {
            Kind::Bool => values.boolean(flag.name)?,
            Kind::Text => values.is_given(flag.name) && values.text(flag.name) != flag.default,
        };
        let asked = asked && !is_stderr(flag.name, values);
        if asked {
            return Err(Stop::verify(
                &format!("--{} cannot be served", flag.name),
                why,
            ));
        }
    }
    Ok(())
}

/// That log lines go where they go anyway is no wish that cannot be served.
fn is_stderr(flag: &str, values: &Values) -> bool {
    let mut places = values.text(flag).split(',');
    ["log-output", "log-outputs"].contains(&flag)
        && places.all(|place| ["default", "stderr"].contains(&place))
}

/// The checks of the reference, in its order.
fn check(config: &Config) -> Result<(), Stop> {
    check_name(&config.name)?;
    let on_disk = [Scheme::Http, Scheme::Unix];
    check_listen(
        "listen-peer-urls",
        &config.listen_peer_urls,
        &[Scheme::Http],
    )?;
    check_listen("listen-client-urls", &config.listen_client_urls, &on_disk)?;
    check_listen("listen-metrics-urls", &config.listen_metrics_urls, &on_disk)?;
    let peers = &config.initial_advertise_peer_urls;
    check_reachable("initial-advertise-peer-urls", peers, &[Scheme::Http])?;
    let schemes = [Scheme::Http, Scheme::Https, Scheme::Unix, Scheme::Unixs];
    check_reachable(
        "advertise-client-urls",
        &config.advertise_client_urls,
        &schemes,
    )?;
    check_times(
        config.heartbeat_interval.as_millis(),
        config.election_timeout.as_millis(),
    )?;
    if config.watch_history == 0 || config.watch_history_bytes == Some(0) {
        let hint = "type --watch-history=1000";
        return Err(Stop::verify("--watch-history must be >0 (set to 0)", hint));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Stop> {
    if name.is_empty() || name.contains(|c: char| ",=".contains(c) || c.is_control()) {
        return Err(Stop::verify(
            &format!("--name {name:?} must not be empty, nor contain ',' or '='"),
            "type a plain word, such as --name=n1",
        ));
    }
    Ok(())
}

fn check_listen(flag: &str, urls: &[Url], schemes: &[Scheme]) -> Result<(), Stop> {
    for url in urls {
        check_scheme(flag, url, schemes)?;
        if url.listen_address().is_none() && url.socket_path().is_none() {
            return Err(Stop::verify(
                &format!("expected IP in URL for binding ({url})"),
                &format!(
                    "type an IP address of this machine, or 0.0.0.0 for all of them: \
                     --{flag}=http://0.0.0.0:{}",
                    url.port()
                ),
            ));
        }
    }
    Ok(())
}

fn check_reachable(flag: &str, urls: &[Url], schemes: &[Scheme]) -> Result<(), Stop> {
    for url in urls {
        check_scheme(flag, url, schemes)?;
        if url.host().is_empty() {
            return Err(Stop::verify(
                &format!(
                    "--{flag} \"{url}\" must be \"host:port\" (unexpected empty host ({url}))"
                ),
                &format!(
                    "type the address others reach this machine by: --{flag}=http://HOST:PORT"
                ),
            ));
        }
    }
    Ok(())
}

fn check_scheme(flag: &str, url: &Url, schemes: &[Scheme]) -> Result<(), Stop> {
    if schemes.contains(&url.scheme()) {
        return Ok(());
    }
    Err(Stop::verify(
        &format!(
            "--{flag}: {} cannot be served ({url})",
            url.scheme().as_str()
        ),
        &match url.scheme() {
            Scheme::Https | Scheme::Unixs => {
                format!("there is no TLS yet: type --{flag}=http://HOST:PORT")
            }
            _ => {
                format!("members reach each other over the network: type --{flag}=http://HOST:PORT")
            }
        },
    ))
}

/// Both in milliseconds.
fn check_times(heartbeat: u128, election: u128) -> Result<(), Stop> {
    let (reason, hint) = if heartbeat == 0 {
        (
            "--heartbeat-interval must be >0 (set to 0ms)".to_owned(),
            100,
        )
    } else if election == 0 {
        (
            "--election-timeout must be >0 (set to 0ms)".to_owned(),
            1000,
        )
    } else if 5 * heartbeat > election {
        let reason = format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        );
        (reason, 5 * heartbeat)
    } else if election > 50_000 {
        let reason = format!(
            "--election-timeout[{election}ms] is too long, and should be set less than 50000ms"
        );
        (reason, 50_000)
    } else {
        return Ok(());
    };
    let flag = if heartbeat == 0 {
        "heartbeat-interval"
    } else {
        "election-timeout"
    };
    let what = if hint > 50_000 {
        "type a smaller --heartbeat-interval, 10000 at most".to_owned()
    } else {
        format!("type --{flag}={hint}")
    };
    Err(Stop::verify(&reason, &what))
}

/// The last of the reference's checks: who says where to listen must say where that is reached.
fn check_advertised(values: &Values) -> Result<(), Stop> {
    if values.is_given("listen-client-urls") && !values.is_given("advertise-client-urls") {
        return Err(Stop::verify(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            "type the URLs clients reach this member by: --advertise-client-urls=http://HOST:PORT",
        ));
    }
    Ok(())
}

/// What is accepted and does nothing, and what looks like a mistake.
fn warnings(config: &Config, values: &Values) -> Result<Vec<String>, Stop> {
    let mut warnings = Vec::new();
    for flag in FLAGS.iter().filter(|flag| values.is_given(flag.name)) {
        if flag.role == Role::Gone {
            let name = flag.name;
            warnings.push(format!(
                "flag \"-{name}\" is no longer supported - ignoring"
            ));
        }
        let Role::Warned(why) = flag.role else {
            continue;
        };
        let is_so_anyway = match flag.kind {
            Kind::Bool => values.boolean(flag.name)?.to_string() == flag.default,
            Kind::Text => false,
        };
        if !is_so_anyway {
            warnings.push(format!("--{} has no effect: {why}", flag.name));
        }
    }
    let advertised = config
        .initial_advertise_peer_urls
        .iter()
        .chain(&config.advertise_client_urls);
    for url in advertised.filter(|url| ["0.0.0.0", "::"].contains(&url.host())) {
        warnings.push(format!("{url} is advertised, which nobody can connect to"));
    }
    Ok(warnings)
}
