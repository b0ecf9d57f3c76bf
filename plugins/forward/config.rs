//! What a `forward` line says.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

use crate::kit::dnsfile::Span;
use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::options::{Arg, Checked, Kind, Opt, Property, Value};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Name, Rcode};
use crate::kit::zones::{Zone, ZoneSet};

use super::tcp;
use super::upstream::Probe;

/// TO words of a line, at most, as in CoreDNS.
const TO_MAX: usize = 15;
/// Upstreams of a line, at most: files and host names may each stand for several. What was tried is a bit each in a word.
pub(super) const UPSTREAMS_MAX: usize = 64;
/// A resolv.conf file, at most, in octets.
const RESOLV_CONF_OCTETS_MAX: u64 = 65_536;
/// No duration of a Dnsfile needs to be longer.
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const PORT: u16 = 53;

pub(super) const ARGUMENTS: &[Arg] = &[Arg::one("FROM", Kind::Zone), Arg::some("TO", Kind::Text)];

const NOT_NEGATIVE: Kind = Kind::Duration {
    min: Duration::ZERO,
    max: YEAR,
};
const COUNT: Kind = Kind::Integer {
    min: 0,
    max: u32::MAX as i64,
};
const NOT_YET: &str = "not there yet: an error that says so";

pub(super) const OPTIONS: &[Opt] = &[
    Opt::new(
        "except",
        &[Arg::some("NAME", Kind::Zone)],
        "none",
        "passes names under these on to the next plugin, FROM itself excepted; several lines add up",
    )
    .adds(),
    Opt::new(
        "force_tcp",
        &[],
        "the client's protocol",
        "asks over TCP even if the query came over UDP",
    ),
    Opt::new(
        "prefer_udp",
        &[],
        "the client's protocol",
        "asks over UDP even if the query came over TCP; `force_tcp` wins",
    ),
    Opt::new(
        "expire",
        &[Arg::one("DURATION", NOT_NEGATIVE)],
        "10s",
        "closes TCP connections that lay idle this long",
    ),
    Opt::new(
        "max_age",
        &[Arg::one("DURATION", NOT_NEGATIVE)],
        "0s",
        "closes connections and sockets at this age, 0 leaves it to `expire`; not below `expire`",
    ),
    Opt::new(
        "max_idle_conns",
        &[Arg::one("COUNT", COUNT)],
        "0",
        "keeps so many idle TCP connections for an upstream, 0 any number",
    ),
    Opt::new(
        "read_timeout",
        &[Arg::one(
            "DURATION",
            Kind::Duration {
                min: Duration::from_nanos(1),
                max: YEAR,
            },
        )],
        "2s",
        "waits so long for a reply before the next upstream is asked",
    ),
    Opt::new(
        "max_fails",
        &[Arg::one("COUNT", COUNT)],
        "2",
        "takes an upstream for down after more failures in a row than this, 0 never",
    ),
    Opt::new(
        "max_connect_attempts",
        &[Arg::one("COUNT", COUNT)],
        "twice the upstreams",
        "failed attempts for one query, 0 as many as 5 s allow",
    ),
    Opt::new(
        "policy",
        &[Arg::one(
            "POLICY",
            Kind::Choice(&["random", "round_robin", "sequential"]),
        )],
        "random",
        "the order in which upstreams are asked",
    ),
    Opt::new(
        "health_check",
        &[
            Arg::one("DURATION", NOT_NEGATIVE),
            Arg::any("no_rec|domain NAME", Kind::Text),
        ],
        "0.5s domain .",
        "time between two probes of an upstream that failed; `no_rec` asks without RD, `domain` for the NS of NAME",
    ),
    Opt::new(
        "max_concurrent",
        &[Arg::one("COUNT", COUNT)],
        "0",
        "queries under way at most, 0 any number; one more is answered SERVFAIL",
    ),
    Opt::new(
        "next",
        &[Arg::some("RCODE", Kind::Rcode)],
        "none",
        "hands queries that get such a reply to the next `forward`; several lines add up",
    )
    .adds(),
    Opt::new(
        "next_on_nodata",
        &[],
        "off",
        "hands queries that get an empty NOERROR to the next `forward`",
    ),
    Opt::new(
        "failfast_all_unhealthy_upstreams",
        &[],
        "off",
        "answers SERVFAIL when all upstreams are down, instead of trying one at random",
    ),
    Opt::new(
        "failover",
        &[Arg::some("RCODE", Kind::Rcode)],
        "none",
        "asks the next upstream, each once, after such a reply; several lines add up",
    )
    .adds(),
    Opt::new(
        "resolver",
        &[Arg::some("ADDRESS", Kind::Text)],
        "/etc/hosts, then the servers of /etc/resolv.conf",
        "servers to look up host names among TO with; several lines add up",
    )
    .adds(),
    Opt::new(
        "source_address",
        &[Arg::one("ADDRESS", Kind::Address)],
        "the system's choice",
        "the address to ask from",
    ),
    Opt::new("tls", &[Arg::any("FILE", Kind::Text)], "none", NOT_YET),
    Opt::new("tls_servername", &[Arg::any("NAME", Kind::Text)], "none", NOT_YET),
    Opt::new("doh_method", &[Arg::any("METHOD", Kind::Text)], "none", NOT_YET),
];

