//! The global options, which precede the command: endpoints, user, output format, time limits.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::Stop;
use super::args::{Opt, Parsed};
use super::client::{Client, Failure, Settings};
use super::command::{HELP, World};
use super::endpoint::Endpoint;
use super::member;
use super::proxy::Proxies;
use super::secret::Secret;
use super::terminal;
use super::tls::{self, Files};

pub(super) const GLOBAL_OPTIONS: &[Opt] = &[
    Opt::text(
        &["endpoints"],
        "servers as http://HOST:PORT, separated by commas",
    ),
    Opt::text(&["endpoint"], "older name of --endpoints"),
    Opt::text(&["peers", "C"], "oldest name of --endpoints"),
    Opt::text(&["output", "o"], "simple (the default), extended or json"),
    Opt::flag(
        &["no-sync"],
        "use only the given endpoints, not all members of the cluster",
    ),
    Opt::flag(&["debug"], "print each request as a curl command"),
    Opt::text(
        &["username", "u"],
        "USER[:PASSWORD]; asks for the password if it is omitted",
    ),
    Opt::duration(&["timeout"], "time limit for one endpoint's response (2s)"),
    Opt::duration(
        &["total-timeout"],
        "time limit for the command, except a watch (5s)",
    ),
    Opt::number(
        &["answer-limit"],
        "largest listing that is read, in MiB (256)",
    ),
    Opt::text(
        &["ca-file"],
        "for https: the CA of the servers; without it, those of this machine",
    ),
    Opt::text(&["cert-file"], "for https: the certificate of this client"),
    Opt::text(&["key-file"], "for https: its key"),
    Opt::text(
        &["discovery-srv", "D"],
        "not supported yet: endpoints from DNS",
    ),
    Opt::flag(&["insecure-discovery"], "accepted, for --discovery-srv"),
    Opt::flag(&["version", "v"], "print the version"),
    HELP,
];

/// Default of `--answer-limit`, in MiB.
const ANSWER_LIMIT: u64 = 256;

const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";

/// Options and the variables that replace them. The first one given counts.
pub(super) const ENDPOINTS: [(&str, &str); 3] = [
    ("endpoints", "ETCDCTL_ENDPOINTS"),
    ("endpoint", "ETCDCTL_ENDPOINT"),
    ("peers", "ETCDCTL_PEERS"),
];

pub(super) const USERNAME: (&str, &str) = ("username", "ETCDCTL_USERNAME");

/// The files of TLS.
pub(super) const TLS_FILES: [(&str, &str); 3] = [
    ("ca-file", "ETCDCTL_CA_FILE"),
    ("cert-file", "ETCDCTL_CERT_FILE"),
    ("key-file", "ETCDCTL_KEY_FILE"),
];

const DISCOVERY: (&str, &str) = ("discovery-srv", "ETCDCTL_DISCOVERY_SRV");

/// The parsed global options.
#[derive(Debug)]
pub(super) struct Globals {
    pub endpoints: Vec<Endpoint>,
    pub output: String,
    pub no_sync: bool,
    pub settings: Settings,
}

impl Globals {
    /// Reads options and variables. Asks for a password if it is missing.
    pub fn new(global: &Parsed, world: &mut World) -> Result<Globals, Stop> {
        let given = |option: &str, variable: &str| {
            let option = global.text(option).map(str::to_owned);
            let some = |text: &String| !text.is_empty();
            option
                .filter(some)
                .or_else(|| (world.env)(variable).filter(some))
        };
        if given(DISCOVERY.0, DISCOVERY.1).is_some() {
            let (option, variable) = DISCOVERY;
            return Err(Stop::Plain(format!(
                "--{option} ({variable}): finding the endpoints by DNS is not supported yet"
            )));
        }
        let file = |(option, variable)| given(option, variable).map(PathBuf::from);
        let [ca, cert, key] = TLS_FILES.map(file);
        let tls_files = Files { ca, cert, key };
        let endpoints = ENDPOINTS
            .iter()
            .find_map(|(option, variable)| given(option, variable));
        let endpoints = endpoints.unwrap_or_else(|| DEFAULT_ENDPOINTS.to_owned());
        let user = given(USERNAME.0, USERNAME.1);
        let time = |option, seconds| {
            let given = global.duration(option);
            given.unwrap_or(Duration::from_secs(seconds))
        };
        Ok(Globals {
            endpoints: Endpoint::parse_list(&endpoints).map_err(Stop::Plain)?,
            output: global.text("output").unwrap_or("simple").to_owned(),
            no_sync: global.flag("no-sync"),
            settings: Settings {
                timeout: time("timeout", 2),
                total_timeout: time("total-timeout", 5),
                authorization: match user {
                    Some(user) => authorization(&user, world)?,
                    None => None,
                },
                listing_bytes: listing_bytes(global)?,
                debug: global.flag("debug"),
                proxies: Proxies::read(world.env),
                tls: tls::open(&tls_files).map_err(Stop::Plain)?,
                tls_files,
            },
        })
    }

