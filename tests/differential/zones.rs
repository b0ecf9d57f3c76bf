//! Random zones: small ones with much in them, so that aliases, wildcards, delegations and empty non-terminals meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use rand::RngExt;
use rand::rngs::StdRng;

/// Labels of names: few, so that names meet.
const LABELS: [&str; 9] = ["a", "b", "c", "d", "*", "_x", "zz", "0", "a-b"];
/// Names that are tried for one zone.
const NAMES: usize = 60;

/// A zone.
pub(crate) struct Zone {
    /// Its name, without the last dot.
    pub(crate) name: String,
    // Owners relative to the zone, the empty one is the apex; data as text.
    records: BTreeMap<String, Vec<String>>,
    signed: Signed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signed {
    No,
    Nsec,
    Nsec3,
}

impl Zone {
    /// One of these: every third is signed with NSEC, every third with NSEC3.
    pub(crate) fn random(number: usize, random: &mut StdRng) -> Zone {
        let mut zone = Zone {
            name: format!("z{number}.test"),
            records: BTreeMap::new(),
            signed: match number % 3 {
                0 => Signed::No,
                1 => Signed::Nsec,
                _ => Signed::Nsec3,
            },
        };
        zone.put(
            "",
            "SOA nameserver hostmaster 1 7200 900 1209600 300".to_owned(),
        );
        zone.put("", "NS nameserver".to_owned());
        zone.put("", "NS nameserver.elsewhere.invalid.".to_owned());
        zone.put("nameserver", "A 192.0.2.53".to_owned());
        zone.put("nameserver", "AAAA 2001:db8::53".to_owned());
        for _ in 0..NAMES {
            let name = relative_name(random);
            zone.fill(&name, random);
        }
        zone
    }

    fn put(&mut self, owner: &str, data: String) {
        let records = self.records.entry(owner.to_owned()).or_default();
        if !records.contains(&data) {
            records.push(data);
        }
    }

    /// Records for a name, as far as it may have them.
    fn fill(&mut self, name: &str, random: &mut StdRng) {
        let is_taken = self.records.contains_key(name);
        let below = format!(".{name}");
        let has_children = self.records.keys().any(|other| other.ends_with(&below));
        let is_below_dname = self.records.iter().any(|(other, data)| {
            !other.is_empty()
                && name.ends_with(&format!(".{other}"))
                && data.iter().any(|data| data.starts_with("DNAME"))
        });
        // RFC 6672 §2.4: nothing is below a DNAME; servers refuse such zones.
        if is_below_dname || name.is_empty() {
            return;
        }
        let is_wildcard = name.starts_with('*');
        match random.random_range(0..20) {
            0..4 if !is_taken => {
                let target = self.target(random);
                self.put(name, format!("CNAME {target}"));
            }
            4..6 if !is_taken && !has_children && !is_wildcard => {
                let target = self.target(random);
                self.put(name, format!("DNAME {target}"));
            }
            6..9 if !is_taken && !is_wildcard => {
                for _ in 0..random.random_range(1..4) {
                    let target = match random.random_range(0..3) {
                        0 => format!("ns.{name}"),
                        _ => self.target(random),
                    };
                    self.put(name, format!("NS {target}"));
                }
                if random.random_ratio(1, 2) {
                    let digest = format!("{:064X}", random.random::<u128>());
                    self.put(name, format!("DS 1 13 2 {digest}"));
                }
                if random.random_ratio(2, 3) {
                    self.put(&format!("ns.{name}"), address(random));
                    self.put(&format!("ns.{name}"), "AAAA 2001:db8::1".to_owned());
                }
            }
            _ => {
                let alias = |data: &String| {
                    ["CNAME", "DNAME", "NS "]
                        .iter()
                        .any(|word| data.starts_with(word))
                };
                if self
                    .records
                    .get(name)
                    .is_some_and(|data| data.iter().any(alias))
                {
                    return;
                }
                for _ in 0..random.random_range(1..4) {
                    let target = self.target(random);
                    let data = match random.random_range(0..7) {
                        0 | 1 => address(random),
                        2 => format!("AAAA 2001:db8::{:x}", random.random_range(1..9)),
                        3 => format!("TXT \"text {}\"", random.random_range(1..4)),
                        4 => format!("MX {} {target}", random.random_range(1..4)),
                        5 => format!("SRV 1 2 {} {target}", random.random_range(1..4)),
                        _ => format!("PTR {target}"),
                    };
                    self.put(name, data);
                }
            }
        }
    }

