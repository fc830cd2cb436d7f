//! The sockets, bound before anything else: a port in use must not leave a directory behind.
//!
//! Clients may connect at once, and wait until the node is ready. Members may not before this node knows who it is:
//! founders that are started together ask each other whether they are known ([`super::first_start`]), and each
//! would wait in vain for the answer of one that waits itself. A refusal is an answer.

use crate::config::{Config, Stop};
use crate::door::{self, Bound};
use std::io;
use std::net::{SocketAddr, TcpListener};

pub(super) struct Listeners {
    pub clients: Vec<TcpListener>,
    peers: Vec<(SocketAddr, Bound)>,
}

impl Listeners {
    pub fn open(config: &Config) -> Result<Listeners, Stop> {
        let (clients, peers) = (config.client_addresses(), config.peer_addresses());
        let listened = |at: SocketAddr| door::listen(at).map_err(|error| taken(at, &error));
        let bound = |at: SocketAddr| Ok((at, door::bind(at).map_err(|error| taken(at, &error))?));
        Ok(Listeners {
            clients: clients
                .into_iter()
                .map(listened)
                .collect::<Result<_, Stop>>()?,
            peers: peers.into_iter().map(bound).collect::<Result<_, Stop>>()?,
        })
    }

    /// Lets members connect.
    pub fn open_to_peers(&mut self) -> Result<Vec<TcpListener>, Stop> {
        let bound = self.peers.drain(..);
        bound
            .map(|(at, socket)| socket.listen().map_err(|error| taken(at, &error)))
            .collect()
    }

    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        self.clients
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }
}

fn taken(address: SocketAddr, error: &io::Error) -> Stop {
    let what = match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        _ => error.to_string(),
    };
    Stop::fatal(
        format!("listen tcp {address}: bind: {what}"),
        "another server may run already (see: ss -ltnp); or choose other ports with \
         --listen-client-urls (with --advertise-client-urls) and --listen-peer-urls",
    )
}
