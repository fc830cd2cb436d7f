//! Reads flags and environment variables into a checked [`Config`].
//!
//! The flags are etcd's, because existing command lines, unit files and container images use them. A few flags are
//! our own. Reading them has one of these outcomes:
//!
//! | outcome | for | status |
//! |---|---|---|
//! | a [`Config`], with warnings | everything that can start | |
//! | a [`Stop`] with text for stdout | `--help`, `--version` | 0 |
//! | a [`Stop`] with a message for stderr | an unknown flag, a value that cannot be parsed | 2 |
//! | the same | a value that can be parsed but not used; any error in the environment | 1 |
//! | the same | this member was removed from its cluster | 3 |
//!
//! A message uses the reference's wording, if the reference has one. A second line says what to type.
//!
//! A flag that only concerns the v3 API is accepted with a warning. Its value is checked
//! nevertheless, because etcd refuses wrong ones. A flag that a user would miss (TLS, discovery, a proxy, a config file)
//! is refused, not ignored.
//!
//! The flags for the very first start (`--initial-*`) are checked by [`check_first_start`]. The caller skips that
//! check if the data directory already contains a member.

mod allowed;
mod first_start;
mod flags;
mod help;
mod ignored;
mod tls;
mod values;

use std::ffi::OsString;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::allowed::Allowed;
pub use self::first_start::check_first_start;

use self::flags::{FLAGS, Given, Kind, Misuse, Role};
use self::values::Values;
use crate::logging::{self, Format};
use crate::tls::Settings;
use crate::urls::{Scheme, Url};

/// All settings of a node, checked. Plain data. [`Config::default`] is the result of no flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Not empty. Contains no `,` and no `=`.
    pub name: String,
    /// The directory may not exist yet.
    pub data_dir: PathBuf,
    /// `None`: inside the data directory.
    pub wal_dir: Option<PathBuf>,
    /// A snapshot is made each time this many entries have been applied. At least 1.
    pub snapshot_count: u64,
    /// More than 0.
    pub heartbeat_interval: Duration,
    /// At least 5 heartbeats, at most 50 s. Each time, a node waits a random time between one and two of these.
    pub election_timeout: Duration,
    /// Number of files to keep. 0 keeps all.
    pub max_snapshots: usize,
    /// Number of files to keep. 0 keeps all.
    pub max_wals: usize,
    /// Number of events kept for `waitIndex`. At least 1.
    pub watch_history: usize,
    /// Maximum total size of these events in bytes. None: a sixteenth of the disk.
    pub watch_history_bytes: Option<u64>,
    /// Scheme http or https with an IP address or `localhost` (see [`Config::client_addresses`]), or unix or unixs.
    pub listen_client_urls: Vec<Url>,
    /// The same for monitoring: serves only metrics and health.
    pub listen_metrics_urls: Vec<Url>,
    /// The same for other members. See [`Config::peer_addresses`].
    pub listen_peer_urls: Vec<Url>,
    /// Certificates of this member for its clients, and those of clients. With `auto`, the node makes them.
    pub client_tls: Settings,
    /// The same for the other members.
    pub peer_tls: Settings,
    /// Scheme http or https: a proxy in front of the server may add TLS.
    pub advertise_client_urls: Vec<Url>,
    /// Scheme http or https. This member's id is computed from these and [`Config::initial_cluster`].
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The initial members, sorted by name, each with its sorted URLs. Empty if the text below cannot be parsed,
    /// which [`check_first_start`] reports.
    pub initial_cluster: Vec<(String, Vec<Url>)>,
    /// `--initial-cluster` as it was given.
    pub initial_cluster_text: String,
    /// Kind of the first start.
    pub initial_cluster_state: ClusterState,
    /// The ids of the initial members are computed from this too.
    pub initial_cluster_token: String,
    /// Refuse a member change that could cost the quorum.
    pub strict_reconfig_check: bool,
    /// Remove all other members and continue alone.
    pub force_new_cluster: bool,
    /// Whether writes are acknowledged before they are on the disk.
    pub no_fsync: NoFsync,
    /// Origins from which browsers may write. None by default.
    pub cors: Allowed,
    /// Allowed names in the Host header. All by default.
    pub host_whitelist: Allowed,
    /// Lines of this level and more severe ones are logged.
    pub log_level: log::LevelFilter,
    /// Format of a log line on stderr.
    pub log_format: Format,
    /// The file to which the trace is appended.
    pub trace: Option<PathBuf>,
    /// One line each. The caller logs them once the logger is set up.
    pub warnings: Vec<String>,
}

