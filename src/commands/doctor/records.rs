//! D08: the keys themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use skein_plugins::kit::wire::name::{self, is_within};
use skein_plugins::kit::wire::{Name, Rtype};

use super::super::verify::ask::Question;
use super::super::verify::model::{Answers, Key, Model, Rules, Zone, path_of};
use super::super::verify::service::{Host, Service};
use super::finding::Findings;

/// Keys that are named for one kind of trouble.
const NAMED_MAX: usize = 5;
/// Aliases in a row, after which a chain is a loop.
const CHAIN_MAX: usize = 16;

/// One kind of trouble.
struct Kind {
    fails: bool,
    what: &'static str,
    fix: &'static str,
}

/// Every kind, in the order in which they are printed.
const KINDS: [Kind; 13] = [
    Kind {
        fails: true,
        what: "keys have a value that cannot be read; they answer nothing",
        fix: "write each anew: `skeindns service put NAME --host ADDRESS`",
    },
    Kind {
        fails: true,
        what: "keys have letters in upper case; questions are looked up in lower case and never find them",
        fix: "write them in lower case and delete these",
    },
    Kind {
        fails: true,
        what: "keys have a segment that is no label (a dot, nothing, more than 63 octets)",
        fix: "one label, one segment: a.b is /b/a",
    },
    Kind {
        fails: false,
        what: "keys have neither host nor text and answer nothing",
        fix: "give each a host or a text, or delete it",
    },
    Kind {
        fails: true,
        what: "aliases lead in a circle",
        fix: "let one of them lead to an address",
    },
    Kind {
        fails: true,
        what: "aliases lead to names of the zone that do not exist",
        fix: "write the names that they lead to, or correct `host`",
    },
    Kind {
        fails: false,
        what: "names have a record of their own and others below it; by CoreDNS's answers those hide it",
        fix: "`subtree off` in the Dnsfile, or move the record to a label below",
    },
    Kind {
        fails: false,
        what: "services below _tcp or _udp have no port",
        fix: "write `port`: SRV answers have 0 in its place",
    },
    Kind {
        fails: false,
        what: "records have a TTL longer than the lease that they hang on; resolvers keep them after they are gone",
        fix: "write a `ttl` of half the lease or less",
    },
    Kind {
        fails: false,
        what: "addresses lead backwards to a name that does not have them",
        fix: "correct the key below arpa, or write the address of the name",
    },
    Kind {
        fails: false,
        what: "addresses have no name backwards",
        fix: "`skeindns service put REVERSED --host NAME`, or `auto-ptr` in the Dnsfile",
    },
    Kind {
        fails: false,
        what: "addresses belong to several names",
        fix: "if they are not meant to: one of the names is out of date",
    },
    Kind {
        fails: false,
        what: "keys have the label `any`, which a question uses for any label",
        fix: "name them otherwise, or write `wildcards records` in the Dnsfile",
    },
];

const MALFORMED: usize = 0;
const UPPER: usize = 1;
const NO_LABEL: usize = 2;
const EMPTY: usize = 3;
const LOOP: usize = 4;
const DANGLING: usize = 5;
const HIDDEN: usize = 6;
const NO_PORT: usize = 7;
const LONG_TTL: usize = 8;
const NO_FORWARD: usize = 9;
const NO_REVERSE: usize = 10;
const SHARED: usize = 11;
const ANY: usize = 12;

/// Looks at the keys (paths behind `prefix`).
pub(super) fn records(prefix: &str, keys: &[Key], domains: &[String]) -> Findings {
    let mut troubles = Troubles {
        prefix,
        found: BTreeMap::new(),
    };
    // The configuration object is no record.
    let keys: Vec<&Key> = keys.iter().filter(|key| key.path != b"config").collect();
    let mut services = Vec::new();
    for key in &keys {
        match Service::read(&key.value) {
            Ok(service) => services.push((*key, service)),
            Err(what) => troubles.add(MALFORMED, &key.path, &what),
        }
    }
    for (key, service) in &services {
        spelling(&mut troubles, key);
        alone(&mut troubles, key, service);
    }
    parents(&mut troubles, &keys);
    let model = Model::new(keys.iter().map(|key| (*key).clone()));
    aliases(&mut troubles, &services, &model, domains);
    backwards(&mut troubles, &services);
    troubles.findings(keys.len())
}

