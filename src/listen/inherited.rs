//! Sockets that a service manager has opened for us and passed on: systemd's socket activation (`LISTEN_FDS`).
//!
//! A listener whose address is that of such a socket takes it instead of opening one. So a port below 1024 needs no privilege of ours, and
//! queries that come while we start wait in the socket. Every worker reads from the same one, where it would otherwise have one of its own.
#![allow(
    unsafe_code,
    reason = "file descriptors come as numbers from the environment"
)]

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use socket2::{SockRef, Type};

/// A socket that was passed on.
struct Inherited {
    address: SocketAddr,
    is_udp: bool,
    socket: OwnedFd,
}

/// All of them, in the order they came. They stay open as long as we run: a reload may want one again.
fn all() -> &'static [Inherited] {
    static ALL: OnceLock<Vec<Inherited>> = OnceLock::new();
    ALL.get_or_init(|| {
        let numbers = match sd_notify::listen_fds() {
            Ok(numbers) => numbers,
            Err(error) => {
                tracing::error!("the sockets that were passed on cannot be used: {error}");
                return Vec::new();
            }
        };
        let sockets = numbers.map(|number| {
            // SAFETY: the service manager says that this descriptor is open and ours; nobody else in this process takes it.
            unsafe { OwnedFd::from_raw_fd(number) }
        });
        sockets.filter_map(inspect).collect()
    })
}

/// What a descriptor is; one that is no socket of ours is closed and named.
fn inspect(socket: OwnedFd) -> Option<Inherited> {
    let found = {
        let socket = SockRef::from(&socket);
        let address = socket.local_addr().ok().and_then(|local| local.as_socket());
        let kind = socket.r#type().ok();
        address.zip(kind)
    };
    match found {
        Some((address, kind)) if kind == Type::DGRAM || kind == Type::STREAM => Some(Inherited {
            address,
            is_udp: kind == Type::DGRAM,
            socket,
        }),
        _ => {
            tracing::warn!("a file was passed on to us that is no UDP or TCP socket; it is closed");
            None
        }
    }
}

/// The addresses there are sockets for, each once.
pub(crate) fn addresses() -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for inherited in all() {
        if !found.contains(&inherited.address) {
            found.push(inherited.address);
        }
    }
    found
}

/// Whether there is a socket of this kind for the address.
pub(crate) fn has(address: SocketAddr, is_udp: bool) -> bool {
    find(address, is_udp).is_some()
}

fn find(address: SocketAddr, is_udp: bool) -> Option<&'static Inherited> {
    all()
        .iter()
        .find(|inherited| inherited.address == address && inherited.is_udp == is_udp)
}

/// The datagram socket for the address, for one worker.
pub(crate) fn udp(address: SocketAddr) -> Option<io::Result<UdpSocket>> {
    let inherited = find(address, true)?;
    Some(own(inherited).map(UdpSocket::from))
}

/// The listening socket for the address, for one worker.
pub(crate) fn tcp(address: SocketAddr) -> Option<io::Result<TcpListener>> {
    let inherited = find(address, false)?;
    Some(own(inherited).map(TcpListener::from))
}

fn own(inherited: &Inherited) -> io::Result<OwnedFd> {
    let socket = inherited.socket.as_fd().try_clone_to_owned()?;
    SockRef::from(&socket).set_nonblocking(true)?;
    Ok(socket)
}
