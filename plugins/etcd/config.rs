//! The `etcd` line of a Dnsfile: its options, and [`Config`], what was written and checked.

use std::hash::BuildHasher;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::api::Backend;
use super::auto::Auto;
use super::client::{Client, Config as Cluster, Credentials, TlsFiles, parse_endpoint};
use super::style::{self, Style};
use super::v2::{V2Backend, V2Client};
use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::fallthrough::{self, Fallthrough};
use crate::kit::options::{Arg, Checked, Kind, Opt};
use crate::kit::setup::ServerSetup;
use crate::kit::zones::ZoneSet;

pub(super) const ARGUMENTS: &[Arg] = &[Arg::any("ZONES", Kind::Zone)];

const LEASE_TTL: Kind = Kind::Seconds {
    min: Duration::ZERO,
    max: Duration::from_secs(u32::MAX as u64),
};

pub(super) const OPTIONS: &[Opt] = &[
    fallthrough::OPTION,
    Opt::new(
        "path",
        &[Arg::one("PREFIX", Kind::Text)],
        "skydns",
        "where the keys are; several segments are fine",
    ),
    Opt::new(
        "endpoint",
        &[Arg::some("URL", Kind::Text)],
        "http://localhost:2379",
        "the members of the cluster; if one fails the next is used",
    ),
    Opt::new(
        "api",
        &[Arg::one("WHICH", Kind::Choice(&["v3", "v2", "auto"]))],
        "v3",
        "which of etcd's two stores is followed; `auto` takes v2 if only it has keys",
    ),
    Opt::new(
        "credentials",
        &[
            Arg::one("USER", Kind::Text),
            Arg::one("PASSWORD", Kind::Text),
        ],
        "none",
        "the etcd user to read as",
    ),
    Opt::new(
        "tls",
        &[Arg::any("FILE", Kind::Path)],
        "the system's CAs",
        "for https: nothing, CA, or CERT KEY, or CERT KEY CA",
    ),
    Opt::new(
        "min-lease-ttl",
        &[Arg::one("TTL", LEASE_TTL)],
        "30s",
        "TTL that a shorter lease is taken for",
    ),
    Opt::new(
        "max-lease-ttl",
        &[Arg::one("TTL", LEASE_TTL)],
        "24h",
        "TTL that a longer lease is taken for",
    ),
    Opt::new(
        "subtree",
        &[Arg::one("MODE", Kind::Choice(&["on", "children", "off"]))],
        "on",
        "what a name with records below it answers: all of them, those one level below, or its own only",
    ),
    Opt::new(
        "serial",
        &[Arg::one("OF", Kind::Choice(&["revision", "time"]))],
        "revision",
        "the SOA serial: the zone's newest revision, or the clock as in CoreDNS",
    ),
    Opt::new(
        "answers",
        &[Arg::one("LIKE", Kind::Choice(&["coredns", "skydns"]))],
        "coredns",
        "whose answers are given where the two differ",
    ),
    Opt::new(
        "ttl",
        &[Arg::one("TTL", LEASE_TTL)],
        "300s; like SkyDNS 3600s",
        "TTL of records that have neither one of their own nor a lease",
    ),
    Opt::new(
        "min-ttl",
        &[Arg::one("TTL", LEASE_TTL)],
        "30s; like SkyDNS 60s",
        "for how long resolvers may keep that there is no such name or record",
    ),
    Opt::new(
        "priority",
        &[Arg::one(
            "N",
            Kind::Integer {
                min: 0,
                max: 65_535,
            },
        )],
        "10",
        "priority of records that say none",
    ),
    Opt::new(
        "hostmaster",
        &[Arg::one("MAIL", Kind::Text)],
        "hostmaster.ZONE",
        "who answers for the zone, in its SOA record",
    ),
    Opt::new(
        "apex",
        &[Arg::one("FROM", Kind::Choice(&["subtree", "own"]))],
        "subtree",
        "what the zone's own name answers without `dns/apex`: all of the zone, as `subtree` has it, or its own key only",
    ),
    Opt::new(
        "wildcards",
        &[Arg::one(
            "WHERE",
            Kind::Choice(&["queries", "records", "both"]),
        )],
        "queries",
        "`*` and `any` in a query stand for any label; `*` in a key answers names that are not there (RFC 4592); or both",
    ),
    Opt::new(
        "auto-ptr",
        &[],
        "off",
        "addresses in the reverse ZONES that have no record of their own lead to the names in the other ZONES that have them",
    ),
    Opt::new(
        "fallthrough-nodata",
        &[Arg::any("ZONES", Kind::Zone)],
        "off",
        "pass names on to the next plugin that exist but have no record of the type; with ZONES only names in them",
    ),
    Opt::new(
        "local",
        &[Arg::one("NAME", Kind::Text)],
        "none",
        "like SkyDNS: the name that `local.dns.ZONE` stands for",
    ),
    Opt::new(
        "ndots",
        &[Arg::one("N", Kind::Integer { min: 1, max: 127 })],
        "2",
        "like SkyDNS: names outside the ZONES with fewer labels are not passed on",
    ),
    Opt::new(
        "no-rec",
        &[],
        "off",
        "like SkyDNS: names outside the ZONES are passed on only to complete an answer",
    ),
    Opt::new(
        "completion-ttl",
        &[Arg::one("TTL", LEASE_TTL)],
        "60s",
        "like SkyDNS: the longest TTL of what an answer is completed with",
    ),
    Opt::new(
        "snapshot",
        &[Arg::optional("FILE", Kind::Path)],
        "off; FILE PREFIX-HASH.snapshot",
        "keeps what is known on disk too, for a restart while etcd is away",
    ),
    Opt::new(
        "embedded",
        &[Arg::optional("DIR", Kind::Path)],
        "off; DIR skeindns-data",
        "a store inside the server instead of a cluster, for one machine",
    ),
    Opt::new(
        "listen",
        &[Arg::one("ADDRESS", Kind::Text)],
        "127.0.0.1:2379",
        "where the embedded store offers etcd's JSON API on loopback; `off` for nowhere",
    ),
    super::stubs::OPTION,
    Opt::ignored(
        "upstream",
        "without effect: the server's own chain is asked",
    ),
    Opt::ignored("debug", "without effect"),
];

