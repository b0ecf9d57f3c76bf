//! D01 listen, D02 privilege, D11 clients: this machine.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use super::finding::Findings;
use super::sockets::{Socket, receiving};

/// D01: who receives at our address.
pub(super) fn listen(server: SocketAddr) -> Findings {
    let mut findings = Findings::of("D01");
    if !is_local(server.ip()) {
        findings.ok(format!(
            "{server} is not of this machine; run doctor there to see who holds the port"
        ));
        return findings;
    }
    let sockets = receiving(server);
    for transport in ["UDP", "TCP"] {
        let held: Vec<&Socket> = sockets
            .iter()
            .filter(|s| s.transport == transport)
            .collect();
        match held.first() {
            None => nobody(server, transport, &mut findings),
            Some(_) => held_by(server, transport, &held, &mut findings),
        }
    }
    findings
}

fn nobody(server: SocketAddr, transport: &str, findings: &mut Findings) {
    findings.fail(
        format!("nobody receives at {server} over {transport}"),
        "start the server: `skeindns --conf Dnsfile`, or `skeindns skydns`; name another address with --server",
    );
}

fn held_by(server: SocketAddr, transport: &str, held: &[&Socket], findings: &mut Findings) {
    let names = held.iter().filter_map(|socket| socket.holder.as_ref());
    let ours = |name: &str| name.starts_with("skeindns") || name.starts_with("skydns");
    if let Some((name, id)) = names.clone().find(|(name, _)| ours(name)) {
        findings.ok(format!(
            "{server} over {transport} is held by {name} (process {id})"
        ));
        return;
    }
    match names.clone().next() {
        Some((name, id)) => findings.fail(
            format!("{server} over {transport} is held by {name} (process {id}), not by skeindns"),
            remedy(name, server),
        ),
        None => findings.warn(
            format!("{server} over {transport} is held by a process that this user may not see"),
            "run doctor as root to see which one it is",
        ),
    }
}

/// What is done about the usual holders of port 53.
fn remedy(name: &str, server: SocketAddr) -> String {
    match name {
        "systemd-resolve" | "systemd-resolved" => {
            "write `bind` with this machine's own address in the Dnsfile, or DNSStubListener=no in /etc/systemd/resolved.conf and restart systemd-resolved".into()
        }
        "dnsmasq" => format!(
            "stop it (`systemctl disable --now dnsmasq`), or write except-interface or listen-address in its configuration so that it leaves {} alone; libvirt and NetworkManager start one of their own",
            server.ip()
        ),
        "named" | "unbound" | "nsd" | "knotd" | "pdns_server" | "coredns" => {
            format!("stop {name}, or let it or skeindns take another address or port")
        }
        name => format!("stop {name}, or serve on another address with `bind` or another port"),
    }
}

/// Whether an address is this machine's: one can be bound to it.
pub(super) fn is_local(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::AddrNotAvailable,
    }
}

/// D02: whether this user may bind the port.
pub(super) fn privilege(server: SocketAddr) -> Findings {
    let mut findings = Findings::of("D02");
    let port = server.port();
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first: u16 = first
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024);
    if port >= first {
        findings.ok(format!("port {port} needs no privilege (from {first} on)"));
    } else if has_capability() {
        findings.ok(format!(
            "this user may bind port {port} (CAP_NET_BIND_SERVICE)"
        ));
    } else if std::env::var_os("LISTEN_FDS").is_some() {
        findings.ok("systemd hands the sockets over".to_owned());
    } else {
        findings.fail(
            format!("this user may not bind port {port}: it is below {first} and there is no CAP_NET_BIND_SERVICE"),
            "run as root, write AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, `setcap cap_net_bind_service+ep` the binary, or `sysctl net.ipv4.ip_unprivileged_port_start=53`",
        );
    }
    findings
}

/// Whether CAP_NET_BIND_SERVICE (10) is in effect.
fn has_capability() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|set| set & (1 << 10) != 0)
}

/// D11: whether names asked for on this machine reach the server.
pub(super) fn clients(
    server: SocketAddr,
    domains: &[String],
    resolv_conf: &Path,
    nsswitch: &Path,
) -> Findings {
    let mut findings = Findings::of("D11");
    let name = resolv_conf.display();
    let asks_us = match fs::read_to_string(resolv_conf) {
        Err(error) => {
            findings.warn(
                format!("cannot read {name}: {error}"),
                format!("write `nameserver {}` into it", server.ip()),
            );
            false
        }
        Ok(text) => resolvers(server, &name.to_string(), &text, &mut findings),
    };
    let local: Vec<&String> = domains.iter().filter(|d| d.ends_with(".local.")).collect();
    if local.is_empty() {
        return findings;
    }
    let text = fs::read_to_string(nsswitch).unwrap_or_default();
    let hosts = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("hosts:"));
    let words: Vec<&str> = hosts.unwrap_or("files dns").split_whitespace().collect();
    let place = |word: &str| words.iter().position(|found| found.starts_with(word));
    match (place("mdns"), place("dns")) {
        (Some(mdns), Some(dns)) if mdns < dns => findings.warn(
            format!(
                "{} asks multicast DNS before DNS, which keeps names of two labels in .local to itself (RFC 6762)",
                nsswitch.display()
            ),
            "use another domain, such as home.arpa, or remove mdns4_minimal and its [NOTFOUND=return] from the line `hosts:`",
        ),
        _ if asks_us => findings.ok(format!("names in {} are asked of DNS", local[0])),
        _ => {}
    }
    findings
}

fn resolvers(server: SocketAddr, name: &str, text: &str, findings: &mut Findings) -> bool {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()
    });
    let servers: Vec<&str> = servers.collect();
    if servers.len() > 3 {
        findings.warn(
            format!(
                "{name} names {} servers, and the C library asks the first three",
                servers.len()
            ),
            "remove those that do not know the zone; each must know it",
        );
    }
    let ours = |text: &str| {
        let address = text.parse::<IpAddr>().ok();
        address == Some(server.ip())
    };
    match servers.iter().position(|text| ours(text)) {
        Some(0) if server.port() == 53 => {
            findings.ok(format!("{name} asks {} first", server.ip()));
            return true;
        }
        Some(at) if server.port() == 53 => findings.warn(
            format!("{name} asks {} as number {}: those before it must know the zone too", server.ip(), at + 1),
            format!("write `nameserver {}` first", server.ip()),
        ),
        Some(_) => findings.warn(
            format!("{name} asks {}, but on port 53 and not on {}", server.ip(), server.port()),
            "serve on port 53: the C library asks no other",
        ),
        None if servers.first() == Some(&"127.0.0.53") => findings.warn(
            format!("{name} asks systemd-resolved, which has to be told of the zone"),
            format!("`resolvectl dns LINK {}; resolvectl domain LINK '~ZONE'`, or DNS= and Domains= in /etc/systemd/resolved.conf", server.ip()),
        ),
        None => findings.warn(
            format!("{name} does not ask {} ({})", server.ip(), servers.join(", ")),
            format!("write `nameserver {}` first, or let the resolver that it names forward the zone there", server.ip()),
        ),
    }
    false
}
