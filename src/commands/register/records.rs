//! The records that this machine wants: keys and values, from the configuration, its name and its addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::addresses::Address;
use super::config::{Config, Layout, OnConflict, Service};

/// Octets of a value: what the servers that read them hold to be sensible.
const VALUE_OCTETS_MAX: usize = 1_024;

/// What a record is for, which decides what happens when another owner has its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The name's address, below the name.
    Address,
    /// The name's one address, at the name itself.
    Single,
    /// The address's name.
    Reverse,
    /// Another name of this machine, a service, a name server.
    Further,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) value: String,
}

/// All records, and where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// By key.
    pub(super) wanted: BTreeMap<String, Wanted>,
    /// The keys of the names: what other owners have at them or below is a conflict.
    pub(super) homes: Vec<String>,
    /// The names, the first of which reverse records lead to.
    pub(super) names: Vec<String>,
}

/// The records of a machine with this name (below the domain) and these addresses. Without addresses there are none.
pub(super) fn records(
    config: &Config,
    name: &str,
    addresses: &[Address],
) -> Result<Records, String> {
    let mut records = Records {
        names: config
            .domains
            .iter()
            .map(|domain| format!("{name}.{domain}"))
            .collect(),
        ..Records::default()
    };
    records.homes = records
        .names
        .iter()
        .map(|name| key(&config.prefix, name))
        .collect();
    if let Some(long) = records.names.iter().find(|name| name.len() > 253) {
        return Err(format!("{long}: a name of more than 253 octets"));
    }
    if addresses.is_empty() {
        return Ok(records);
    }
    // One key holds one address, and a reverse record for another one would lead to a name without it.
    let addresses = match config.layout {
        Layout::Single => addresses.get(..1).unwrap_or_default(),
        Layout::Instances => addresses,
    };
    let maker = Maker { config, name };
    for domain in &config.domains {
        maker.addresses(domain, addresses, &mut records.wanted);
        maker.further(domain, addresses, &mut records.wanted);
    }
    if config.reverse {
        maker.reverse(addresses, &mut records.wanted);
    }
    match records
        .wanted
        .iter()
        .find(|(_, wanted)| wanted.value.len() > VALUE_OCTETS_MAX)
    {
        Some((key, _)) => Err(format!(
            "{key}: a value of more than {VALUE_OCTETS_MAX} octets; shorten --text or --group"
        )),
        None => Ok(records),
    }
}

struct Maker<'c> {
    config: &'c Config,
    name: &'c str,
}

