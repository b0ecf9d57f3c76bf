//! `skeindns doctor`: why does it not work, and what is to be done?
//!
//! ```text
//!   this machine ─▶ host.rs, sockets.rs      D01 listen, D02 privilege, D11 clients
//!   the cluster ──▶ cluster.rs               D03 endpoints, D04 api, D05 auth, D06 data, D13 time
//!   the keys ─────▶ config.rs, records.rs    D07 config, D08 records
//!   the server ───▶ server.rs                D09 zone, D10 forward, D12 firewall, D14 dnssec, D15 watch
//! ```
//! Every finding is a [`finding::Finding`] and says what to do. Nothing is changed anywhere.

mod cluster;
mod config;
mod finding;
mod host;
mod records;
mod server;
mod sockets;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use skein_plugins::etcd::{Client, Config, V2Client, V2Reply};
use skein_plugins::kit::dnsfile::{Directive, Dnsfile};
use skein_plugins::kit::options::parse_duration;
use skein_plugins::kit::wire::Name;

use super::cluster::Cluster;
use super::etcd_lines::{self, EtcdLine};
use super::skydns::Examined;
use super::verify::ask::{How, UDP_OCTETS};
use super::verify::model::{Key, Model};
use super::verify::report::Format;
use super::verify::server_address;
use super::verify::state;
use finding::{Finding, Findings, Level, TITLES};

const EXAMPLES: &str = "\
Examples:
  skeindns doctor                                        of a `skeindns skydns`: what /skydns/config says, on this machine
  skeindns doctor --conf /etc/skeindns/Dnsfile           of a server with a Dnsfile
  skeindns doctor --check D03,D04,D05                    these checks only
  skeindns doctor --server 10.10.10.214 --endpoint http://10.10.10.201:2379,http://10.10.10.202:2379 --format json

Exit codes: 0 no failure (perhaps warnings), 1 a failure, 64 usage.";

/// Why does it not work? Looks at this machine, the cluster, the keys and the server; changes nothing.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Only these checks, D01 to D15, with commas
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    check: Vec<String>,

    /// The server's address; the Dnsfile's without it, then that of the configuration object, then 127.0.0.1:53
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    server: Option<String>,

    /// The server's zones; the Dnsfile's without it, then that of the configuration object
    #[arg(long, value_name = "ZONE", value_delimiter = ',')]
    domain: Vec<String>,

    /// Where the server forwards to; the Dnsfile's without it, then those of the configuration object
    #[arg(long, value_name = "ADDRESS[:PORT],…", value_delimiter = ',')]
    upstream: Vec<String>,

    /// The name to ask upstreams for
    #[arg(long, default_value = "www.example.com", value_name = "NAME")]
    forwarded: String,

    /// The server's metrics; by the Dnsfile's `prometheus` without it
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,

    /// Which servers this machine asks
    #[arg(long, default_value = "/etc/resolv.conf", value_name = "FILE")]
    resolv_conf: PathBuf,

    /// In which order this machine looks names up
    #[arg(long, default_value = "/etc/nsswitch.conf", value_name = "FILE")]
    nsswitch: PathBuf,

    /// What to wait for an answer of DNS
    #[arg(long, default_value = "2s", value_name = "DURATION")]
    timeout: String,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    cluster: Cluster,
}

/// Runs the command.
pub(crate) fn doctor(args: &Doctor, conf: Option<&Path>, port: u16) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args, conf, port)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match result {
        Ok(findings) => {
            let fails = findings.iter().any(|found| found.level == Level::Fail);
            ExitCode::from(u8::from(fails))
        }
        Err(what) => {
            eprintln!("skeindns doctor: {what}");
            ExitCode::from(64)
        }
    }
}

async fn run(args: &Doctor, conf: Option<&Path>, port: u16) -> Result<Vec<Finding>, String> {
    let told = Told::read(args, conf, port)?;
    let mut findings: Vec<Findings> = Vec::new();
    let keys = of_cluster(args, &told, &mut findings).await;
    let known = Known::of(args, &told, keys.config.as_ref(), port)?;
    of_host(args, &known, &mut findings);
    of_server(args, &told, &known, &keys, &mut findings).await;
    let mut all: Vec<Finding> = findings.into_iter().flat_map(|found| found.all).collect();
    all.retain(|found| wants(args, found.id));
    all.sort_by_key(|found| found.id);
    finding::print(&all, args.format).map_err(|error| format!("cannot write: {error}"))?;
    Ok(all)
}

fn wants(args: &Doctor, id: &str) -> bool {
    args.check.is_empty()
        || args
            .check
            .iter()
            .any(|check| check.eq_ignore_ascii_case(id))
}

//--- What is told ------------------------------------------------------------------------------------

/// What flags and the Dnsfile say.
struct Told {
    config: Config,
    prefix: String,
    line: EtcdLine,
    file: Option<(Dnsfile, PathBuf)>,
    timeout: Duration,
}