/// One `etcd` line.
pub(super) struct Config {
    pub(super) zones: ZoneSet,
    pub(super) fallthrough: Fallthrough,
    /// What all keys start with, from slash to slash.
    pub(super) prefix: Vec<u8>,
    pub(super) store: Store,
    /// Where the tree is kept on disk.
    pub(super) snapshot: Option<SnapshotFile>,
    pub(super) lease_ttl: LeaseTtl,
    pub(super) fallthrough_nodata: Fallthrough,
    pub(super) style: Style,
}

/// Where the keys are.
pub(super) enum Store {
    /// In a cluster, by endpoint.
    Cluster {
        backend: Arc<dyn Backend>,
        // `v3`, `v2` or `auto`, and the endpoints.
        keys_of: String,
        // Says which cluster, as which user and with which files; no secret in it.
        identity: String,
    },
    /// In the server.
    Embedded {
        directory: PathBuf,
        listen: Option<std::net::SocketAddr>,
    },
}

/// Where a tree is kept on disk.
pub(super) struct SnapshotFile {
    pub(super) file: PathBuf,
    /// What it must be of to be read: the same keys of the same cluster.
    pub(super) of: String,
}

/// What a lease's time is kept between, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LeaseTtl {
    pub(super) min: u32,
    pub(super) max: u32,
}

impl LeaseTtl {
    /// The TTL for a lease granted for so long.
    pub(super) fn of(self, granted: Duration) -> u32 {
        let granted = u32::try_from(granted.as_secs()).unwrap_or(u32::MAX);
        // Not `clamp`: a Dnsfile may say them the wrong way round, and then the upper one counts, as in CoreDNS.
        granted.max(self.min).min(self.max)
    }
}

impl Config {
    /// What instances must have in common to follow together.
    pub(super) fn follow_key(&self) -> String {
        let store = match &self.store {
            Store::Cluster { identity, .. } => identity.clone(),
            Store::Embedded { directory, .. } => format!("embedded {}", directory.display()),
        };
        let snapshot = self.snapshot.as_ref();
        let snapshot = snapshot.map_or_else(String::new, |at| at.file.display().to_string());
        format!(
            "etcd {store} {} {snapshot} {}-{}",
            String::from_utf8_lossy(&self.prefix),
            self.lease_ttl.min,
            self.lease_ttl.max
        )
    }

    /// What answers depend on beside the records.
    pub(super) fn view(&self) -> String {
        let mut view = format!("{:?}", self.style);
        for zone in self.zones.iter() {
            view.push(' ');
            view.push_str(&zone.text);
        }
        view
    }
}