    /// Connects only to the given endpoints.
    pub fn given_endpoints(&self, err: &mut dyn Write) -> Result<Client, Stop> {
        let client = Client::new(self.endpoints.clone(), self.settings.clone());
        self.tell_endpoints(&client, err)?;
        Ok(client)
    }

    /// Connects to all endpoints of the cluster: asks the given ones for the members first, unless `--no-sync` is
    /// given. Fails with status 2 if no connection could be made. After any other error the endpoints stay as given,
    /// and the command itself reports the error.
    pub fn connect(&self, err: &mut dyn Write) -> Result<Client, Stop> {
        self.connect_to(self.endpoints.clone(), err)
    }

    /// As [`Globals::connect`], with other endpoints.
    pub fn connect_to(
        &self,
        endpoints: Vec<Endpoint>,
        err: &mut dyn Write,
    ) -> Result<Client, Stop> {
        let mut client = Client::new(endpoints, self.settings.clone());
        if self.no_sync {
            self.tell_endpoints(&client, err)?;
            return Ok(client);
        }
        let debug = self.settings.debug;
        if debug {
            let given = listed(&client.endpoints, ",");
            writeln!(err, "start to sync cluster using endpoints({given})")?;
        }
        match member::client_urls(&client) {
            Ok(urls) if urls.is_empty() => return Err(nothing_published(&client, err)?),
            Ok(urls) => client.move_to(urls),
            Err(failure) if failure.is_unconnected() => return Err(Stop::Unconnected(failure)),
            Err(_) => {}
        }
        if debug {
            let found = listed(&client.endpoints, ",");
            writeln!(err, "got endpoints({found}) after sync")?;
        }
        self.tell_endpoints(&client, err)?;
        Ok(client)
    }

    pub fn tell_endpoints(&self, client: &Client, err: &mut dyn Write) -> std::io::Result<()> {
        if !self.settings.debug {
            return Ok(());
        }
        writeln!(
            err,
            "Cluster-Endpoints: {}",
            listed(&client.endpoints, ", ")
        )
    }
}

fn listing_bytes(global: &Parsed) -> Result<u64, Stop> {
    let given = global.number("answer-limit");
    let mib = given.map_or(Ok(ANSWER_LIMIT), u64::try_from);
    let bytes = mib.ok().and_then(|mib| mib.checked_mul(1 << 20));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| Stop::Plain("--answer-limit: a number of MiB, at least 1".to_owned()))
}

fn nothing_published(client: &Client, err: &mut dyn Write) -> Result<Stop, Stop> {
    let given = listed(&client.endpoints, ",");
    writeln!(
        err,
        "etcd cluster has no published client endpoints.\n\
         Try '--no-sync' if you want to access non-published client endpoints({given})."
    )?;
    Ok(Stop::Failed(Failure::NoEndpoints))
}

fn listed(urls: &[Endpoint], between: &str) -> String {
    let texts: Vec<&str> = urls.iter().map(Endpoint::as_str).collect();
    texts.join(between)
}

/// The value of the header `Authorization` for `USER[:PASSWORD]`. None for an empty name, as in etcdctl.
fn authorization(user: &str, world: &mut World) -> Result<Option<Secret>, Stop> {
    let pair = if user.contains(':') {
        user.to_owned()
    } else {
        format!("{user}:{}", terminal::ask_password("Password: ", world)?)
    };
    Ok((!pair.starts_with(':')).then(|| Secret::basic(pair.as_bytes())))
}