/// An address or a file to listen on, and the clients that are served there: without TLS, with TLS, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<P> {
    /// The address or the file.
    pub at: P,
    /// Whether clients without TLS are served.
    pub is_plain: bool,
    /// Whether clients with TLS are served.
    pub is_tls: bool,
}

impl<P> Place<P> {
    /// The same clients at another place.
    pub fn elsewhere<Q>(&self, at: Q) -> Place<Q> {
        Place {
            at,
            is_plain: self.is_plain,
            is_tls: self.is_tls,
        }
    }
}

/// Whether the node works without syncs: `--unsafe-no-fsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoFsync {
    /// Each write is synced before it is acknowledged.
    Off,
    /// No write is synced. Refused for a data directory that was written with syncs.
    ForNewData,
    /// The same, but not refused: the user has typed that data may be lost.
    ForAnyData,
}

/// Kind of the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// All initial members start for the first time.
    New,
    /// A running cluster has added this member.
    Existing,
}

/// The reason why no node is started: the output that the process prints before it exits with `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The process's exit status.
    pub status: u8,
    /// The output of `--help` or `--version`. Otherwise empty.
    pub stdout: String,
    /// The message, a hint and possibly the usage, ending with a newline. Empty if the status is 0.
    pub stderr: String,
}

impl Stop {
    /// An error that the user must correct before a node can start (status 1). `hint` says how.
    pub fn fatal(reason: impl Display, hint: &str) -> Stop {
        Stop::with_message(1, &format!("edgetcd: {reason}"), hint, "")
    }

    /// This node was removed from its cluster (status 3): a supervisor need not start it again. `hint` says what to do.
    pub fn removed(reason: impl Display, hint: &str) -> Stop {
        Stop::with_message(3, &format!("edgetcd: {reason}"), hint, "")
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
    /// Reads `args`, the words after the program's name, and then `env` for the flags that are not in `args`.
    ///
    /// # Errors
    /// Returns a [`Stop`] if no node can be started: the user asked for help or version, or a setting cannot be used.
    pub fn from_args(
        args: &[OsString],
        env: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Config, Stop> {
        let mut given = flags::read_args(args)?;
        stop_to_print(&Values::new(&given))?;
        flags::read_env(&mut given, env)
            .map_err(|misuse| Stop::verify(&misuse.message, &misuse.hint))?;
        let values = Values::new(&given);
        ignored::check_kinds(&values)?;
        let mut config = read(&given)?;
        check_strays(&given)?;
        refuse(&values)?;
        check(&config)?;
        check_advertised(&values)?;
        tls::check(&config)?;
        ignored::check_meanings(&values)?;
        config.warnings.extend(warnings(&config, &values)?);
        Ok(config)
    }

    /// The addresses to listen on for clients, without duplicates.
    pub fn client_addresses(&self) -> Vec<Place<SocketAddr>> {
        places(&self.listen_client_urls, Url::listen_address)
    }

    /// The Unix sockets to listen on for clients.
    pub fn client_sockets(&self) -> Vec<Place<&Path>> {
        places(&self.listen_client_urls, Url::socket_path)
    }

    /// The addresses that serve only metrics and health, without duplicates.
    pub fn metrics_addresses(&self) -> Vec<Place<SocketAddr>> {
        places(&self.listen_metrics_urls, Url::listen_address)
    }

    /// The Unix sockets that serve only metrics and health.
    pub fn metrics_sockets(&self) -> Vec<Place<&Path>> {
        places(&self.listen_metrics_urls, Url::socket_path)
    }

    /// The addresses to listen on for other members, without duplicates.
    pub fn peer_addresses(&self) -> Vec<Place<SocketAddr>> {
        places(&self.listen_peer_urls, Url::listen_address)
    }
}

/// A place may be in two URLs, one with TLS and one without.
fn places<'a, P: Ord + Copy>(urls: &'a [Url], of: impl Fn(&'a Url) -> Option<P>) -> Vec<Place<P>> {
    let mut places: Vec<Place<P>> = Vec::new();
    for url in urls {
        let Some(at) = of(url) else { continue };
        let (is_tls, is_plain) = (url.scheme().has_tls(), !url.scheme().has_tls());
        match places.iter_mut().find(|place| place.at == at) {
            Some(place) => {
                place.is_tls |= is_tls;
                place.is_plain |= is_plain;
            }
            None => places.push(Place {
                at,
                is_plain,
                is_tls,
            }),
        }
    }
    places.sort_unstable_by_key(|place| place.at);
    places
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

/// Parses all settings into their types. Does not compare them yet.
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
            0 => 100_000, // the reference uses its default, too
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
        client_tls: tls::clients(&values)?,
        peer_tls: tls::peers(&values)?,
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
        no_fsync: no_fsync(&values)?,
        cors: Allowed::parse(values.text("cors"), Allowed::Nobody),
        host_whitelist: Allowed::parse(values.text("host-whitelist"), Allowed::Anybody),
        log_level: log_level(&values)?,
        log_format: log_format(&values)?,
        trace: values.some_text("trace").map(Into::into),
        warnings: given.warnings.clone(),
        name,
    })
}