/// Reads a directive.
pub(super) fn read(
    directive: &Checked,
    server: &mut ServerSetup<'_>,
) -> Result<Config, SetupErrors> {
    let zones: Vec<_> = directive
        .args("ZONES")
        .flat_map(|value| value.zones().iter().cloned())
        .collect();
    let zones = match zones.is_empty() {
        true => server.zones().clone(),
        false => ZoneSet::new(zones),
    };
    let seconds = |option: &str, default: u32| {
        let value = directive.option(option).and_then(|line| line.arg("TTL"));
        value.map_or(default, |ttl| {
            u32::try_from(ttl.duration().as_secs()).unwrap_or(u32::MAX)
        })
    };
    let word = |option: &str, argument: &str| {
        let value = directive.option(option).and_then(|line| line.arg(argument));
        value.map(|value| value.text().to_owned())
    };
    let prefix = prefix(&word("path", "PREFIX").unwrap_or_else(|| "skydns".into()));
    let store = store(directive, &prefix, server)?;
    Ok(Config {
        zones,
        fallthrough: Fallthrough::read(directive),
        snapshot: snapshot(directive, &store, &prefix, server)?,
        store,
        prefix,
        lease_ttl: LeaseTtl {
            min: seconds("min-lease-ttl", 30),
            max: seconds("max-lease-ttl", 86_400),
        },
        fallthrough_nodata: Fallthrough::read_as("fallthrough-nodata", directive),
        style: style::read(directive)?,
    })
}

/// `/skydns/` for `skydns`, `/skydns` and `/skydns/`.
fn prefix(path: &str) -> Vec<u8> {
    let mut prefix = b"/".to_vec();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        prefix.extend_from_slice(segment.as_bytes());
        prefix.push(b'/');
    }
    prefix
}

fn store(
    directive: &Checked,
    prefix: &[u8],
    server: &mut ServerSetup<'_>,
) -> Result<Store, SetupErrors> {
    if let Some(embedded) = directive.option("embedded") {
        let others = ["endpoint", "api", "credentials", "tls"];
        let mut errors = SetupErrors::default();
        for other in others.iter().filter_map(|name| directive.option(name)) {
            errors.0.push(SetupError::at(
                other.span(),
                format!(
                    "`{}` says how to reach a cluster, but `embedded` keeps the keys in this server; remove one of them",
                    other.word.text
                ),
            ));
        }
        let listen = listen_address(directive).map_err(|error| errors.0.push(error));
        let directory = embedded
            .arg("DIR")
            .map_or("skeindns-data", |dir| dir.text());
        return match listen {
            Ok(listen) if errors.0.is_empty() => Ok(Store::Embedded {
                directory: server.path(directory),
                listen,
            }),
            _ => Err(errors),
        };
    }
    if let Some(listen) = directive.option("listen") {
        return Err(SetupError::at(
            listen.span(),
            "`listen` belongs to `embedded`; write `embedded` too, or remove it",
        )
        .into());
    }
    cluster(directive, prefix, server)
}

/// Where the embedded store listens; its API has no passwords, so loopback only.
fn listen_address(directive: &Checked) -> Result<Option<std::net::SocketAddr>, SetupError> {
    let word = directive
        .option("listen")
        .and_then(|line| line.arg("ADDRESS"));
    let (text, span) = match word {
        Some(word) if word.text() == "off" => return Ok(None),
        Some(word) => (word.text(), word.span()),
        None => ("127.0.0.1:2379", directive.span()),
    };
    let address = crate::kit::options::parse_listen(text)
        .map_err(|what| SetupError::at(span, format!("listen: {what}")))?;
    match address.ip().is_loopback() {
        true => Ok(Some(address)),
        false => Err(SetupError::at(
            span,
            format!(
                "the embedded store listens on loopback only, not on {address}: its API asks for no password; write 127.0.0.1:{}",
                address.port()
            ),
        )),
    }
}

fn cluster(
    directive: &Checked,
    prefix: &[u8],
    server: &mut ServerSetup<'_>,
) -> Result<Store, SetupErrors> {
    let mut errors = SetupErrors::default();
    let tls = directive.option("tls");
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoints = Vec::new();
    match directive.option("endpoint") {
        Some(line) => {
            for word in line.args("URL") {
                match parse_endpoint(word.text(), scheme) {
                    Ok(endpoint) if endpoints.contains(&endpoint) => {}
                    Ok(endpoint) => endpoints.push(endpoint),
                    Err(what) => errors.0.push(SetupError::at(word.span(), what)),
                }
            }
        }
        None => endpoints.push(format!("{scheme}://localhost:2379")),
    }
    let files = match tls.map(|line| tls_files(line, server)) {
        None => TlsFiles::default(),
        Some(Ok(files)) => files,
        Some(Err(error)) => {
            errors.0.push(error);
            TlsFiles::default()
        }
    };
    let credentials = directive.option("credentials").and_then(|line| {
        Some(Credentials {
            user: line.arg("USER")?.text().to_owned(),
            password: line.arg("PASSWORD")?.text().to_owned(),
        })
    });
    if !errors.0.is_empty() {
        return Err(errors);
    }
    let config = Cluster {
        endpoints,
        credentials,
        tls: files,
    };
    let api = directive
        .option("api")
        .and_then(|line| line.arg("WHICH"))
        .map_or("v3", |word| word.text());
    let backend = backend(api, &config, prefix).map_err(|what| {
        let span = tls.map_or(directive.span(), |line| line.span());
        SetupError::at(span, what)
    })?;
    Ok(Store::Cluster {
        backend,
        keys_of: format!("{api} {}", sorted(&config.endpoints)),
        identity: format!("{api} {}", identity(&config)),
    })
}

