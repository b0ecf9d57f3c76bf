//! Stub zones: zones whose servers stand in etcd, below `dns/stub` of a zone of ours, as SkyDNS has them.
//!
//! `/skydns/local/skydns/dns/stub/org/example/ns1` with `{"host":"192.0.2.1"}` sends queries for `example.org` and everything below it to
//! 192.0.2.1. The table is made anew whenever the tree has changed there, and workers read it without waiting for anybody.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::follow::Follower;
use super::record::Host;
use super::tree::{below, name_of};
use super::zone::ZoneData;
use crate::forward::{Servers, ServersConfig};
use crate::kit::errors::ServeError;
use crate::kit::handler::Served;
use crate::kit::live::Live;
use crate::kit::options::{Arg, Kind, Opt, Property};
use crate::kit::query::Query;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::name::is_within;
use crate::kit::zones::ZoneSet;

/// The option's row.
pub(super) const OPTION: Opt = Opt::new(
    "stubzones",
    &[
        Arg::optional(
            "TIMEOUT",
            Kind::Duration {
                min: Duration::from_millis(1),
                max: Duration::from_secs(60),
            },
        ),
        Arg::optional("ORDER", Kind::Choice(&["round_robin", "sequential"])),
    ],
    "off; 2s round_robin",
    "like SkyDNS: asks the servers that stand below `dns/stub` of the ZONES for the zones there; without `answers skydns` it has no effect, as in CoreDNS",
);

/// Says that a query has come through a stub zone once: SkyDNS's option, so that two servers of either kind end a loop.
const MARK: (u16, u8) = (65_011, 1);
/// Zones, at most; each has sockets of its own when it is asked.
const ZONES_MAX: usize = 1000;
/// Servers of a zone, at most.
const SERVERS_MAX: usize = 16;
/// How often we look whether the tree has changed: a change shows within it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Zones by name, wire form and lower-case.
type Table = HashMap<Box<[u8]>, Arc<Servers>>;
/// The same as it stands in etcd.
type Wanted = BTreeMap<Box<[u8]>, Vec<SocketAddr>>;

/// The stub zones of an `etcd` line.
#[derive(Clone)]
pub(super) struct Stubs {
    table: Arc<Live<Table>>,
}

impl Stubs {
    /// Follows what is in the tree from now on.
    pub(super) fn new(
        option: &Property,
        zones: &ZoneSet,
        follower: &Arc<Follower>,
        server: &mut ServerSetup<'_>,
    ) -> Stubs {
        let timeout = option.arg("TIMEOUT");
        let timeout = timeout.map_or(Duration::from_secs(2), |word| word.duration());
        let is_sequential = option
            .arg("ORDER")
            .is_some_and(|order| order.text() == "sequential");
        let mut keeper = Keeper {
            table: Arc::new(Live::new(Table::new(), server.workers())),
            common: ServersConfig::new(server, timeout, is_sequential, Some(MARK)),
            zones: zones.clone(),
            follower: Arc::clone(follower),
            wanted: Wanted::new(),
            said: Vec::new(),
        };
        let table = Arc::clone(&keeper.table);
        // After a reload the tree is there already.
        keeper.renew();
        server.background("etcd: stub zones", async move { keeper.keep().await });
        Stubs { table }
    }

    /// The answer of a stub zone's servers, or the query if it is in none. No allocation while there is no stub zone.
    pub(super) fn serve<'c>(&self, query: Query) -> Result<Served<'c>, Query> {
        let servers = {
            let table = self.table.read();
            match table.is_empty() {
                true => None,
                false => longest(&table, query.qname()),
            }
        };
        let Some(servers) = servers else {
            return Err(query);
        };
        let (code, octet) = MARK;
        let mut options = query.options();
        if options.any(|(found, data)| found == code && data == [octet]) {
            drop(options);
            let what = "a query for a stub zone came back to us: its servers lead here";
            return Ok(Served::Now(query.fail(ServeError::Limit(what.into()))));
        }
        drop(options);
        Ok(Served::later(async move { servers.ask(query).await }))
    }
}

/// The servers of the longest zone that a name is in.
fn longest<T>(table: &HashMap<Box<[u8]>, Arc<T>>, qname: &[u8]) -> Option<Arc<T>> {
    let mut rest = qname;
    loop {
        if let Some(servers) = table.get(rest) {
            return Some(Arc::clone(servers));
        }
        let length = usize::from(*rest.first()?);
        if length == 0 {
            return None;
        }
        rest = rest.get(length + 1..)?;
    }
}