    /// A name that something leads to: mostly one of the zone.
    fn target(&self, random: &mut StdRng) -> String {
        match random.random_range(0..10) {
            0 => "www.elsewhere.invalid.".to_owned(),
            1..4 => relative_name(random),
            _ => {
                let names: Vec<&String> = self
                    .records
                    .keys()
                    .filter(|name| !name.is_empty() && *name != "nameserver")
                    .collect();
                match names.is_empty() {
                    true => "a".to_owned(),
                    false => {
                        let name = names[random.random_range(0..names.len())].replace('*', "w");
                        match random.random_ratio(1, 4) {
                            true => format!("b.{name}"),
                            false => name,
                        }
                    }
                }
            }
        }
    }

    /// A name to ask for: of the zone, or near one.
    pub(crate) fn question(&self, random: &mut StdRng) -> String {
        let names: Vec<&String> = self.records.keys().collect();
        let mut name = names[random.random_range(0..names.len())].clone();
        match random.random_range(0..10) {
            0..4 => {}
            4..6 => name = format!("{}.{name}", LABELS[random.random_range(0..LABELS.len())]),
            6 => name = format!("{}.{name}", relative_name(random)),
            7 => {
                name = name
                    .split_once('.')
                    .map_or(String::new(), |(_, up)| up.to_owned())
            }
            8 => name = name.replace('*', "w"),
            _ => name = relative_name(random),
        }
        let name = name.trim_end_matches('.');
        match name {
            "" => format!("{}.", self.name),
            name => format!("{name}.{}.", self.name),
        }
    }

    /// Whether it has signatures.
    pub(crate) fn is_signed(&self) -> bool {
        self.signed != Signed::No
    }

    /// Its name servers.
    pub(crate) fn name_servers(&self) -> BTreeSet<String> {
        BTreeSet::from([
            format!("nameserver.{}.", self.name),
            "nameserver.elsewhere.invalid.".to_owned(),
        ])
    }

    /// Writes it as NAME.zone, signed if it is one of those.
    pub(crate) fn write(&self, dir: &Path) {
        let mut text = format!("$ORIGIN {}.\n$TTL 3600\n", self.name);
        for (owner, records) in &self.records {
            let owner = if owner.is_empty() { "@" } else { owner };
            for data in records {
                writeln!(text, "{owner} IN {data}").expect("a string");
            }
        }
        let file = dir.join(format!("{}.zone", self.name));
        fs::write(&file, text).expect("our folder");
        if self.signed == Signed::No {
            return;
        }
        let key = Command::new("ldns-keygen")
            .args([
                "-a",
                "ECDSAP256SHA256",
                "-r",
                "/dev/urandom",
                "-k",
                &self.name,
            ])
            .current_dir(dir)
            .output()
            .expect("ldns-keygen is installed: make test-packages");
        let key = String::from_utf8(key.stdout).expect("a name");
        let mut sign = Command::new("ldns-signzone");
        sign.args(["-f", &format!("{}.signed", self.name)]);
        if self.signed == Signed::Nsec3 {
            sign.args(["-n", "-t", "3", "-s", "ab12"]);
        }
        let done = sign
            .arg(format!("{}.zone", self.name))
            .arg(key.trim())
            .current_dir(dir)
            .output()
            .expect("ldns-signzone is installed: make test-packages");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        fs::rename(dir.join(format!("{}.signed", self.name)), file).expect("it was written");
    }
}

fn relative_name(random: &mut StdRng) -> String {
    let labels = random.random_range(1..4);
    let labels: Vec<&str> = (0..labels)
        .map(|_| LABELS[random.random_range(0..LABELS.len())])
        .collect();
    labels.join(".")
}

fn address(random: &mut StdRng) -> String {
    format!("A 192.0.2.{}", random.random_range(1..9))
}