struct Troubles<'p> {
    prefix: &'p str,
    found: BTreeMap<usize, Vec<String>>,
}

impl Troubles<'_> {
    fn add(&mut self, kind: usize, path: &[u8], what: &str) {
        let key = format!(
            "{}{}",
            self.prefix,
            String::from_utf8_lossy(path).escape_debug()
        );
        let text = if what.is_empty() {
            key
        } else {
            format!("{key}: {what}")
        };
        self.found.entry(kind).or_default().push(text);
    }

    fn findings(self, keys: usize) -> Findings {
        let mut findings = Findings::of("D08");
        if self.found.is_empty() {
            findings.ok(format!("{keys} keys, nothing wrong with any of them"));
        }
        for (kind, named) in self.found {
            let Some(kind) = KINDS.get(kind) else {
                continue;
            };
            let mut text = format!(
                "{} {}: {}",
                named.len(),
                kind.what,
                named
                    .iter()
                    .take(NAMED_MAX)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("; ")
            );
            if named.len() > NAMED_MAX {
                text.push_str(&format!("; and {} more", named.len() - NAMED_MAX));
            }
            match kind.fails {
                true => findings.fail(text, kind.fix),
                false => findings.warn(text, kind.fix),
            }
        }
        findings
    }
}

fn spelling(troubles: &mut Troubles<'_>, key: &Key) {
    let segments: Vec<&[u8]> = key.path.split(|octet| *octet == b'/').collect();
    if segments
        .iter()
        .any(|s| s.iter().any(u8::is_ascii_uppercase))
    {
        troubles.add(UPPER, &key.path, "");
    }
    if segments
        .iter()
        .any(|s| s.is_empty() || s.len() > 63 || s.contains(&b'.') || s.contains(&0))
    {
        troubles.add(NO_LABEL, &key.path, "");
    }
    if segments.contains(&&b"any"[..]) {
        troubles.add(ANY, &key.path, "");
    }
}

/// What is wrong with a record by itself.
fn alone(troubles: &mut Troubles<'_>, key: &Key, service: &Service) {
    if service.host == Host::None && service.text.is_empty() {
        troubles.add(EMPTY, &key.path, "");
    }
    let mut segments = key.path.split(|octet| *octet == b'/');
    let is_service = segments.any(|segment| segment == b"_tcp" || segment == b"_udp");
    if is_service && service.port == 0 && service.host != Host::None {
        troubles.add(NO_PORT, &key.path, "");
    }
    if let Some(lease) = key.lease.filter(|lease| service.ttl > *lease) {
        let what = format!("ttl {} and a lease of {lease} s", service.ttl);
        troubles.add(LONG_TTL, &key.path, &what);
    }
}

/// Names with a record of their own and others below.
fn parents(troubles: &mut Troubles<'_>, keys: &[&Key]) {
    let paths: BTreeSet<&[u8]> = keys.iter().map(|key| &*key.path).collect();
    for path in &paths {
        let below = [*path, b"/"].concat();
        let next = paths.range(&*below..).next();
        if next.is_some_and(|next| next.starts_with(&below)) {
            troubles.add(HIDDEN, path, "");
        }
    }
}

fn aliases(
    troubles: &mut Troubles<'_>,
    services: &[(&Key, Service)],
    model: &Model,
    domains: &[String],
) {
    let domains = domains.iter().filter_map(|domain| Name::parse(domain).ok());
    let domains: Vec<Name> = domains.map(|domain| domain.to_lowercase()).collect();
    let by_path: HashMap<&[u8], &Service> =
        services.iter().map(|(key, s)| (&*key.path, s)).collect();
    for (key, service) in services {
        let Host::Name(host) = &service.host else {
            continue;
        };
        let mut target = host.to_ascii_lowercase();
        let mut seen = vec![key.path.clone()];
        while let Some(zone) = domains
            .iter()
            .find(|zone| is_within(&target, zone.as_wire()))
        {
            let Some(path) = path_of(&target) else {
                break;
            };
            if seen.contains(&path) || seen.len() > CHAIN_MAX {
                troubles.add(LOOP, &key.path, &format!("{}", name::display(host)));
                break;
            }
            let zone = Zone::new(zone.as_wire().into(), Rules::like(Answers::Coredns));
            let question = Question::new(&target, Rtype::A);
            if !model
                .answer(std::slice::from_ref(&zone), &zone, &question)
                .exists
            {
                troubles.add(DANGLING, &key.path, &format!("{}", name::display(host)));
                break;
            }
            match by_path.get(&*path).map(|service| &service.host) {
                Some(Host::Name(next)) => target = next.to_ascii_lowercase(),
                _ => break,
            }
            seen.push(path);
        }
    }
}