/// The value that allows `--unsafe-no-fsync` for a data directory that was written with syncs.
pub const MAY_LOSE_DATA: &str = "yes-i-may-lose-data";

fn no_fsync(values: &Values) -> Result<NoFsync, Stop> {
    if values.text("unsafe-no-fsync") == MAY_LOSE_DATA {
        return Ok(NoFsync::ForAnyData);
    }
    Ok(match values.boolean("unsafe-no-fsync")? {
        true => NoFsync::ForNewData,
        false => NoFsync::Off,
    })
}

/// A count that is too large for this machine has the effect of no limit.
fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The reference's levels. `panic` and `fatal` are treated as `error`. `--debug` takes precedence, and the levels of
/// `--log-package-levels` over both.
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
    let level = if values.boolean("debug")? {
        Debug
    } else {
        level
    };
    let packages = values.some_text("log-package-levels");
    Ok(packages.map_or(level, |list| package_levels(list, level).unwrap_or(level)))
}

/// The level for a `--log-package-levels`. etcd's packages do not exist here, so one level holds for all modules. It is
/// the most detailed of the list, because then no line is lost that the list asks for. `*` replaces `level`; the other
/// packages can only add lines. `None` if an item is not `package=level`: the reference then ignores the whole list.
fn package_levels(list: &str, level: log::LevelFilter) -> Option<log::LevelFilter> {
    let mut base = level;
    let mut most = log::LevelFilter::Off;
    for item in list.split(',') {
        let (package, word) = item.split_once('=')?;
        let level = logging::etcd_level(word)?;
        match package {
            "*" => base = level,
            _ => most = most.max(level),
        }
    }
    Some(base.max(most))
}

/// `--log-format`, or the format that `--logger` implies: the reference's zap writes JSON.
fn log_format(values: &Values) -> Result<Format, Stop> {
    let implied = match values.text("logger") {
        "zap" => Format::Json,
        "capnslog" => Format::Text,
        other => {
            return Err(Stop::verify(
                &format!("unknown logger option {other:?}"),
                "type --logger=zap for JSON, or --logger=capnslog",
            ));
        }
    };
    let format = values.choice(
        "log-format",
        &[("text", Format::Text), ("json", Format::Json)],
    )?;
    Ok(if values.is_given("log-format") {
        format
    } else {
        implied
    })
}

/// `--initial-advertise-peer-urls`. The default is localhost. A member that listens on all addresses (0.0.0.0)
/// advertises the address of this machine instead, as in the reference.
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

/// The address of this machine in its network, if it has one. It is the local address of a datagram socket that is
/// connected to a documentation address (RFC 5737). Connecting a datagram socket sends no packet.
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
            "flags begin with a dash; the value of a boolean flag follows '=', as in --debug=false",
        )),
    }
}

/// Refuses flags for features that this server does not have.
fn refuse(values: &Values) -> Result<(), Stop> {
    let discovery = values.is_given("discovery") || values.is_given("discovery-srv");
    if discovery && values.is_given("initial-cluster") {
        return Err(Stop::verify(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery\" or \"discovery-srv\"",
            "omit the discovery flags: discovery is not supported",
        ));
    }
    if !values.boolean("enable-v2")? {
        return Err(Stop::verify(
            "--enable-v2=false leaves no API to serve",
            "the v2 API is the only one here: omit the flag",
        ));
    }
    values.choice("proxy", &[("off", ()), ("readonly", ()), ("on", ())])?;
    for flag in FLAGS {
        let Role::Refused(why) = flag.role else {
            continue;
        };
        let asked = match flag.kind {
            Kind::Bool => values.boolean(flag.name)?,
            _ => values.is_given(flag.name) && values.text(flag.name) != flag.default,
        };
        let asked = asked && !is_stderr(flag.name, values);
        if asked {
            return Err(Stop::verify(
                &format!("--{} is not supported", flag.name),
                why,
            ));
        }
    }
    Ok(())
}

