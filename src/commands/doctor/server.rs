//! D09 zone, D10 forward, D12 firewall, D14 dnssec, D15 watch: what the server says.

use std::net::SocketAddr;
use std::time::Duration;

use skein_plugins::etcd::{Config, look};
use skein_plugins::kit::wire::name::{self, is_within, labels};
use skein_plugins::kit::wire::{Name, Rcode, Rtype, Section};

use super::super::verify::ask::{Asker, How, Question, UDP_OCTETS};
use super::finding::Findings;

/// What our OPT says where large answers are tried.
const LARGE_OCTETS: u16 = 4096;
/// Octets from which on a packet is cut in two on the usual path with tunnels.
const FRAGMENT_OCTETS: usize = 1232;
/// An upstream that takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);
/// A follower that has heard nothing for longer is behind, in seconds.
const SILENT_SECONDS: f64 = 5.0;

/// D09: SOA, NS and the addresses of the name servers; and who outside leads here.
pub(super) async fn zone(how: &How, domains: &[String], upstreams: &[SocketAddr]) -> Findings {
    let mut findings = Findings::of("D09");
    let mut asker = Asker::default();
    for domain in domains {
        let Ok(zone) = Name::parse(domain) else {
            findings.fail(format!("`{domain}` is no domain name"), "correct it");
            continue;
        };
        match asker
            .ask(how, &Question::new(zone.as_wire(), Rtype::SOA))
            .await
        {
            Err(silence) => {
                findings.fail(
                    format!("{}: {silence}", how.server),
                    "see D01: does it run, and may this machine reach it (UDP and TCP 53)?",
                );
                return findings;
            }
            Ok(reply) if !reply.authoritative || reply.rcode != Rcode::NOERROR => {
                findings.fail(
                    format!("{} does not answer for {domain} ({})", how.server, reply.rcode),
                    format!("write `etcd {domain}` into its Dnsfile, or `domain` into the configuration object"),
                );
                continue;
            }
            Ok(_) => {}
        }
        name_servers(&mut asker, how, &zone, domain, &mut findings).await;
        if let Some(upstream) = upstreams.first() {
            delegation(&mut asker, how, *upstream, &zone, domain, &mut findings).await;
        }
    }
    findings
}

async fn name_servers(
    asker: &mut Asker,
    how: &How,
    zone: &Name,
    domain: &str,
    findings: &mut Findings,
) {
    let reply = asker
        .ask(how, &Question::new(zone.as_wire(), Rtype::NS))
        .await;
    let Ok(reply) = reply else {
        findings.fail(
            format!("{domain} has a SOA record, but no answer to NS"),
            "run it again",
        );
        return;
    };
    let targets = reply
        .section(Section::Answer)
        .filter(|(_, rr)| rr.rtype == Rtype::NS);
    let targets: Vec<Box<[u8]>> = targets.map(|(_, rr)| rr.data.clone()).collect();
    if targets.is_empty() {
        findings.warn(
            format!("{domain} has no name servers (NS)"),
            format!(
                "`skeindns service put ns1.ns.dns.{domain} --host {}`",
                how.server.ip()
            ),
        );
        return;
    }
    let mut whole = true;
    for target in targets
        .iter()
        .filter(|target| is_within(target, zone.as_wire()))
    {
        let mut has = false;
        for rtype in [Rtype::A, Rtype::AAAA] {
            let reply = asker.ask(how, &Question::new(target, rtype)).await;
            has |= reply.is_ok_and(|reply| reply.section(Section::Answer).next().is_some());
        }
        if !has {
            whole = false;
            findings.fail(
                format!(
                    "the name server {} of {domain} has no address",
                    name::display(target)
                ),
                format!(
                    "`skeindns service put {} --host ADDRESS`",
                    name::display(target)
                ),
            );
        }
    }
    if whole {
        let count = targets.len();
        findings.ok(format!(
            "{} answers for {domain}, with {count} name servers",
            how.server
        ));
    }
}

