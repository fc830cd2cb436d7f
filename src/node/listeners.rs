//! The listening sockets. They are bound before anything else, so that a port in use does not leave a new directory
//! behind.
//!
//! Clients may connect at once; their requests wait until the node is ready. Other members may connect only when this
//! node knows its identity. The reason: founders that start together ask each other whether they are known
//! ([`super::first_start`]). If a founder accepted such a connection before it can answer, both would wait for each
//! other until the timeout. A refused connection is an answer at once.

use super::tls;
use crate::config::{Config, Place, Stop};
use crate::dial::Tls;
use crate::http1::{self, Bound, Listener, Port, Security, SocketFile};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

pub(super) struct Listeners {
    pub clients: Vec<Port>,
    pub metrics: Vec<Port>,
    /// Removed when the node has stopped.
    pub files: Vec<SocketFile>,
    /// How this member connects to other members.
    pub dialling: Tls,
    peers: Vec<Peer>,
}

/// A port for other members that does not accept connections yet.
struct Peer {
    at: SocketAddr,
    bound: Bound,
    security: Security,
}

impl Listeners {
    pub fn open(config: &Config) -> Result<Listeners, Stop> {
        let mut bound = Bindings::default();
        let clients = bound.bind(&config.client_addresses(), &config.client_sockets())?;
        let metrics = bound.bind(&config.metrics_addresses(), &config.metrics_sockets())?;
        let places = config.peer_addresses();
        let addresses: Vec<SocketAddr> = places.iter().map(|place| place.at).collect();
        let bind_to_members = |place: Place<SocketAddr>| {
            let bound = http1::bind(place.at, &addresses);
            Ok((bound.map_err(|error| taken(place.at, &error))?, place))
        };
        let bound_to_members = places.into_iter().map(bind_to_members);
        let bound_to_members = bound_to_members.collect::<Result<Vec<_>, Stop>>()?;
        // These make files, so they come after the ports.
        let certificates = tls::for_clients(config)?;
        let (peer_certificates, dialling) = tls::for_members(config)?;
        let peer = |(bound, place): (Bound, Place<SocketAddr>)| Peer {
            at: place.at,
            bound,
            security: peer_certificates.security(&place),
        };
        let secure = |bound: Vec<(Listener, Place<()>)>| {
            let port = |(listener, place)| Port {
                listener,
                security: certificates.security(&place),
            };
            bound.into_iter().map(port).collect()
        };
        Ok(Listeners {
            clients: secure(clients),
            metrics: secure(metrics),
            files: bound.files,
            dialling,
            peers: bound_to_members.into_iter().map(peer).collect(),
        })
    }

    /// Starts to accept connections of other members.
    pub fn open_to_peers(&mut self) -> Result<Vec<Port>, Stop> {
        let open = |peer: Peer| {
            let socket = peer.bound.listen();
            let socket = socket.map_err(|error| taken(peer.at, &error))?;
            Ok(Port {
                listener: Listener::Tcp(socket),
                security: peer.security,
            })
        };
        self.peers.drain(..).map(open).collect()
    }
}

/// The files of the Unix sockets that are bound.
#[derive(Default)]
struct Bindings {
    files: Vec<SocketFile>,
}

impl Bindings {
    /// Listens, and returns the kinds of clients beside each listener.
    fn bind(
        &mut self,
        addresses: &[Place<SocketAddr>],
        sockets: &[Place<&Path>],
    ) -> Result<Vec<(Listener, Place<()>)>, Stop> {
        let mut listeners = Vec::new();
        let all: Vec<SocketAddr> = addresses.iter().map(|place| place.at).collect();
        for place in addresses {
            let bound = http1::bind(place.at, &all).and_then(Bound::listen);
            let socket = bound.map_err(|error| taken(place.at, &error))?;
            listeners.push((Listener::Tcp(socket), place.elsewhere(())));
        }
        for place in sockets {
            let bound = http1::listen_unix(place.at);
            let (socket, file) = bound.map_err(|error| no_socket(place.at, &error))?;
            listeners.push((Listener::Unix(socket), place.elsewhere(())));
            self.files.push(file);
        }
        Ok(listeners)
    }
}

fn no_socket(path: &Path, error: &io::Error) -> Stop {
    let folder = path.parent().unwrap_or(Path::new("."));
    let other = "or choose another file with --listen-client-urls";
    let (what, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "address already in use".to_owned(),
            format!("another server may run already (see: ss -lxp); {other}"),
        ),
        io::ErrorKind::AlreadyExists => (
            "the file exists and is not a socket".to_owned(),
            format!("move it away, {other}"),
        ),
        io::ErrorKind::NotFound => (
            "no such file or directory".to_owned(),
            format!("type: mkdir -p {}; {other}", folder.display()),
        ),
        _ => (
            error.to_string(),
            other.trim_start_matches("or ").to_owned(),
        ),
    };
    Stop::fatal(
        format!("listen unix {}: bind: {what}", path.display()),
        &hint,
    )
}

fn taken(address: SocketAddr, error: &io::Error) -> Stop {
    let urls = "--listen-client-urls (with --advertise-client-urls) and --listen-peer-urls";
    let (what, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "address already in use".to_owned(),
            format!(
                "another server may run already (see: ss -ltnp); or choose other ports with {urls}"
            ),
        ),
        io::ErrorKind::AddrNotAvailable => (
            "cannot assign requested address".to_owned(),
            "this machine does not have this address (see: ip addr); 0.0.0.0 means all its addresses"
                .to_owned(),
        ),
        io::ErrorKind::PermissionDenied => (
            "permission denied".to_owned(),
            format!(
                "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose other ports with {urls}"
            ),
        ),
        _ => (
            error.to_string(),
            format!("choose other addresses with {urls}"),
        ),
    };
    Stop::fatal(format!("listen tcp {address}: bind: {what}"), &hint)
}