/// Returns true if a log output flag only asks for stderr. That is accepted, because log lines always go to stderr.
fn is_stderr(flag: &str, values: &Values) -> bool {
    let mut places = values.text(flag).split(',');
    ["log-output", "log-outputs"].contains(&flag)
        && places.all(|place| ["default", "stderr"].contains(&place))
}

/// Makes the reference's checks, in the same order.
fn check(config: &Config) -> Result<(), Stop> {
    check_name(&config.name)?;
    let to_members = [Scheme::Http, Scheme::Https];
    check_listen("listen-peer-urls", &config.listen_peer_urls, &to_members)?;
    let schemes = [Scheme::Http, Scheme::Https, Scheme::Unix, Scheme::Unixs];
    check_listen("listen-client-urls", &config.listen_client_urls, &schemes)?;
    check_listen("listen-metrics-urls", &config.listen_metrics_urls, &schemes)?;
    let peers = &config.initial_advertise_peer_urls;
    check_reachable("initial-advertise-peer-urls", peers, &to_members)?;
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
            &format!("--name {name:?} must not be empty or contain ',' or '='"),
            "type a name such as --name=n1",
        ));
    }
    Ok(())
}

fn check_listen(flag: &str, urls: &[Url], schemes: &[Scheme]) -> Result<(), Stop> {
    for url in urls {
        check_scheme(flag, url, schemes)?;
        if url.listen_address().is_none() && url.socket_path().is_none() {
            let hint = match url.host().split_once('%') {
                Some((_, zone)) => format!(
                    "{zone} is no network interface of this machine, or cannot be the zone of this \
                     address: see ip -6 addr, and type --{flag}=http://[ADDRESS%25INTERFACE]:{}",
                    url.port()
                ),
                None => format!(
                    "type an IP address of this machine, or 0.0.0.0 for all its addresses: \
                     --{flag}=http://0.0.0.0:{}",
                    url.port()
                ),
            };
            return Err(Stop::verify(
                &format!("expected IP in URL for binding ({url})"),
                &hint,
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
                    "type the address at which others can reach this machine: --{flag}=http://HOST:PORT"
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
            "--{flag}: {} URLs are not supported ({url})",
            url.scheme().as_str()
        ),
        &format!("members connect to each other over the network: type --{flag}=http://HOST:PORT"),
    ))
}

/// Checks both intervals, in milliseconds.
fn check_times(heartbeat: u128, election: u128) -> Result<(), Stop> {
    match refused_times(heartbeat, election) {
        Some((reason, hint)) => Err(Stop::verify(&reason, &hint)),
        None => Ok(()),
    }
}

/// Why a node refuses `--heartbeat-interval` and `--election-timeout`, in milliseconds, and what to type. `None`: it
/// accepts them.
pub fn refused_times(heartbeat: u128, election: u128) -> Option<(String, String)> {
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
        return None;
    };
    let flag = if heartbeat == 0 {
        "heartbeat-interval"
    } else {
        "election-timeout"
    };
    let what = if hint > 50_000 {
        "type a smaller --heartbeat-interval, at most 10000".to_owned()
    } else {
        format!("type --{flag}={hint}")
    };
    Some((reason, what))
}

/// The last of the reference's checks: a server with listen URLs for clients also needs advertised client URLs.
fn check_advertised(values: &Values) -> Result<(), Stop> {
    if values.is_given("listen-client-urls") && !values.is_given("advertise-client-urls") {
        return Err(Stop::verify(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            "type the URLs at which clients can reach this member: --advertise-client-urls=http://HOST:PORT",
        ));
    }
    Ok(())
}

/// Returns warnings about flags that have no effect and about settings that are probably mistakes.
fn warnings(config: &Config, values: &Values) -> Result<Vec<String>, Stop> {
    let mut warnings = tls::warnings(config, values)?;
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
            _ => false,
        };
        if !is_so_anyway {
            warnings.push(format!("--{} has no effect: {why}", flag.name));
        }
    }
    let packages = values.some_text("log-package-levels");
    if packages.is_some_and(|list| package_levels(list, config.log_level).is_none()) {
        warnings.push(
            "--log-package-levels has no effect: its items are PACKAGE=LEVEL, such as etcdserver=DEBUG"
                .to_owned(),
        );
    }
    let advertised = config
        .initial_advertise_peer_urls
        .iter()
        .chain(&config.advertise_client_urls);
    for url in advertised.filter(|url| ["0.0.0.0", "::"].contains(&url.host())) {
        warnings.push(format!(
            "{url} is advertised, but clients and members cannot connect to it"
        ));
    }
    Ok(warnings)
}