/// Domains that nobody outside delegates.
const PRIVATE: [&str; 8] = [
    "local.",
    "internal.",
    "test.",
    "example.",
    "invalid.",
    "localhost.",
    "home.arpa.",
    "lan.",
];

async fn delegation(
    asker: &mut Asker,
    how: &How,
    upstream: SocketAddr,
    zone: &Name,
    domain: &str,
    findings: &mut Findings,
) {
    let private = PRIVATE
        .iter()
        .any(|known| domain == *known || domain.ends_with(&format!(".{known}")));
    if private || domain.ends_with(".arpa.") {
        return;
    }
    let at = How {
        server: upstream,
        ..*how
    };
    let reply = asker
        .ask(&at, &Question::new(zone.as_wire(), Rtype::NS))
        .await;
    let found = reply.is_ok_and(|reply| {
        let mut records = reply.section(Section::Answer);
        records.any(|(_, rr)| rr.rtype == Rtype::NS)
    });
    match found {
        true => findings.ok(format!("{upstream} knows name servers of {domain}")),
        false => findings.warn(
            format!("{upstream} knows no name servers of {domain}: who asks others than this server finds nothing"),
            "let the parent zone delegate it here, or let the resolvers forward it here",
        ),
    }
}

/// D10: each upstream.
pub(super) async fn forward(how: &How, upstreams: &[SocketAddr], name: &str) -> Findings {
    let mut findings = Findings::of("D10");
    if upstreams.is_empty() {
        findings.ok("no upstream is known here; names outside the zones are not forwarded");
        return findings;
    }
    let Ok(name) = Name::parse(name) else {
        findings.fail(format!("`{name}` is no domain name"), "correct --forwarded");
        return findings;
    };
    for upstream in upstreams {
        if *upstream == how.server {
            findings.fail(
                format!("the server forwards to itself ({upstream})"),
                "name another upstream; if resolv.conf is read for them, it must not name this server",
            );
            continue;
        }
        one_upstream(how, *upstream, &name, &mut findings).await;
    }
    findings
}

async fn one_upstream(how: &How, upstream: SocketAddr, name: &Name, findings: &mut Findings) {
    let mut asker = Asker::default();
    let question = Question::new(name.as_wire(), Rtype::A);
    let at = How {
        server: upstream,
        tcp: false,
        ..*how
    };
    let reply = match asker.over_udp(&at, &question).await {
        Ok(reply) => reply,
        Err(silence) => {
            findings.fail(
                format!("upstream {upstream}: {silence}"),
                "name another upstream (`forward`, or `nameservers` in the configuration object), or open UDP 53 to it",
            );
            return;
        }
    };
    match reply.rcode {
        Rcode::NOERROR | Rcode::NXDOMAIN => {}
        rcode => {
            findings.fail(
                format!("upstream {upstream} answers {rcode} to {name}"),
                "it does not resolve for this machine: name another upstream",
            );
            return;
        }
    }
    let mut less = Vec::new();
    if !reply.edns {
        less.push("no EDNS");
    }
    if asker
        .ask(&How { tcp: true, ..at }, &question)
        .await
        .is_err()
    {
        less.push("no TCP");
    }
    let signed = How { dnssec: true, ..at };
    let root = asker.ask(&signed, &Question::new(&[0], Rtype::SOA)).await;
    let has_signature = root.is_ok_and(|reply| {
        let mut records = reply.section(Section::Answer);
        records.any(|(_, rr)| rr.rtype == Rtype::RRSIG)
    });
    if !has_signature {
        less.push("no DNSSEC signatures");
    }
    if reply.took > SLOW {
        less.push("slow");
    }
    let ms = reply.took.as_secs_f64() * 1e3;
    match less.is_empty() {
        true => findings.ok(format!("upstream {upstream}: {ms:.1} ms, EDNS, TCP and DNSSEC signatures")),
        false => findings.warn(
            format!("upstream {upstream} answers in {ms:.1} ms, but: {}", less.join(", ")),
            "names are resolved; large answers and validation may fail: another upstream may do better, and TCP 53 to it should be open",
        ),
    }
}