impl Told {
    fn read(args: &Doctor, conf: Option<&Path>, port: u16) -> Result<Told, String> {
        for check in &args.check {
            if !TITLES.iter().any(|(id, _)| check.eq_ignore_ascii_case(id)) {
                let all: Vec<String> = TITLES
                    .iter()
                    .map(|(id, title)| format!("{id} {title}"))
                    .collect();
                return Err(format!("--check {check}: there are {}", all.join(", ")));
            }
        }
        let file = match conf {
            None => None,
            Some(path) => {
                let folder = path.parent().map(PathBuf::from).unwrap_or_default();
                Some((etcd_lines::read(path)?, folder))
            }
        };
        let lines = file
            .as_ref()
            .map(|(file, folder)| etcd_lines::of(file, folder, port));
        let line = lines
            .and_then(|lines| lines.into_iter().next())
            .unwrap_or_default();
        let timeout = parse_duration(&args.timeout)
            .ok()
            .filter(|timeout| !timeout.is_zero());
        Ok(Told {
            config: args.cluster.config(&line.cluster)?,
            prefix: args.cluster.prefix(&line.cluster)?,
            timeout: timeout
                .ok_or_else(|| format!("--timeout {}: write a duration like 2s", args.timeout))?,
            line,
            file,
        })
    }

    fn directives<'t>(&'t self, name: &'t str) -> impl Iterator<Item = &'t Directive> {
        let blocks = self.file.iter().flat_map(|(file, _)| &file.blocks);
        blocks
            .flat_map(|block| &block.directives)
            .filter(move |d| d.name.text == name)
    }

    /// Where `forward` lines lead to.
    fn upstreams(&self) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        let folder = self
            .file
            .as_ref()
            .map(|(_, folder)| folder.clone())
            .unwrap_or_default();
        for directive in self.directives("forward") {
            for word in directive.arguments.iter().skip(1) {
                match upstream(&word.text) {
                    Some(address) => found.push(address),
                    None => found.extend(of_resolv_conf(&folder.join(&word.text))),
                }
            }
        }
        found.dedup();
        found
    }

    /// Where `prometheus` listens, as seen from here.
    fn metrics(&self) -> Option<String> {
        let directive = self.directives("prometheus").next()?;
        let word = directive
            .arguments
            .first()
            .map_or("localhost:9153", |word| word.text.as_str());
        let word = word
            .replace("0.0.0.0", "127.0.0.1")
            .replace("[::]", "[::1]");
        Some(match word.strip_prefix(':') {
            Some(port) => format!("localhost:{port}"),
            None => word,
        })
    }
}

/// An upstream: an address with or without a port; another transport than DNS's own is not asked.
fn upstream(text: &str) -> Option<SocketAddr> {
    let text = text.strip_prefix("dns://").unwrap_or(text);
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let with_port = text.parse().ok();
    with_port.or_else(|| Some(SocketAddr::new(bare.parse().ok()?, 53)))
}

fn of_resolv_conf(path: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers
        .filter_map(|server| upstream(server.trim()))
        .collect()
}

/// What is known once the configuration object has been read.
struct Known {
    server: SocketAddr,
    domains: Vec<String>,
    upstreams: Vec<SocketAddr>,
}

impl Known {
    fn of(
        args: &Doctor,
        told: &Told,
        object: Option<&Examined>,
        port: u16,
    ) -> Result<Known, String> {
        let from_object = object.map(|object| object.dns_addr);
        let server = match &args.server {
            Some(text) => server_address(text, port)?,
            None => told
                .line
                .server
                .or(from_object)
                .unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        };
        let mut domains: Vec<String> = Vec::new();
        for text in &args.domain {
            let name = Name::parse(text).map_err(|error| format!("--domain {text}: {error}"))?;
            domains.push(name.to_lowercase().to_string());
        }
        if domains.is_empty() {
            domains.extend(
                told.line
                    .zones
                    .iter()
                    .filter(|zone| !zone.ends_with(".arpa."))
                    .cloned(),
            );
        }
        if domains.is_empty() {
            domains.push(
                object.map_or_else(|| "skydns.local.".into(), |object| object.domain.clone()),
            );
        }
        let mut upstreams = Vec::new();
        for text in &args.upstream {
            let read = upstream(text);
            upstreams.push(read.ok_or_else(|| {
                format!("--upstream {text}: write an address like 192.0.2.53 or 192.0.2.53:5353")
            })?);
        }
        if upstreams.is_empty() {
            upstreams = told.upstreams();
        }
        if upstreams.is_empty() && told.file.is_none() {
            upstreams = object
                .map(|object| object.nameservers.clone())
                .unwrap_or_default();
        }
        Ok(Known {
            server: asked_at(server),
            domains,
            upstreams,
        })
    }
}

/// A server that listens on every address is asked over loopback.
fn asked_at(server: SocketAddr) -> SocketAddr {
    match server.ip() {
        ip if !ip.is_unspecified() => server,
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.port()),
        IpAddr::V6(_) => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), server.port()),
    }
}

//--- The checks --------------------------------------------------------------------------------------

/// What the cluster holds.
#[derive(Default)]
struct Keys {
    keys: Vec<Key>,
    config: Option<Examined>,
    lag: Option<Findings>,
    are_read: bool,
}

