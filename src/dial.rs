//! HTTP requests of this process to others: agents for addresses that the HTTP library cannot reach by itself.
//!
//! The library needs a host name. A link-local address with a zone is not one, and the path of a Unix socket is not one
//! either. For such an address the agent has a resolver that returns its addresses, or a connector that opens the
//! socket.
//!
//! No agent uses a proxy from the environment by default: members reach each other directly, and a proxy meant for web
//! pages would answer in their place. Callers that need a proxy use [`by_proxy`].

mod overhead;
mod proxied;
mod secure;

pub use overhead::{Limited, Overhead};
pub use proxied::by_proxy;
pub use secure::Tls;
#[cfg(feature = "tls")]
pub use secure::{Configs, HandshakeError, error_of};

use crate::urls::{Scheme, Url};
use overhead::Counting;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use ureq::Agent;
use ureq::config::{AutoHeaderValue, Config};
use ureq::http::Uri;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, LazyBuffers, NextTimeout, Transport,
};

/// Largest number of addresses that the library accepts.
const ADDRESSES_MAX: usize = 16;

/// Base configuration: no proxy, and every HTTP status is an answer and not an error.
pub fn config() -> ureq::config::ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(AutoHeaderValue::None)
        .proxy(None)
}

/// Whether `url` needs an agent of its own ([`agent`]).
pub fn is_special(url: &Url) -> bool {
    url.socket_path().is_some() || url.host().contains('%')
}

/// An agent for every URL that is not [special](is_special). `overhead` counts what its connections receive.
pub fn plain_agent(config: Config, tls: &Tls, overhead: &Overhead) -> Agent {
    let connector = DefaultConnector::default()
        .chain(tls.clone())
        .chain(Counting(overhead.clone()));
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// An agent that sends every request to `url`. `overhead` counts what its connections receive.
///
/// # Errors
/// The zone of the address is not an interface of this machine.
pub fn agent(config: Config, url: &Url, tls: &Tls, overhead: &Overhead) -> io::Result<Agent> {
    let counting = Counting(overhead.clone());
    if let Some(path) = url.socket_path() {
        let here = Addresses(vec![SocketAddr::from(([127, 0, 0, 1], 80))]);
        let connector = SocketFile(path.to_owned())
            .chain(tls.clone())
            .chain(counting);
        return Ok(Agent::with_parts(config, connector, here));
    }
    if !is_special(url) {
        return Ok(plain_agent(config, tls, overhead));
    }
    let addresses = Addresses(url.resolve()?);
    let connector = DefaultConnector::default()
        .chain(tls.clone())
        .chain(counting);
    Ok(Agent::with_parts(config, connector, addresses))
}

/// Why a name has no address, if this is the meaning of the error. The standard library has no [`ErrorKind`] for it.
pub fn lookup_failure(error: &io::Error) -> Option<String> {
    let text = error.to_string();
    let why = text.strip_prefix("failed to lookup address information: ")?;
    // These are the texts of glibc and musl. Go's text is the same on every system.
    let is_unknown = ["Name or service not known", "Name does not resolve"].contains(&why);
    Some(if is_unknown { "no such host" } else { why }.to_owned())
}

/// The base of a request's URI that stands for `url`. A server at a Unix socket needs a certificate for `localhost`.
pub fn base(url: &Url) -> String {
    match url.scheme() {
        Scheme::Unix => "http://localhost".to_owned(),
        Scheme::Unixs => "https://localhost".to_owned(),
        Scheme::Http | Scheme::Https => {
            format!("{}://{}", url.scheme().as_str(), url.host_header())
        }
    }
}

/// The addresses to which every name resolves.
#[derive(Debug)]
struct Addresses(Vec<SocketAddr>);

impl Resolver for Addresses {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        let room = ADDRESSES_MAX.min(self.0.len());
        self.0[..room]
            .iter()
            .for_each(|address| addresses.push(*address));
        match room {
            0 => Err(ureq::Error::HostNotFound),
            _ => Ok(addresses),
        }
    }
}

/// Connects to a Unix socket.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Connector for SocketFile {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        let stream = open(&self.0)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Box::new(Connection { stream, buffers })))
    }
}

/// A missing socket file is reported like a port on which nobody listens.
fn open(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => ErrorKind::ConnectionRefused.into(),
        _ => error,
    })
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let limit = timeout.for_write().not_zero().map(|limit| *limit);
        self.stream.set_write_timeout(limit)?;
        let output = &self.buffers.output()[..amount];
        self.stream
            .write_all(output)
            .map_err(|error| late(error, &timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let limit = timeout.for_read().not_zero().map(|limit| *limit);
        self.stream.set_read_timeout(limit)?;
        let count = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.map_err(|error| late(error, &timeout))?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        let nothing = |read: io::Result<usize>| {
            read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        let is_open =
            self.stream.set_nonblocking(true).is_ok() && nothing(self.stream.read(&mut [0]));
        is_open && self.stream.set_nonblocking(false).is_ok()
    }
}

fn late(error: io::Error, timeout: &NextTimeout) -> ureq::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}
