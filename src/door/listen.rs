//! Listening sockets.

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

const BACKLOG: i32 = 1024;
/// A client whose host has vanished is noticed after about this and three probes more.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Sent bytes that nobody acknowledges for so long end the connection.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(90);

/// A socket that has its address, and that nobody can connect to yet: who tries is refused.
#[derive(Debug)]
pub struct Bound(Socket);

impl Bound {
    /// From now on clients can connect; they wait until they are accepted.
    ///
    /// Errors: the system's, such as another socket with this address that was faster.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)?;
        Ok(self.0.into())
    }
}

/// Listens on `address`, as [`bind`] and [`Bound::listen`] do.
///
/// Errors: the system's, such as an address that is in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address)?.listen()
}

/// Takes `address`. The options set here are inherited by accepted sockets, so that they cost no
/// system call for each connection: no delay for small segments, keepalive for clients whose host has
/// vanished.
///
/// Errors: the system's, such as an address where somebody listens.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `0.0.0.0` and `[::]` can then be listened on side by side.
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.bind(&address.into())?;
    Ok(Bound(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::TcpStream;

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("listen");
        let address = listener.local_addr().expect("address");
        let _client = TcpStream::connect(address).expect("connect");
        let (socket, _) = listener.accept().expect("accept");
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().expect("nodelay") && socket.keepalive().expect("keepalive"));
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().expect("timeout"),
            Some(UNACKNOWLEDGED_MAX)
        );
    }
}