/// Where queries go, as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Destination {
    Address(SocketAddr),
    /// To be looked up at start.
    Host {
        name: Name,
        text: String,
        port: u16,
    },
    /// A test's script.
    #[cfg_attr(not(feature = "testing"), allow(dead_code))]
    Scripted(String),
}

/// In which order upstreams are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Random,
    RoundRobin,
    Sequential,
}

/// A `forward` line, read.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) from: Zone,
    pub(super) to: Vec<Destination>,
    pub(super) to_span: Span,
    pub(super) except: ZoneSet,
    pub(super) force_tcp: bool,
    pub(super) prefer_udp: bool,
    pub(super) tcp: tcp::Policy,
    pub(super) read_timeout: Duration,
    pub(super) max_fails: u32,
    pub(super) max_connect_attempts: Option<usize>,
    pub(super) order: Order,
    pub(super) probe: Probe,
    pub(super) max_concurrent: usize,
    pub(super) next: Vec<Rcode>,
    pub(super) next_on_nodata: bool,
    pub(super) failfast: bool,
    pub(super) failover: Vec<Rcode>,
    pub(super) resolver: Vec<SocketAddr>,
}

impl Config {
    pub(super) fn read(
        line: &Checked,
        server: &mut ServerSetup<'_>,
    ) -> Result<Config, SetupErrors> {
        let mut errors = Vec::new();
        refuse_encrypted(line, &mut errors);
        let duration = |name, default| {
            let value = line.option(name).and_then(|option| option.arg("DURATION"));
            value.map_or(default, Value::duration)
        };
        let count = |name| {
            let value = line.option(name).and_then(|option| option.arg("COUNT"));
            value.map(|value| value.integer().unsigned_abs() as usize)
        };

        let expire = duration("expire", Duration::from_secs(10));
        let max_age = duration("max_age", Duration::ZERO);
        if let Some(option) = line.option("max_age")
            && max_age > Duration::ZERO
            && max_age < expire
        {
            let what = format!("max_age ({max_age:?}) must not be less than expire ({expire:?})");
            errors.push(SetupError::at(option.span(), what));
        }
        let force_tcp = line.has("force_tcp");
        let probe = read_probe(line.option("health_check"), force_tcp, &mut errors);
        let failover = rcodes(line, "failover");
        for option in line.options("failover") {
            let noerror = |value: &&Value| Rcode::parse(value.text()) == Some(Rcode::NOERROR);
            if let Some(value) = option.args("RCODE").find(noerror) {
                let what =
                    "NOERROR cannot be used in failover; for empty replies write next_on_nodata";
                errors.push(SetupError::at(value.span(), what));
            }
        }
        let resolver = read_resolver(line, &mut errors);
        let to = read_destinations(line, server, &mut errors);
        let from = read_from(line, server, &mut errors);
        let source = line
            .option("source_address")
            .and_then(|option| option.arg("ADDRESS"))
            .and_then(|value| value.text().parse().ok());

        let Some(from) = from.filter(|_| errors.is_empty()) else {
            return Err(SetupErrors(errors));
        };
        Ok(Config {
            from,
            to,
            to_span: line.arg("TO").map_or(line.span(), Value::span),
            except: ZoneSet::new(
                line.options("except")
                    .flat_map(|option| option.args("NAME"))
                    .flat_map(|value| value.zones().to_vec()),
            ),
            force_tcp,
            prefer_udp: line.has("prefer_udp"),
            tcp: tcp::Policy {
                source,
                expire,
                max_age,
                max_idle: count("max_idle_conns").unwrap_or(0),
                mark: None,
            },
            read_timeout: duration("read_timeout", Duration::from_secs(2)),
            max_fails: count("max_fails").unwrap_or(2) as u32,
            max_connect_attempts: count("max_connect_attempts"),
            order: match line
                .option("policy")
                .and_then(|option| option.arg("POLICY"))
            {
                Some(value) if value.text() == "round_robin" => Order::RoundRobin,
                Some(value) if value.text() == "sequential" => Order::Sequential,
                _ => Order::Random,
            },
            probe,
            max_concurrent: count("max_concurrent").unwrap_or(0),
            next: rcodes(line, "next"),
            next_on_nodata: line.has("next_on_nodata"),
            failfast: line.has("failfast_all_unhealthy_upstreams"),
            failover,
            resolver,
        })
    }
}