fn backwards(troubles: &mut Troubles<'_>, services: &[(&Key, Service)]) {
    let mut forward: BTreeMap<IpAddr, Vec<&[u8]>> = BTreeMap::new();
    // Path and host of each.
    let mut reverse: BTreeMap<IpAddr, Vec<[&[u8]; 2]>> = BTreeMap::new();
    for (key, service) in services {
        match &service.host {
            Host::Address(address) if !key.path.starts_with(b"arpa/") => {
                forward.entry(*address).or_default().push(&key.path);
            }
            Host::Name(host) => {
                if let Some(address) = address_of(&key.path) {
                    reverse
                        .entry(address)
                        .or_default()
                        .push([&key.path[..], &host[..]]);
                }
            }
            _ => {}
        }
    }
    for (address, names) in &reverse {
        for [path, host] in names {
            let target = path_of(&host.to_ascii_lowercase()).unwrap_or_default();
            let has = forward.get(address).is_some_and(|paths| {
                // The name itself, or a key below it.
                paths.iter().any(|path| {
                    path.strip_prefix(&*target)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
                })
            });
            if !has {
                let what = format!("{address} is not an address of {}", name::display(host));
                troubles.add(NO_FORWARD, path, &what);
            }
        }
    }
    for (address, paths) in &forward {
        // Who keeps no reverse names at all does not want to hear it of each.
        if !reverse.is_empty() && !reverse.contains_key(address) {
            troubles.add(NO_REVERSE, paths[0], &address.to_string());
        }
        // A pool's name and its member are one; name servers have a key of their own.
        let names: BTreeSet<&[u8]> = paths
            .iter()
            .filter(|path| !is_reserved(path))
            .copied()
            .collect();
        if names.len() > 1 {
            let others: Vec<String> = names
                .iter()
                .map(|path| String::from_utf8_lossy(path).into_owned())
                .collect();
            troubles.add(
                SHARED,
                paths[0],
                &format!("{address} ({})", others.join(", ")),
            );
        }
    }
}

fn is_reserved(path: &[u8]) -> bool {
    let segments: Vec<&[u8]> = path.split(|octet| *octet == b'/').collect();
    segments
        .windows(2)
        .any(|pair| pair[0] == b"dns" && matches!(pair[1], b"ns" | b"apex" | b"stub"))
}

