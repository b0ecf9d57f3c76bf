//! Opens the sockets of listeners.
//!
//! Every worker has a socket of its own per address, tied together by SO_REUSEPORT. That option would also tie us to a stranger's socket of
//! the same user without a word, so before the first sockets of an address are opened, a probe without it is bound and closed: a port that
//! anyone holds is an error that names the holder.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::limits::{PORT_TRIES, RECEIVE_BUFFER_OCTETS};
use crate::listen::inherited;
use crate::listen::mmsg::PacketInfo;
use crate::system;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The sockets of one worker for one address.
pub(crate) struct Pair {
    /// For datagrams.
    pub(crate) udp: UdpSocket,
    /// For connections.
    pub(crate) tcp: TcpListener,
}

/// What is asked of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// UDP and TCP with the same port.
    Dns,
    /// TCP only.
    Http,
}

/// Finds out where to bind: the address with a port that is free, and whether the system has IPv6 where it is meant for both families.
pub(crate) fn probe(address: SocketAddr, kind: Kind) -> Result<SocketAddr, String> {
    let mut last = String::new();
    let tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    for _ in 0..tries {
        match try_probe(address, kind) {
            Ok(found) => return Ok(found),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn try_probe(address: SocketAddr, kind: Kind) -> Result<SocketAddr, String> {
    let address = usable(address);
    let mut found = address;
    let mut held = Vec::new();
    // What was passed on to us is bound already, by us.
    let is_ours = |is_udp| kind == Kind::Dns && inherited::has(address, is_udp);
    if kind == Kind::Dns && !is_ours(true) {
        match bind(found, Type::DGRAM, false).and_then(|socket| local(&socket)) {
            Ok(local) => found = local,
            Err(error) => held.push(Held {
                address: found,
                is_udp: true,
                error,
            }),
        }
    }
    // The listening state is what a second listener collides with.
    let tcp = match is_ours(false) {
        true => Ok(found),
        false => bind(found, Type::STREAM, false).and_then(|socket| {
            socket.listen(1)?;
            local(&socket)
        }),
    };
    match tcp {
        Ok(local) => found = local,
        Err(error) => held.push(Held {
            address: found,
            is_udp: false,
            error,
        }),
    }
    for held in held {
        held.judge()?;
    }
    Ok(found)
}

/// Opens a worker's sockets for an address that was probed, or that the running generation has.
pub(crate) fn pair(address: SocketAddr) -> io::Result<Pair> {
    let udp = match inherited::udp(address) {
        Some(udp) => udp?,
        None => bind(address, Type::DGRAM, true)?.into(),
    };
    // Where it is refused, the kernel's default has to do.
    system::set_receive_buffer(udp.as_fd(), RECEIVE_BUFFER_OCTETS).ok();
    system::omit_path_mtu(udp.as_fd(), address.is_ipv6()).ok();
    system::ask_packet_info(udp.as_fd(), packet_info(address))?;
    let tcp = match inherited::tcp(address) {
        Some(tcp) => tcp?,
        None => {
            let tcp = bind(address, Type::STREAM, true)?;
            tcp.listen(BACKLOG)?;
            tcp.into()
        }
    };
    Ok(Pair { udp, tcp })
}

/// Opens the socket of an HTTP endpoint whose address was probed.
pub(crate) fn http(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The packet information that a socket bound to this address needs.
pub(crate) fn packet_info(address: SocketAddr) -> PacketInfo {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => PacketInfo::V4,
        IpAddr::V6(ip) if ip.is_unspecified() => PacketInfo::V6,
        _ => PacketInfo::None,
    }
}

/// The unspecified IPv6 address stands for both families; without IPv6 that is IPv4's.
fn usable(address: SocketAddr) -> SocketAddr {
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        let works = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
            .and_then(|socket| socket.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into()));
        if works.is_err() {
            return SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        }
    }
    address
}

fn bind(address: SocketAddr, kind: Type, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier process that linger in TIME_WAIT are no reason not to start.
        socket.set_reuse_address(true)?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    let address = SockRef::from(socket).local_addr()?;
    address
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no Internet address"))
}

//--- Who holds it ----------------------------------------------------------------------------------

/// An address that could not be bound.
struct Held {
    address: SocketAddr,
    is_udp: bool,
    error: io::Error,
}

impl Held {
    /// An error, unless it is ourselves who hold the port: the running generation with an address beside or around this one.
    fn judge(self) -> Result<(), String> {
        let Held {
            address,
            is_udp,
            error,
        } = self;
        let protocol = if is_udp { "udp" } else { "tcp" };
        let what = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let holders = holders(address, is_udp);
                let own = std::process::id();
                if !holders.is_empty() && holders.iter().all(|holder| holder.process == Some(own)) {
                    return Ok(());
                }
                let mut names: Vec<String> = holders.iter().map(Holder::describe).collect();
                names.sort();
                names.dedup();
                match names.is_empty() {
                    true => "the port is in use; choose another one".to_owned(),
                    false => format!(
                        "the port is in use by {}; stop it or choose another port or address",
                        names.join(", ")
                    ),
                }
            }
            io::ErrorKind::PermissionDenied if address.port() < 1024 && address.port() > 0 => {
                "permission denied: a port below 1024 needs root, CAP_NET_BIND_SERVICE, or a lower net.ipv4.ip_unprivileged_port_start"
                    .to_owned()
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has this address".to_owned()
            }
            _ => error.to_string(),
        };
        Err(format!("cannot listen on {address} ({protocol}): {what}"))
    }
}

