//! The sockets, bound before anything else: a port in use must not leave a directory behind.

use crate::config::{Config, Stop};
use crate::door;
use std::net::{SocketAddr, TcpListener};

pub(super) struct Listeners {
    pub clients: Vec<TcpListener>,
    pub peers: Vec<TcpListener>,
}

impl Listeners {
    pub fn open(config: &Config) -> Result<Listeners, Stop> {
        let all = |addresses: Vec<SocketAddr>| addresses.iter().map(listen).collect();
        let clients: Result<Vec<TcpListener>, Stop> = all(config.client_addresses());
        Ok(Listeners {
            clients: clients?,
            peers: all(config.peer_addresses())?,
        })
    }

    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        self.clients
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }
}

fn listen(address: &SocketAddr) -> Result<TcpListener, Stop> {
    door::listen(*address).map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::AddrInUse => "address already in use".to_owned(),
            std::io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
            _ => error.to_string(),
        };
        Stop::fatal(
            format!("listen tcp {address}: bind: {what}"),
            "another server may run already (see: ss -ltnp); or choose other ports with \
             --listen-client-urls (with --advertise-client-urls) and --listen-peer-urls",
        )
    })
}