/// D12: whether large answers come through.
pub(super) async fn firewall(how: &How, zone: Option<&[u8]>, largest: Option<&[u8]>) -> Findings {
    let mut findings = Findings::of("D12");
    let Some(zone) = zone else {
        findings.ok("no zone to ask for");
        return findings;
    };
    let mut asker = Asker::default();
    let soa = Question::new(zone, Rtype::SOA);
    let udp = How {
        tcp: false,
        udp_octets: Some(UDP_OCTETS),
        ..*how
    };
    let over_udp = asker.over_udp(&udp, &soa).await;
    let over_tcp = asker.ask(&How { tcp: true, ..udp }, &soa).await;
    match (&over_udp, &over_tcp) {
        (Ok(_), Ok(_)) => findings.ok(format!("{} answers over UDP and TCP", how.server)),
        (Ok(_), Err(silence)) => findings.fail(
            format!("{} answers over UDP, but not over TCP: {silence}", how.server),
            format!("open TCP {}: `ufw allow {0}/tcp`, `firewall-cmd --add-service=dns`; answers that are cut off are asked for again over TCP", how.server.port()),
        ),
        (Err(silence), Ok(_)) => findings.fail(
            format!("{} answers over TCP, but not over UDP: {silence}", how.server),
            format!("open UDP {}: `ufw allow {0}/udp`, `firewall-cmd --add-service=dns`", how.server.port()),
        ),
        (Err(silence), Err(_)) => {
            findings.fail(format!("{}: {silence}", how.server), "see D01");
            return findings;
        }
    }
    let Some(largest) = largest else {
        return findings;
    };
    let large = How {
        udp_octets: Some(LARGE_OCTETS),
        ..udp
    };
    let question = Question::new(largest, Rtype::A);
    match asker.over_udp(&large, &question).await {
        Ok(reply) if reply.octets > FRAGMENT_OCTETS => {
            findings.ok(format!("an answer of {} octets comes through over UDP", reply.octets));
        }
        Ok(reply) if reply.octets > 512 => {
            findings.ok(format!("an answer of {} octets comes through over UDP; larger ones go over TCP", reply.octets));
        }
        Ok(_) => findings.ok("no answer here is larger than 512 octets; larger ones were not tried"),
        Err(_) => findings.warn(
            format!("a large answer ({question}) does not come through over UDP"),
            "something drops fragments or large packets: `bufsize 1232` in the Dnsfile keeps answers below that",
        ),
    }
    findings
}

/// D14: whether answers are signed.
pub(super) async fn dnssec(how: &How, zone: Option<&[u8]>, is_configured: bool) -> Findings {
    let mut findings = Findings::of("D14");
    let Some(zone) = zone else {
        findings.ok("no zone to ask for");
        return findings;
    };
    let signed = How {
        dnssec: true,
        ..*how
    };
    let mut asker = Asker::default();
    let reply = asker.ask(&signed, &Question::new(zone, Rtype::SOA)).await;
    let has_signature = reply.is_ok_and(|reply| {
        let mut records = reply.section(Section::Answer);
        records.any(|(_, rr)| rr.rtype == Rtype::RRSIG)
    });
    match (is_configured, has_signature) {
        (false, false) => findings.ok("dnssec is off"),
        (_, true) => findings.ok(format!("{} is signed", name::display(zone))),
        (true, false) => findings.fail(
            format!(
                "dnssec is configured, but the answers for {} are not signed",
                name::display(zone)
            ),
            "the key's owner must be the zone; see the server's log at its start",
        ),
    }
    findings
}

