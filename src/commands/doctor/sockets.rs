//! Who holds a port, from /proc.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Descriptors that are looked at, over all processes: a machine with a million of them has other troubles.
const DESCRIPTORS_MAX: usize = 1_000_000;

/// A socket that takes queries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Socket {
    pub(super) address: SocketAddr,
    /// `UDP` or `TCP`.
    pub(super) transport: &'static str,
    inode: u64,
    /// Name and number of the process; none if it is not to be seen.
    pub(super) holder: Option<(String, u32)>,
}

/// The sockets that receive at an address: bound to it, or to all addresses.
pub(super) fn receiving(at: SocketAddr) -> Vec<Socket> {
    const TABLES: [(&str, &str); 4] = [
        ("/proc/net/udp", "UDP"),
        ("/proc/net/udp6", "UDP"),
        ("/proc/net/tcp", "TCP"),
        ("/proc/net/tcp6", "TCP"),
    ];
    let mut found = Vec::new();
    for (table, transport) in TABLES {
        let text = fs::read_to_string(table).unwrap_or_default();
        let sockets = text
            .lines()
            .skip(1)
            .filter_map(|line| read(line, transport));
        found.extend(sockets.filter(|socket| covers(socket.address, at)));
    }
    name_holders(&mut found);
    found
}

fn covers(bound: SocketAddr, at: SocketAddr) -> bool {
    let any = match bound.ip() {
        IpAddr::V4(v4) => v4.is_unspecified() && at.is_ipv4(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    bound.port() == at.port() && (any || bound.ip().to_canonical() == at.ip().to_canonical())
}

/// A line of such a table: `sl local_address rem_address st … uid timeout inode …`.
fn read(line: &str, transport: &'static str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = *fields.get(3)?;
    // 0A is LISTEN; a UDP socket that is not connected is 07.
    if state != if transport == "TCP" { "0A" } else { "07" } {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes()).into(),
        32 => {
            let mut octets = Vec::with_capacity(16);
            for at in (0..32).step_by(8) {
                let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
                octets.extend(word.to_ne_bytes());
            }
            Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()
        }
        _ => return None,
    };
    Some(Socket {
        address: SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?),
        transport,
        inode: fields.get(9)?.parse().ok()?,
        holder: None,
    })
}

fn name_holders(sockets: &mut [Socket]) {
    let mut wanted: HashMap<String, usize> = HashMap::new();
    for (at, socket) in sockets.iter().enumerate() {
        wanted.insert(format!("socket:[{}]", socket.inode), at);
    }
    let mut left = DESCRIPTORS_MAX;
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(id) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let descriptors = fs::read_dir(process.path().join("fd"));
        for descriptor in descriptors.into_iter().flatten().flatten().take(left) {
            left -= 1;
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let at = target.to_str().and_then(|target| wanted.get(target));
            let socket = at.and_then(|at| sockets.get_mut(*at));
            if let Some(socket) = socket.filter(|socket| socket.holder.is_none()) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                socket.holder = Some((name.trim().to_owned(), id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn we_find_ourselves() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let at = socket.local_addr().expect("it is bound");
        let found = receiving(at);
        let holders: Vec<u32> = found
            .iter()
            .filter_map(|s| Some(s.holder.as_ref()?.1))
            .collect();
        assert_eq!(holders, [std::process::id()], "{found:?}");
        assert_eq!(found[0].transport, "UDP");
    }

    #[test]
    fn lines_are_read() {
        let line = "   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1";
        let socket = read(line, "TCP").expect("it listens");
        assert_eq!(socket.address, "127.0.0.1:53".parse().expect("one"));
        assert_eq!(socket.inode, 12345);
        assert_eq!(read(line, "UDP"), None);
        assert_eq!(read("", "TCP"), None);
        let any = "[::]:53".parse().expect("one");
        assert!(covers(any, "192.0.2.1:53".parse().expect("one")));
    }
}