fn refuse_encrypted(line: &Checked, errors: &mut Vec<SetupError>) {
    for name in ["tls", "tls_servername", "doh_method"] {
        if let Some(option) = line.option(name) {
            let what = format!("{name}: encrypted upstreams are not there yet");
            errors.push(SetupError::at(option.span(), what));
        }
    }
}

fn rcodes(line: &Checked, name: &str) -> Vec<Rcode> {
    line.options(name)
        .flat_map(|option| option.args("RCODE"))
        .filter_map(|value| Rcode::parse(value.text()))
        .collect()
}

fn read_from(
    line: &Checked,
    server: &mut ServerSetup<'_>,
    errors: &mut Vec<SetupError>,
) -> Option<Zone> {
    let value = line.arg("FROM")?;
    let Some(from) = value.zones().first() else {
        let what = format!(
            "unable to normalize '{}'; write a zone or `.`",
            value.text()
        );
        errors.push(SetupError::at(value.span(), what));
        return None;
    };
    if value.zones().len() > 1 {
        let what = format!(
            "{} is {} reverse zones, of which only the first, {}, is forwarded",
            value.text(),
            value.zones().len(),
            from.text
        );
        server.warn(value.span(), what);
    }
    Some(from.clone())
}

fn read_probe(option: Option<&Property>, tcp: bool, errors: &mut Vec<SetupError>) -> Probe {
    let mut probe = Probe {
        interval: Duration::from_millis(500),
        recursion_desired: true,
        domain: Name::root().as_wire().into(),
        tcp,
    };
    let Some(option) = option else { return probe };
    if let Some(interval) = option.arg("DURATION") {
        probe.interval = interval.duration();
    }
    let mut words = option.args("no_rec|domain NAME");
    while let Some(word) = words.next() {
        let mut wrong = |what: String| errors.push(SetupError::at(word.span(), what));
        match word.text() {
            "no_rec" => probe.recursion_desired = false,
            "domain" => match words.next().map(|name| Name::parse(name.text())) {
                Some(Ok(name)) => probe.domain = name.as_wire().into(),
                Some(Err(_)) => wrong("health_check: invalid domain name behind `domain`".into()),
                None => wrong("health_check: a name is missing behind `domain`".into()),
            },
            other => wrong(format!(
                "health_check: unknown option {other}; write no_rec or domain NAME"
            )),
        }
    }
    probe
}

fn read_resolver(line: &Checked, errors: &mut Vec<SetupError>) -> Vec<SocketAddr> {
    let words = line
        .options("resolver")
        .flat_map(|option| option.args("ADDRESS"));
    let mut servers = Vec::new();
    for word in words {
        match parse_address(word.text()) {
            Some(address) => servers.push(address),
            None => {
                let what = format!(
                    "resolver must be an IP address or IP:port: \"{}\"",
                    word.text()
                );
                errors.push(SetupError::at(word.span(), what));
            }
        }
    }
    servers
}

fn read_destinations(
    line: &Checked,
    server: &ServerSetup<'_>,
    errors: &mut Vec<SetupError>,
) -> Vec<Destination> {
    let mut found: Vec<Destination> = Vec::new();
    let words: Vec<&Value> = line.args("TO").collect();
    if let Some(word) = words.get(TO_MAX) {
        let what = format!("more than {TO_MAX} TOs configured: {}", words.len());
        errors.push(SetupError::at(word.span(), what));
        return found;
    }
    for word in &words {
        match read_destination(word.text(), server) {
            Ok(destinations) => {
                for destination in destinations {
                    if !found.contains(&destination) {
                        found.push(destination);
                    }
                }
            }
            Err(what) => errors.push(SetupError::at(word.span(), what)),
        }
    }
    if errors.is_empty()
        && let Some(first) = words.first()
    {
        if found.is_empty() {
            let what = "no valid upstream addresses found";
            errors.push(SetupError::at(first.span(), what));
        }
        if found.len() > UPSTREAMS_MAX {
            let what = format!("more than {UPSTREAMS_MAX} upstreams: {}", found.len());
            errors.push(SetupError::at(first.span(), what));
        }
    }
    found
}