/// D15: how current the server is, from its metrics.
pub(super) async fn watch(metrics: Option<&str>, findings: &mut Findings) {
    let Some(url) = metrics else {
        findings.ok("the server's metrics are not known here; name them with --metrics to see how current it is");
        return;
    };
    let (endpoint, path) = split(url);
    let look = match look(&Config::default(), &endpoint, &path, None).await {
        Ok(look) if look.status == 200 => look,
        Ok(look) => {
            findings.warn(
                format!("{url}: HTTP {}", look.status),
                "write `prometheus` into the Dnsfile",
            );
            return;
        }
        Err(what) => {
            findings.warn(
                format!("{url}: {what}"),
                "write `prometheus` into the Dnsfile, or correct --metrics",
            );
            return;
        }
    };
    let text = String::from_utf8_lossy(&look.body);
    let value = |metric: &str| -> Vec<f64> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(metric));
        let lines = lines.filter(|rest| rest.starts_with(['{', ' ']));
        lines
            .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
            .collect()
    };
    let synced = value("skeindns_etcd_synced");
    if synced.is_empty() {
        findings.warn(
            format!("{url} has no metrics of etcd"),
            "the server reads no etcd: see its Dnsfile",
        );
        return;
    }
    let most = |metric: &str| value(metric).into_iter().fold(0.0, f64::max);
    let away = most("skeindns_etcd_disconnected_seconds");
    match synced.iter().all(|synced| *synced == 1.0) && away <= SILENT_SECONDS {
        true => findings.ok(format!(
            "the server follows etcd at revision {}, after {} reconnects",
            most("skeindns_etcd_revision"),
            most("skeindns_etcd_reconnects_total"),
        )),
        false => findings.fail(
            format!(
                "the server has heard nothing from etcd for {away:.0} s and answers from memory"
            ),
            "see D03 to D05 on the server's machine, and its log",
        ),
    }
    let skipped = most("skeindns_etcd_skipped_records");
    if skipped > 0.0 {
        findings.warn(
            format!("the server skips {skipped} records that it cannot read"),
            "see D08",
        );
    }
}

/// `http://host:port` and `/path`.
fn split(url: &str) -> (String, String) {
    let url = match url.contains("://") {
        true => url.to_owned(),
        false => format!("http://{url}"),
    };
    let start = url.find("://").map_or(0, |at| at + 3);
    let slash = url.get(start..).and_then(|rest| rest.find('/'));
    match slash.and_then(|at| url.split_at_checked(start + at)) {
        Some((endpoint, path)) => (endpoint.to_owned(), path.to_owned()),
        None => (url, "/metrics".into()),
    }
}

/// The name with the most keys directly below it: its answer is the largest.
pub(super) fn largest(names: &[Box<[u8]>], zone: &[u8]) -> Option<Box<[u8]>> {
    let mut children: std::collections::HashMap<&[u8], usize> = std::collections::HashMap::new();
    for name in names
        .iter()
        .filter(|name| is_within(name, zone) && name.len() > zone.len())
    {
        let parent = name::suffixes(name).nth(1).unwrap_or_default();
        *children.entry(parent).or_default() += 1;
    }
    // Not the zone itself: what it answers depends on options.
    let candidates = children
        .into_iter()
        .filter(|(parent, _)| labels(parent).count() > labels(zone).count());
    let most = candidates.max_by_key(|(parent, count)| (*count, parent.to_vec()));
    most.map(|(parent, _)| parent.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_endpoint_and_path() {
        let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            split("localhost:9153"),
            both("http://localhost:9153", "/metrics")
        );
        assert_eq!(
            split("http://[::1]:9153/m"),
            both("http://[::1]:9153", "/m")
        );
    }

    #[test]
    fn the_largest_answer_is_the_name_with_most_children() {
        let names = ["z.", "a.z.", "b.a.z.", "c.a.z.", "d.z."];
        let names: Vec<Box<[u8]>> = names
            .iter()
            .map(|name| Name::parse(name).expect("one").as_wire().into())
            .collect();
        let zone = names[0].clone();
        assert_eq!(largest(&names, &zone), Some(names[1].clone()));
    }
}