impl Maker<'_> {
    fn addresses(&self, domain: &str, addresses: &[Address], into: &mut BTreeMap<String, Wanted>) {
        let home = key(&self.config.prefix, &format!("{}.{domain}", self.name));
        let single = self.config.layout == Layout::Single;
        for (at, address) in addresses.iter().enumerate() {
            let mut value = Map::new();
            value.insert("host".into(), address.ip.to_string().into());
            if !single {
                // So that services lead to the name and not to the key below it.
                value.insert("targetstrip".into(), 1.into());
            }
            if let Some(group) = &self.config.group {
                value.insert("group".into(), group.clone().into());
            }
            // Once for the name, however many addresses it has.
            if let Some(text) = self.config.text.as_ref().filter(|_| at == 0) {
                value.insert("text".into(), text.clone().into());
            }
            if !address.interface.is_empty() {
                value.insert("x-if".into(), address.interface.clone().into());
            }
            if self.config.on_conflict == OnConflict::Takeover {
                value.insert("x-exclusive".into(), true.into());
            }
            let (key, kind) = match single {
                true => (home.clone(), Kind::Single),
                false => (format!("{home}/{}", label(address.ip)), Kind::Address),
            };
            into.insert(key, self.record(kind, value));
        }
    }

    fn reverse(&self, addresses: &[Address], into: &mut BTreeMap<String, Wanted>) {
        for address in addresses {
            let mut value = Map::new();
            value.insert("host".into(), self.canonical().into());
            let key = reverse_key(&self.config.prefix, address.ip);
            into.insert(key, self.record(Kind::Reverse, value));
        }
    }

    /// Aliases, services and name servers.
    fn further(&self, domain: &str, addresses: &[Address], into: &mut BTreeMap<String, Wanted>) {
        let name = format!("{}.{domain}.", self.name);
        for alias in &self.config.aliases {
            let mut value = Map::new();
            value.insert("host".into(), name.clone().into());
            into.insert(
                key(&self.config.prefix, &format!("{alias}.{domain}")),
                self.record(Kind::Further, value),
            );
        }
        for service in &self.config.services {
            let key = key(
                &self.config.prefix,
                &format!("{}.{}.{domain}", self.name, service.name),
            );
            into.insert(key, self.service(service, &name));
        }
        if self.config.nameserver
            && let Some(address) = addresses.first()
        {
            // The target of an NS record made of it is its own key as a name, so that it needs an address.
            let mut value = Map::new();
            value.insert("host".into(), address.ip.to_string().into());
            let key = key(
                &self.config.prefix,
                &format!("{}.ns.dns.{domain}", self.name),
            );
            into.insert(key, self.record(Kind::Further, value));
        }
    }

    fn service(&self, service: &Service, name: &str) -> Wanted {
        let mut value = Map::new();
        value.insert("host".into(), name.into());
        value.insert("port".into(), service.port.into());
        for (field, number) in [("priority", service.priority), ("weight", service.weight)] {
            if let Some(number) = number {
                value.insert(field.into(), number.into());
            }
        }
        if let Some(text) = &service.text {
            value.insert("text".into(), text.clone().into());
        }
        self.record(Kind::Further, value)
    }

    fn canonical(&self) -> String {
        let domain = self.config.domains.first().map_or("", String::as_str);
        format!("{}.{domain}.", self.name)
    }

    /// What every record has: servers ignore fields that they do not know.
    fn record(&self, kind: Kind, mut value: Map<String, Value>) -> Wanted {
        value.insert("ttl".into(), self.config.ttl.into());
        value.insert("x-owner".into(), self.config.owner.clone().into());
        Wanted {
            kind,
            value: Value::Object(value).to_string(),
        }
    }
}

/// `/skydns/local/skydns/x` for `x.skydns.local`.
fn key(prefix: &str, name: &str) -> String {
    let labels: Vec<&str> = name.split('.').rev().collect();
    format!("{prefix}{}", labels.join("/"))
}

/// `4-192-0-2-11`, or `6-` and 32 digits.
fn label(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("4-{}", ip.to_string().replace('.', "-")),
        IpAddr::V6(ip) => format!("6-{}", data_encoding::HEXLOWER.encode(&ip.octets())),
    }
}

/// The key of an address's reverse name. It reads like the address: both the name and the path turn it round.
pub(super) fn reverse_key(prefix: &str, ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{prefix}arpa/in-addr/{}", ip.to_string().replace('.', "/")),
        IpAddr::V6(ip) => {
            let digits = data_encoding::HEXLOWER.encode(&ip.octets());
            let digits: Vec<String> = digits.chars().map(String::from).collect();
            format!("{prefix}arpa/ip6/{}", digits.join("/"))
        }
    }
}

/// What a value says of itself.
pub(super) struct Mark {
    /// Whose it is; nobody's in particular without a mark.
    pub(super) owner: Option<String>,
    /// Its owner wants the name for itself.
    pub(super) exclusive: bool,
    pub(super) host: Option<String>,
}

impl Mark {
    /// Reads a value; one that is no record has no mark.
    pub(super) fn of(value: &[u8]) -> Mark {
        let value: Value = serde_json::from_slice(value).unwrap_or_default();
        let text = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
        Mark {
            owner: text("x-owner"),
            exclusive: value.get("x-exclusive") == Some(&Value::Bool(true)),
            host: text("host"),
        }
    }
}
