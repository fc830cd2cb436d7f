//! HTTP requests of this process to others: agents for addresses that the HTTP library cannot reach by itself.
//!
//! The library needs a host name. A link-local address with a zone is not one, and the path of a Unix socket is not one
//! either. For such an address the agent has a resolver that returns its addresses, or a connector that opens the
//! socket.
//!
//! No agent uses a proxy from the environment by default: members reach each other directly, and a proxy meant for web
//! pages would answer in their place. Callers that need a proxy use [`by_proxy`].

mod proxied;

pub use proxied::by_proxy;

use crate::urls::Url;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use ureq::Agent;
use ureq::config::{AutoHeaderValue, Config};
use ureq::http::Uri;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
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

/// An agent that sends every request to `url`.
///
/// # Errors
/// The zone of the address is not an interface of this machine.
pub fn agent(config: Config, url: &Url) -> io::Result<Agent> {
    if let Some(path) = url.socket_path() {
        let here = Addresses(vec![SocketAddr::from(([127, 0, 0, 1], 80))]);
        return Ok(Agent::with_parts(config, SocketFile(path.to_owned()), here));
    }
    if !is_special(url) {
        return Ok(config.into());
    }
    let addresses = Addresses(url.resolve()?);
    Ok(Agent::with_parts(
        config,
        DefaultConnector::default(),
        addresses,
    ))
}

/// Why a name has no address, if this is the meaning of the error. The standard library has no [`ErrorKind`] for it.
pub fn lookup_failure(error: &io::Error) -> Option<String> {
    let text = error.to_string();
    let why = text.strip_prefix("failed to lookup address information: ")?;
    // These are the texts of glibc and musl. Go's text is the same on every system.
    let is_unknown = ["Name or service not known", "Name does not resolve"].contains(&why);
    Some(if is_unknown { "no such host" } else { why }.to_owned())
}

/// The base of a request's URI that stands for `url`.
pub fn base(url: &Url) -> String {
    match url.socket_path() {
        Some(_) => "http://localhost".to_owned(),
        None => format!("{}://{}", url.scheme().as_str(), url.host_header()),
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
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Connection>, ureq::Error> {
        let stream = open(&self.0)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Connection { stream, buffers }))
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