fn read_destination(word: &str, server: &ServerSetup<'_>) -> Result<Vec<Destination>, String> {
    #[cfg(feature = "testing")]
    if crate::kit::testing::ScriptedUpstream::is_named_by(word)
        && server
            .double::<crate::kit::testing::ScriptedUpstream>()
            .is_some()
    {
        return Ok(vec![Destination::Scripted(word.to_owned())]);
    }
    let text = match word.split_once("://") {
        None => word,
        Some(("dns", rest)) => rest,
        Some(("tls" | "https", _)) => {
            return Err(format!(
                "encrypted upstreams are not there yet: {word}; write an IP address"
            ));
        }
        Some((scheme, _)) => {
            return Err(format!(
                "'{scheme}' is not supported as a destination protocol in forward: {word}"
            ));
        }
    };
    if text.is_empty() {
        return Err(format!("invalid address: \"{word}\""));
    }
    if let Some(address) = parse_address(text) {
        return Ok(vec![Destination::Address(address)]);
    }
    // As CoreDNS, from the working directory; then from `root`.
    for path in [Path::new(text), &server.path(text)] {
        if path.exists() {
            let servers = read_resolv_conf(path)?;
            return Ok(servers.into_iter().map(Destination::Address).collect());
        }
    }
    if text.contains('/') {
        return Err(format!("no such file: {text}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, parse_port(port)),
        None => (text, Some(PORT)),
    };
    // RFC 3696 §2: the last label of a host name is not all digits; such a word is an address gone wrong.
    let last = host
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let is_name = !last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit());
    match (Name::parse(host), port) {
        (Ok(name), Some(port)) if is_name && !host.contains(':') => Ok(vec![Destination::Host {
            name,
            text: host.to_owned(),
            port,
        }]),
        _ => Err(format!(
            "not an IP address, file, or valid domain: \"{word}\"; write 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:5353"
        )),
    }
}

/// The servers of a file in resolv.conf's syntax, port 53 each.
pub(super) fn read_resolv_conf(path: &Path) -> Result<Vec<SocketAddr>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let facts = std::fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() || facts.len() > RESOLV_CONF_OCTETS_MAX {
        return Err(format!("{} is no resolv.conf file", path.display()));
    }
    let text = std::fs::read(path).map_err(unreadable)?;
    Ok(parse_resolv_conf(&String::from_utf8_lossy(&text)))
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let is_server = words.next() == Some("nameserver");
            let address = words.next().filter(|_| is_server)?;
            // The zone identifier is dropped, as in CoreDNS.
            let address = address.split_once('%').map_or(address, |(ip, _)| ip);
            Some(SocketAddr::new(address.parse().ok()?, PORT))
        })
        .collect()
}

/// `IP`, `IP:port`, `[v6]`, `[v6]:port`, each with `%zone` behind an IPv6 address.
fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Some(ip) = parse_ip(text, PORT) {
        return Some(ip);
    }
    let (host, port) = match text.strip_suffix(']') {
        Some(_) => (text, PORT),
        None => {
            let (host, port) = text.rsplit_once(':')?;
            (host, parse_port(port)?)
        }
    };
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) => parse_ip(v6, port).filter(SocketAddr::is_ipv6),
        None => parse_ip(host, port).filter(SocketAddr::is_ipv4),
    }
}

fn parse_ip(text: &str, port: u16) -> Option<SocketAddr> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    };
    Some(match (ip.parse().ok()?, zone) {
        (IpAddr::V6(ip), Some(zone)) => SocketAddrV6::new(ip, port, 0, scope_id(zone)).into(),
        (ip, _) => SocketAddr::new(ip, port),
    })
}

/// The number of an interface by name or number; 0, none, if there is no such interface.
fn scope_id(zone: &str) -> u32 {
    let by_name = || {
        let interfaces = if_addrs::get_if_addrs().ok()?;
        let found = interfaces.into_iter().find(|one| one.name == zone)?;
        found.index
    };
    zone.parse().ok().or_else(by_name).unwrap_or(0)
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}