/// Who has a socket, as far as we may know.
struct Holder {
    process: Option<u32>,
    command: String,
    user: u32,
}

impl Holder {
    fn describe(&self) -> String {
        match self.process {
            Some(process) => format!("{} (process {process})", self.command),
            None => format!("a process of user {}", self.user),
        }
    }
}

fn holders(address: SocketAddr, is_udp: bool) -> Vec<Holder> {
    let tables = match is_udp {
        true => ["/proc/net/udp", "/proc/net/udp6"],
        false => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let sockets: Vec<(u64, u32)> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .skip(1)
                .filter_map(|line| socket_line(line, address, is_udp))
                .collect::<Vec<_>>()
        })
        .collect();
    let owners = socket_owners();
    let holder = |(inode, user): (u64, u32)| {
        let owner = owners.iter().find(|(owned, _)| *owned == inode);
        Holder {
            process: owner.map(|(_, process)| *process),
            command: owner.map_or_else(String::new, |(_, process)| command(*process)),
            user,
        }
    };
    sockets.into_iter().map(holder).collect()
}

/// Inode and user of a line of /proc/net/udp or tcp whose socket is in the way of `address`.
fn socket_line(line: &str, address: SocketAddr, is_udp: bool) -> Option<(u64, u32)> {
    const LISTENING: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    if u16::from_str_radix(port, 16).ok()? != address.port()
        || (!is_udp && *fields.get(3)? != LISTENING)
    {
        return None;
    }
    let ip = hex_address(ip)?;
    let wanted = address.ip().to_canonical();
    if !ip.is_unspecified() && !wanted.is_unspecified() && ip.to_canonical() != wanted {
        return None;
    }
    Some((fields.get(9)?.parse().ok()?, fields.get(7)?.parse().ok()?))
}

/// An address as the kernel prints it: 32-bit words in the machine's order.
fn hex_address(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = text
        .as_bytes()
        .chunks(8)
        .filter_map(|word| {
            let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    match words.as_slice() {
        [ip] => Some(IpAddr::from(*ip)),
        [_, _, _, _] => Some(IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?)),
        _ => None,
    }
}

/// Every socket's inode with the process that has it, of the processes that we may look into.
fn socket_owners() -> Vec<(u64, u32)> {
    let mut owners = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let files = fs::read_dir(entry.path().join("fd"));
        for file in files.into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(file.path()) else {
                continue;
            };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'))
                .and_then(|inode| inode.parse().ok());
            owners.extend(inode.map(|inode| (inode, process)));
        }
    }
    owners
}

fn command(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/comm"))
        .map_or_else(|_| "a process".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("the system has a free port");
        let address = socket.local_addr().expect("it is bound");
        let holders = holders(address, true);
        assert!(
            holders
                .iter()
                .any(|holder| holder.process == Some(std::process::id())),
            "{}",
            holders.len()
        );
    }

    #[test]
    fn the_kernels_hexadecimal_is_read() {
        assert_eq!(
            hex_address("0100007F"),
            Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        );
        assert_eq!(
            hex_address("00000000000000000000000001000000"),
            Some(IpAddr::V6(Ipv6Addr::LOCALHOST))
        );
    }

    #[test]
    fn a_port_that_the_system_chooses_is_the_same_for_both_transports() {
        let address = probe("127.0.0.1:0".parse().expect("an address"), Kind::Dns)
            .expect("there is a free port");
        let pair = pair(address).expect("it was just free");
        assert_eq!(
            pair.udp.local_addr().expect("it is bound"),
            pair.tcp.local_addr().expect("it is bound")
        );
    }
}