fn backend(api: &str, config: &Cluster, prefix: &[u8]) -> Result<Arc<dyn Backend>, String> {
    Ok(match api {
        "v2" => Arc::new(V2Backend(V2Client::new(config)?)),
        "auto" => Arc::new(Auto::new(
            Client::new(config)?,
            V2Client::new(config)?,
            prefix,
        )),
        _ => Arc::new(Client::new(config)?),
    })
}

fn tls_files(
    line: &crate::kit::options::Property,
    server: &ServerSetup<'_>,
) -> Result<TlsFiles, SetupError> {
    let files: Vec<PathBuf> = line.args("FILE").map(|f| server.path(f.text())).collect();
    match files.as_slice() {
        [] => Ok(TlsFiles::default()),
        [ca] => Ok(TlsFiles {
            ca: Some(ca.clone()),
            identity: None,
        }),
        [cert, key] => Ok(TlsFiles {
            ca: None,
            identity: Some((cert.clone(), key.clone())),
        }),
        [cert, key, ca] => Ok(TlsFiles {
            ca: Some(ca.clone()),
            identity: Some((cert.clone(), key.clone())),
        }),
        more => Err(SetupError::at(
            line.span(),
            format!(
                "maximum of three arguments allowed for TLS config, found {}; write `tls CERT KEY CA`",
                more.len()
            ),
        )),
    }
}

/// The same cluster by the same user with the same files. Their content does not count: the connections read it again by themselves.
fn identity(config: &Cluster) -> String {
    // A fixed seed: the same text after a reload, and nothing of the secrets in it.
    let hasher = foldhash::quality::FixedState::default();
    let rest = hasher.hash_one((&config.credentials, &config.tls));
    format!("{} {rest:016x}", sorted(&config.endpoints))
}

fn sorted(endpoints: &[String]) -> String {
    let mut endpoints = endpoints.to_vec();
    endpoints.sort();
    endpoints.join(",")
}

fn snapshot(
    directive: &Checked,
    store: &Store,
    prefix: &[u8],
    server: &ServerSetup<'_>,
) -> Result<Option<SnapshotFile>, SetupError> {
    let Some(line) = directive.option("snapshot") else {
        return Ok(None);
    };
    let Store::Cluster { keys_of, .. } = store else {
        return Err(SetupError::at(
            line.span(),
            "the embedded store is on disk already; remove `snapshot`",
        ));
    };
    let prefix = String::from_utf8_lossy(prefix);
    let of = format!("{keys_of} {prefix}");
    let (name, span) = match line.arg("FILE") {
        Some(word) => (word.text().to_owned(), word.span()),
        None => {
            let segments = prefix.trim_matches('/').replace('/', "-");
            let hash = foldhash::quality::FixedState::default().hash_one(&of);
            let name = format!("etcd-{segments}-{:08x}.snapshot", hash as u32);
            (name, line.span())
        }
    };
    let file = server.path(&name);
    let folder = file.parent().filter(|folder| folder.as_os_str() != "");
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(SetupError::at(
            span,
            format!(
                "there is no folder {} for the snapshot; make it, writable for this user",
                folder.display()
            ),
        ));
    }
    Ok(Some(SnapshotFile { file, of }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_a_slash_at_both_ends() {
        assert_eq!(prefix("skydns"), b"/skydns/");
        assert_eq!(prefix("/a//b/"), b"/a/b/");
        assert_eq!(prefix("/"), b"/");
    }

    #[test]
    fn a_lease_is_kept_between_its_bounds() {
        let bounds = LeaseTtl {
            min: 30,
            max: 86_400,
        };
        assert_eq!(bounds.of(Duration::from_secs(12)), 30);
        assert_eq!(bounds.of(Duration::from_secs(600)), 600);
        assert_eq!(bounds.of(Duration::from_secs(100_000)), 86_400);
    }
}
