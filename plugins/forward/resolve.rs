//! Host names among the TO words, looked up once at start: /etc/hosts, then DNS. No cache, no search list.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::kit::wire::message::records;
use crate::kit::wire::{Class, Name, Opcode, Rtype, Section};

use super::config;
use super::message::{self, Verdict};
use super::udp;

/// All look-ups of a line together take this long at most.
const LOOKUP_MAX: Duration = Duration::from_secs(2);
/// A server that does not answer for this long is left for the next one.
const TRY_MAX: Duration = Duration::from_millis(600);
/// Addresses of one name that are used, at most.
const ADDRESSES_MAX: usize = 16;

/// The addresses of a host: those of IPv4 first.
pub(super) async fn resolve(
    name: &Name,
    text: &str,
    resolver: &[SocketAddr],
) -> Result<Vec<IpAddr>, String> {
    let servers = if resolver.is_empty() {
        if let Some(found) = in_hosts_file(Path::new("/etc/hosts"), text) {
            return Ok(found);
        }
        config::read_resolv_conf(Path::new("/etc/resolv.conf"))
            .map_err(|error| format!("failed to resolve \"{text}\": {error}"))?
    } else {
        resolver.to_vec()
    };
    ask(name, &servers)
        .await
        .map_err(|error| format!("failed to resolve \"{text}\": {error}"))
}

fn in_hosts_file(path: &Path, host: &str) -> Option<Vec<IpAddr>> {
    let text = std::fs::read_to_string(path).ok()?;
    let host = host.trim_end_matches('.');
    let mut found: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words
                .any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host))
                .then_some(address)
        })
        .take(ADDRESSES_MAX)
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup();
    (!found.is_empty()).then_some(found)
}

async fn ask(name: &Name, servers: &[SocketAddr]) -> Result<Vec<IpAddr>, String> {
    if servers.is_empty() {
        return Err("no server to ask; name one with `resolver`".into());
    }
    let deadline = Instant::now() + LOOKUP_MAX;
    let mut last = String::new();
    while Instant::now() < deadline {
        for server in servers {
            let until = deadline.min(Instant::now() + TRY_MAX);
            let (v4, v6) = tokio::join!(
                ask_one(name, Rtype::A, *server, until),
                ask_one(name, Rtype::AAAA, *server, until)
            );
            match (v4, v6) {
                (Ok(mut v4), Ok(v6)) => {
                    v4.extend(v6);
                    v4.truncate(ADDRESSES_MAX);
                    if v4.is_empty() {
                        return Err(format!("{server} knows no address of it"));
                    }
                    return Ok(v4);
                }
                (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => return Ok(found),
                (Err(error), _) | (_, Err(error)) => last = format!("{server}: {error}"),
            }
        }
        // A server that refuses at once is not asked in a tight loop.
        tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_millis(100))).await;
    }
    Err(last)
}

async fn ask_one(
    name: &Name,
    qtype: Rtype,
    server: SocketAddr,
    until: Instant,
) -> Result<Vec<IpAddr>, String> {
    let exchange = async {
        let socket = udp::open(server, None).and_then(UdpSocket::from_std)?;
        let id = rand::random();
        let mut query = Vec::new();
        message::write_own_query(&mut query, id, true, name.as_wire(), qtype);
        socket.send(&query).await?;
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let reply = buffer.get(..length).unwrap_or_default();
            if reply.first_chunk() != Some(&id.to_be_bytes()) {
                continue;
            }
            match message::judge(reply, query.get(12..).unwrap_or_default(), Opcode::QUERY) {
                // Host names of servers have few addresses: those that fitted will do.
                Verdict::Good | Verdict::Truncated { usable: true } => {
                    return std::io::Result::Ok((reply[3] & 15, addresses(reply, qtype)));
                }
                _ => {}
            }
        }
    };
    match tokio::time::timeout_at(until, exchange).await {
        Ok(Ok((0, found))) => Ok(found),
        // NXDOMAIN: there is no such name, whatever the type.
        Ok(Ok((3, _))) => Ok(Vec::new()),
        Ok(Ok((rcode, _))) => Err(format!("answered with rcode {rcode}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".into()),
    }
}

fn addresses(reply: &[u8], qtype: Rtype) -> Vec<IpAddr> {
    let Ok(records) = records(reply) else {
        return Vec::new();
    };
    records
        .map_while(Result::ok)
        .filter(|record| {
            record.section == Section::Answer && record.class == Class::IN && record.rtype == qtype
        })
        .filter_map(|record| {
            let data = reply.get(record.rdata)?;
            match data.len() {
                4 => Some(Ipv4Addr::from(*data.first_chunk::<4>()?).into()),
                16 => Some(Ipv6Addr::from(*data.first_chunk::<16>()?).into()),
                _ => None,
            }
        })
        .take(ADDRESSES_MAX)
        .collect()
}