async fn of_cluster(args: &Doctor, told: &Told, findings: &mut Vec<Findings>) -> Keys {
    let mut keys = Keys::default();
    let client = match Client::new(&told.config) {
        Ok(client) => client,
        Err(what) => {
            let mut tls = Findings::of("D03");
            tls.fail(
                what,
                "correct the file, or name another with --ca, --cert, --key or `tls`",
            );
            findings.push(tls);
            return keys;
        }
    };
    let (endpoints, found) = cluster::endpoints(&told.config).await;
    findings.push(found);
    findings.push(cluster::time(&endpoints));
    findings.push(cluster::apis(&endpoints));
    let mut lag = Findings::of("D15");
    cluster::lag(&endpoints, &mut lag);
    keys.lag = Some(lag);
    if endpoints.is_empty() {
        return keys;
    }
    if wants(args, "D05") {
        findings.push(cluster::auth(&told.config, &client, &told.prefix).await);
    }
    if wants(args, "D06") {
        findings.push(
            cluster::data(
                &told.config,
                &client,
                &endpoints,
                &told.prefix,
                told.line.word("api"),
            )
            .await,
        );
    }
    let v2 = endpoints
        .iter()
        .any(|endpoint| endpoint.v2 == cluster::Api::There);
    let v2 = if v2 {
        V2Client::new(&told.config).ok()
    } else {
        None
    };
    let object = config::fetch(&client, v2.as_ref(), &told.prefix).await;
    let (examined, found) = config::config(object.as_ref(), &told.prefix);
    findings.push(found);
    keys.config = examined;
    if let Ok(found) = state::keys(&client, &told.prefix).await {
        (keys.keys, keys.are_read) = (found, true);
    }
    if keys.keys.is_empty()
        && let Some(v2) = &v2
        && let Ok(Some(reply)) = v2.list(told.prefix.trim_end_matches('/')).await
    {
        (keys.keys, keys.are_read) = (of_v2(&reply, &told.prefix), true);
    }
    keys
}

/// Keys of the v2 store; what is left of their time stands for a lease.
fn of_v2(reply: &V2Reply, prefix: &str) -> Vec<Key> {
    let nodes = reply.values().filter_map(|node| {
        Some(Key {
            path: node.key.strip_prefix(prefix)?.as_bytes().to_vec(),
            value: node.value.clone().into_bytes(),
            lease: node
                .ttl
                .map(|ttl| u32::try_from(ttl.max(1)).unwrap_or(u32::MAX)),
        })
    });
    nodes.collect()
}

fn of_host(args: &Doctor, known: &Known, findings: &mut Vec<Findings>) {
    findings.push(host::listen(known.server));
    findings.push(host::privilege(known.server));
    findings.push(host::clients(
        known.server,
        &known.domains,
        &args.resolv_conf,
        &args.nsswitch,
    ));
}

async fn of_server(
    args: &Doctor,
    told: &Told,
    known: &Known,
    keys: &Keys,
    findings: &mut Vec<Findings>,
) {
    let mut records = Findings::of("D08");
    match keys.are_read {
        true => records = records::records(&told.prefix, &keys.keys, &known.domains),
        false => records.warn("the keys cannot be read", "see D03 to D05"),
    }
    findings.push(records);
    let how = How {
        server: known.server,
        timeout: told.timeout,
        tcp: false,
        udp_octets: Some(UDP_OCTETS),
        dnssec: false,
    };
    if wants(args, "D09") {
        findings.push(server::zone(&how, &known.domains, &known.upstreams).await);
    }
    if wants(args, "D10") {
        findings.push(server::forward(&how, &known.upstreams, &args.forwarded).await);
    }
    let zone = known
        .domains
        .first()
        .and_then(|domain| Name::parse(domain).ok());
    let zone = zone.as_ref().map(Name::as_wire);
    if wants(args, "D12") {
        let model = Model::new(keys.keys.iter().cloned());
        let largest = zone.and_then(|zone| server::largest(&model.names(), zone));
        findings.push(server::firewall(&how, zone, largest.as_deref()).await);
    }
    if wants(args, "D14") {
        let is_configured = told.directives("dnssec").next().is_some();
        findings.push(server::dnssec(&how, zone, is_configured).await);
    }
    if wants(args, "D15") {
        let metrics = args.metrics.clone().or_else(|| told.metrics());
        let mut watch = Findings::of("D15");
        server::watch(metrics.as_deref(), &mut watch).await;
        watch
            .all
            .extend(keys.lag.iter().flat_map(|lag| lag.all.iter().cloned()));
        findings.push(watch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_have_port_53_unless_they_say_so() {
        let read = |text| upstream(text).map(|address| address.to_string());
        assert_eq!(read("192.0.2.1").as_deref(), Some("192.0.2.1:53"));
        assert_eq!(read("dns://192.0.2.1:54").as_deref(), Some("192.0.2.1:54"));
        assert_eq!(read("2001:db8::1").as_deref(), Some("[2001:db8::1]:53"));
        assert_eq!(read("/etc/resolv.conf"), None);
        assert_eq!(read("tls://192.0.2.1"), None);
    }
}