/// Keeps the table equal to what is in the tree.
struct Keeper {
    table: Arc<Live<Table>>,
    common: ServersConfig,
    zones: ZoneSet,
    follower: Arc<Follower>,
    wanted: Wanted,
    // What the log has said of records that cannot be used.
    said: Vec<String>,
}

impl Keeper {
    async fn keep(&mut self) {
        let mut seen = 0;
        let mut since_sweep = Duration::ZERO;
        loop {
            let changes = self.follower.tree().changes();
            if changes != seen {
                seen = changes;
                self.renew();
            }
            tokio::time::sleep(LOOK_EVERY).await;
            since_sweep += LOOK_EVERY;
            if since_sweep >= SWEEP_EVERY {
                since_sweep = Duration::ZERO;
                let table = Arc::clone(&*self.table.read());
                for servers in table.values() {
                    servers.sweep();
                }
            }
        }
    }

    /// Makes the table anew if it is not what it should be. Groups that stay the same keep their connections.
    fn renew(&mut self) {
        let (wanted, said) = read(&self.follower, &self.zones);
        for line in said.iter().filter(|line| !self.said.contains(line)) {
            tracing::warn!("plugin/etcd: {line}");
        }
        self.said = said;
        if wanted == self.wanted {
            return;
        }
        let old = Arc::clone(&*self.table.read());
        let new: Table = wanted
            .iter()
            .map(|(zone, addresses)| {
                let same = old
                    .get(zone)
                    .filter(|_| self.wanted.get(zone) == Some(addresses));
                let servers = same.map_or_else(
                    || Arc::new(Servers::new(addresses, &self.common)),
                    Arc::clone,
                );
                (zone.clone(), servers)
            })
            .collect();
        self.table.replace(new);
        self.wanted = wanted;
    }
}

/// What stands in the tree, and what is wrong with it.
fn read(follower: &Follower, zones: &ZoneSet) -> (Wanted, Vec<String>) {
    let mut wanted = Wanted::new();
    let mut said = Vec::new();
    let keys = follower.tree().keys();
    for zone in zones.iter() {
        let mut base = ZoneData::path(zone);
        if !base.is_empty() {
            base.push(b'/');
        }
        base.extend_from_slice(b"dns/stub");
        for (path, record) in below(&keys, &base) {
            let inside = path.get(base.len() + 1..).unwrap_or_default();
            let shown = String::from_utf8_lossy(path);
            let mut wrong =
                |what: &str| said.push(format!("stub zone {shown} is left out: {what}"));
            // The last segment tells the servers of a zone apart.
            let last = inside.iter().rposition(|octet| *octet == b'/');
            let Some(stub) = last.and_then(|last| name_of(inside.get(..last)?)) else {
                wrong("the zone is missing; write dns/stub/org/example/ns1 for example.org");
                continue;
            };
            let stub: Box<[u8]> = stub.as_wire().to_ascii_lowercase().into();
            if is_within(zone.name.as_wire(), &stub) {
                wrong("it would take our own zone away");
                continue;
            }
            // `local.dns` of the zone is answered from the configuration.
            let mut reserved = b"\x05local\x03dns".to_vec();
            reserved.extend_from_slice(zone.name.as_wire());
            if *stub == *reserved {
                wrong("local.dns is answered by ourselves");
                continue;
            }
            let ip: IpAddr = match &record.host {
                Host::V4(ip) => (*ip).into(),
                Host::V6(ip) => (*ip).into(),
                Host::Name(_) | Host::None => {
                    wrong("its host is no address");
                    continue;
                }
            };
            let port = if record.port == 0 { 53 } else { record.port };
            if wanted.len() >= ZONES_MAX && !wanted.contains_key(&stub) {
                wrong("there are 1000 stub zones already");
                break;
            }
            let servers = wanted.entry(stub).or_default();
            let address = SocketAddr::new(ip, port);
            if servers.len() < SERVERS_MAX && !servers.contains(&address) {
                servers.push(address);
            }
        }
    }
    (wanted, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_zone_counts() {
        let table: HashMap<Box<[u8]>, Arc<u8>> = [
            (Box::from(&b"\x03org\0"[..]), Arc::new(1)),
            (Box::from(&b"\x01a\x03org\0"[..]), Arc::new(2)),
        ]
        .into();
        let find = |qname: &[u8]| longest(&table, qname).map(|found| *found);
        assert_eq!(find(b"\x01x\x01a\x03org\0"), Some(2));
        assert_eq!(find(b"\x01b\x03org\0"), Some(1));
        assert_eq!(find(b"\x03com\0"), None);
    }
}