/// The address that a path below `arpa` is of, with or without a label behind it.
fn address_of(path: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(path).ok()?;
    if let Some(rest) = text.strip_prefix("arpa/in-addr/") {
        let octets: Vec<&str> = rest.split('/').take(4).collect();
        return octets.join(".").parse().ok();
    }
    let rest = text.strip_prefix("arpa/ip6/")?;
    let nibbles: Vec<&str> = rest.split('/').take(32).collect();
    let whole = nibbles.len() == 32 && nibbles.iter().all(|nibble| nibble.len() == 1);
    let number = u128::from_str_radix(&nibbles.concat(), 16)
        .ok()
        .filter(|_| whole)?;
    Some(IpAddr::V6(number.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(keys: &[(&str, &str)]) -> Vec<(String, String)> {
        let keys: Vec<Key> = keys
            .iter()
            .map(|(path, value)| Key {
                path: path.as_bytes().to_vec(),
                value: value.as_bytes().to_vec(),
                lease: path.contains("leased").then_some(10),
            })
            .collect();
        let findings = records("/skydns/", &keys, &["skydns.local.".into()]);
        let found = findings.all.into_iter();
        found
            .map(|found| (format!("{:?}", found.level), found.what))
            .collect()
    }

    #[test]
    fn every_kind_of_trouble_is_found() {
        for (keys, level, part) in [
            (
                &[("local/skydns/x", "{")][..],
                "Fail",
                "/skydns/local/skydns/x: it is no JSON",
            ),
            (
                &[("local/skydns/x", r#"{"host":"192.0.2.1","ttl":"60"}"#)],
                "Fail",
                "`ttl` is no whole number",
            ),
            (
                &[("local/skydns/Web", r#"{"host":"192.0.2.1"}"#)],
                "Fail",
                "upper case",
            ),
            (
                &[("local/skydns/a.b", r#"{"host":"192.0.2.1"}"#)],
                "Fail",
                "no label",
            ),
            (
                &[("local/skydns//b", r#"{"host":"192.0.2.1"}"#)],
                "Fail",
                "no label",
            ),
            (&[("local/skydns/x", "{}")], "Warn", "neither host nor text"),
            (
                &[
                    ("local/skydns/x", r#"{"host":"y.skydns.local"}"#),
                    ("local/skydns/y", r#"{"host":"x.skydns.local"}"#),
                ],
                "Fail",
                "in a circle",
            ),
            (
                &[("local/skydns/x", r#"{"host":"nowhere.skydns.local"}"#)],
                "Fail",
                "do not exist: /skydns/local/skydns/x: nowhere",
            ),
            (
                &[
                    ("local/skydns/x", r#"{"host":"192.0.2.1"}"#),
                    ("local/skydns/x/y", r#"{"host":"192.0.2.2"}"#),
                ],
                "Warn",
                "hide it: /skydns/local/skydns/x",
            ),
            (
                &[("local/skydns/_tcp/_http/x", r#"{"host":"192.0.2.1"}"#)],
                "Warn",
                "no port",
            ),
            (
                &[("local/skydns/leased", r#"{"host":"192.0.2.1","ttl":60}"#)],
                "Warn",
                "ttl 60 and a lease of 10 s",
            ),
            (
                &[
                    ("arpa/in-addr/192/0/2/1", r#"{"host":"x.skydns.local"}"#),
                    ("local/skydns/x", r#"{"host":"192.0.2.2"}"#),
                ],
                "Warn",
                "192.0.2.1 is not an address of x.skydns.local.",
            ),
            (
                &[
                    ("arpa/in-addr/192/0/2/1", r#"{"host":"x.skydns.local"}"#),
                    ("local/skydns/x", r#"{"host":"192.0.2.2"}"#),
                ],
                "Warn",
                "no name backwards: /skydns/local/skydns/x: 192.0.2.2",
            ),
            (
                &[
                    ("local/skydns/x", r#"{"host":"192.0.2.2"}"#),
                    ("local/skydns/y", r#"{"host":"192.0.2.2"}"#),
                ],
                "Warn",
                "several names",
            ),
            (
                &[("local/skydns/any", r#"{"host":"192.0.2.2"}"#)],
                "Warn",
                "label `any`",
            ),
        ] {
            let found = found(keys);
            assert!(
                found
                    .iter()
                    .any(|(l, what)| l == level && what.contains(part)),
                "{part}: {found:?}"
            );
        }
    }

    #[test]
    fn a_sound_tree_has_none() {
        let found = found(&[
            ("config", r#"{"ttl":3600}"#),
            ("local/skydns/x/4", r#"{"host":"192.0.2.1"}"#),
            ("local/skydns/x/6", r#"{"host":"2001:db8::1"}"#),
            ("local/skydns/dns/ns/n", r#"{"host":"192.0.2.1"}"#),
            ("local/skydns/alias", r#"{"host":"x.skydns.local"}"#),
            ("arpa/in-addr/192/0/2/1", r#"{"host":"x.skydns.local"}"#),
            (
                "arpa/ip6/2/0/0/1/0/d/b/8/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/1/9f",
                r#"{"host":"x.skydns.local"}"#,
            ),
        ]);
        assert_eq!(
            found,
            [(
                "Ok".to_owned(),
                "6 keys, nothing wrong with any of them".to_owned()
            )]
        );
    }
}
