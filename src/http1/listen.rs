//! Listening sockets.

use super::secure::Security;
#[cfg(target_os = "linux")]
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

const BACKLOG: i32 = 1024;
/// A client whose host has vanished is noticed after about this time and three more probes. There is no
/// `TCP_USER_TIMEOUT`: the system would also close the connection of a client that lives and reads nothing for that long.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Maximum of unsent bytes in the system's buffer. A client that reads slowly needs less, and a client that does not
/// read would otherwise occupy megabytes of the system's memory.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 256 << 10;

/// A listening socket for clients.
#[derive(Debug)]
pub enum Listener {
    /// An address and a port.
    Tcp(TcpListener),
    /// A file.
    Unix(UnixListener),
}

/// A listening socket, and whether its clients use TLS.
#[derive(Debug)]
pub struct Port {
    /// The socket.
    pub listener: Listener,
    /// With or without TLS.
    pub security: Security,
}

impl Port {
    /// The URLs that clients use: one, or two if TLS is optional.
    pub fn urls(&self) -> Vec<String> {
        let (plain, tls, place) = match &self.listener {
            Listener::Tcp(socket) => {
                let address = socket.local_addr().ok();
                let address = address.map_or_else(String::new, |address| address.to_string());
                ("http", "https", address)
            }
            Listener::Unix(socket) => {
                let address = socket.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                let path = path.unwrap_or(Path::new("")).display().to_string();
                ("unix", "unixs", path)
            }
        };
        let plain = self.security.is_plain().then_some(plain);
        let tls = self.security.is_tls().then_some(tls);
        let schemes = plain.into_iter().chain(tls);
        schemes
            .map(|scheme| format!("{scheme}://{place}"))
            .collect()
    }
}

impl From<Listener> for Port {
    fn from(listener: Listener) -> Port {
        Port {
            listener,
            security: Security::plain(),
        }
    }
}

impl From<TcpListener> for Port {
    fn from(socket: TcpListener) -> Port {
        Listener::Tcp(socket).into()
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Listener {
        Listener::Tcp(socket)
    }
}

/// The file of a Unix socket. Dropping this value removes the file, unless another file has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    /// While this is open, the system assigns the inode number to no other file.
    #[cfg(target_os = "linux")]
    _file: OwnedFd,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_same = inode(&self.path).is_ok_and(|inode| inode == self.inode);
        if is_same && let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("{}: cannot remove the socket: {error}", self.path.display());
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on a Unix socket. The file's mode decides who may connect: 777 without the process's umask, so by default
/// only the owner. The socket file of a killed process is replaced.
///
/// Errors: `AddrInUse` if a process listens there, `AlreadyExists` if the file is not a socket. Otherwise the system's,
/// such as `PermissionDenied` for a socket of another user, whether or not a process listens there.
pub fn listen_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ErrorKind::AlreadyExists.into()),
        Ok(_) => match UnixStream::connect(path).map_err(|error| error.kind()) {
            Ok(_) => return Err(ErrorKind::AddrInUse.into()),
            Err(ErrorKind::ConnectionRefused) => std::fs::remove_file(path)?,
            Err(other) => return Err(other.into()),
        },
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        inode: inode(path)?,
        #[cfg(target_os = "linux")]
        _file: open(
            path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?,
    };
    Ok((listener, file))
}

/// A socket that has its address, but refuses connections.
#[derive(Debug)]
pub struct Bound(Socket);

impl Bound {
    /// Accepts connections from now on. They wait until they are accepted.
    ///
    /// Errors: the system's, for example if another socket was faster to listen on this address.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)?;
        Ok(self.0.into())
    }
}

/// Listens on `address`, like [`bind`] and [`Bound::listen`].
///
/// Errors: the system's, such as an address in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address, &[])?.listen()
}

/// Binds `address`. Accepted sockets inherit the options set here, so that they cost no system call per connection: no
/// delay for small segments, and keepalive to notice clients whose host has vanished.
///
/// The unspecified address of either family (`0.0.0.0`, `[::]`) accepts clients of both families, as in the reference.
/// The exception: if the same list (`others`) contains an address of the other family with this port, each address
/// accepts only its own family. On a machine without IPv6, it accepts IPv4 clients.
///
/// Errors: the system's, such as an address on which a process listens.
pub fn bind(address: SocketAddr, others: &[SocketAddr]) -> io::Result<Bound> {
    let is_other =
        |other: &SocketAddr| other.is_ipv4() != address.is_ipv4() && other.port() == address.port();
    if !address.ip().is_unspecified() || others.iter().any(is_other) {
        return bind_one(address, true);
    }
    let (v4, v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    match bind_one((v6, address.port()).into(), false) {
        Err(error) if is_without_ipv6(&error) => bind_one((v4, address.port()).into(), true),
        other => other,
    }
}

/// Whether the machine has no IPv6, or has it switched off.
fn is_without_ipv6(error: &io::Error) -> bool {
    let kinds = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    kinds
        .iter()
        .any(|kind| error.raw_os_error() == Some(kind.raw_os_error()))
}

fn bind_one(address: SocketAddr, is_one_family: bool) -> io::Result<Bound> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(is_one_family)?;
    }
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(&address.into())?;
    Ok(Bound(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::TcpStream;

    #[test]
    fn both_families_are_served_unless_each_has_an_address() {
        for any in [
            SocketAddr::from(([0; 16], 0)),
            SocketAddr::from(([0; 4], 0)),
        ] {
            let both = bind(any, &[any]).and_then(Bound::listen).expect("listen");
            let port = both.local_addr().expect("address").port();
            TcpStream::connect(("127.0.0.1", port)).expect("IPv4");
            TcpStream::connect(("::1", port)).expect("IPv6");
        }
        let port = free_port();
        let list = [
            SocketAddr::from(([0; 16], port)),
            SocketAddr::from(([0; 4], port)),
        ];
        let listeners = list.map(|address| {
            bind(address, &list)
                .and_then(Bound::listen)
                .expect("listen")
        });
        drop(listeners);
    }

    /// The listener that had this port is closed, so it is free now.
    fn free_port() -> u16 {
        let any = listen(([0; 16], 0).into()).expect("listen");
        any.local_addr().expect("address").port()
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("clients.sock");
        let (first, file) = listen_unix(&path).expect("listen");
        let kind = |error: io::Error| error.kind();
        assert_eq!(
            listen_unix(&path).map_err(kind).err(),
            Some(ErrorKind::AddrInUse)
        );
        // As after kill -9: the socket closes, the file stays.
        drop(first);
        let (second, other_file) = listen_unix(&path).expect("listen again");
        drop(file);
        assert!(path.exists(), "it is another one's by now");
        UnixStream::connect(&path).expect("connect");
        drop((second, other_file));
        assert!(!path.exists());
        std::fs::write(&path, "text").expect("a file");
        assert_eq!(
            listen_unix(&path).map_err(kind).err(),
            Some(ErrorKind::AlreadyExists)
        );
    }

    #[test]
    fn a_socket_of_another_kind_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("syslog.sock");
        let _other = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
        assert!(listen_unix(&path).is_err());
        assert!(path.exists());
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("listen");
        let address = listener.local_addr().expect("address");
        let _client = TcpStream::connect(address).expect("connect");
        let (socket, _) = listener.accept().expect("accept");
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().expect("nodelay") && socket.keepalive().expect("keepalive"));
        // It would cut clients that pause.
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("timeout"), None);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_notsent_lowat().expect("unsent"), UNSENT_BYTES);
    }
}
