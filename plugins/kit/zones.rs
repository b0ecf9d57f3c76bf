//! Zones and sets of them: the longest zone that covers a name, on label boundaries, in wire form.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::wire::Name;
use super::wire::name::{self, NAME_OCTETS_MAX, NameError};

/// A zone, lower-cased.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Zone {
    /// Wire form, lower-cased.
    pub name: Name,
    /// As text with its last dot: `example.org.`.
    pub text: String,
}

impl Zone {
    /// The root: every name is in it.
    pub fn root() -> Zone {
        Zone {
            name: Name::root(),
            text: ".".into(),
        }
    }

    /// A zone from presentation format, the last dot optional; no port, scheme or network (see [`parse_zones`] for those).
    pub fn parse(text: &str) -> Result<Zone, String> {
        if text.is_empty() {
            return Err(
                "zone is not a valid domain name: it is empty, write `.` for the root".into(),
            );
        }
        if text.len() > ZONE_TEXT_OCTETS_MAX {
            return Err(format!(
                "specified zone is too long: {} > {NAME_OCTETS_MAX}",
                text.len()
            ));
        }
        let name = Name::parse(text)
            .map_err(|error| format!("zone is not a valid domain name: `{text}`: {}", why(error)))?
            .to_lowercase();
        let text = name.to_string();
        Ok(Zone { name, text })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Octets of a zone's text: each octet of the longest name written as `\DDD`. Longer ones are not worth reading.
const ZONE_TEXT_OCTETS_MAX: usize = 4 * NAME_OCTETS_MAX;

fn why(error: NameError) -> &'static str {
    match error {
        NameError::EmptyLabel => "two dots in a row, or a dot at its start",
        NameError::LabelTooLong => "a label has more than 63 octets",
        NameError::NameTooLong => "it has more than 255 octets",
        NameError::BadEscape => {
            "a backslash stands before a dot, a backslash or three digits up to 255"
        }
        NameError::BadWire => "it is malformed",
    }
}

/// Zones to match names against.
#[derive(Clone, Default, Debug)]
pub struct ZoneSet {
    zones: Vec<Zone>,
    // Position by wire form; only where comparing with each zone would take longer.
    index: Option<HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>>,
}

/// Up to this many zones are compared one by one: a compare of the last octets mostly decides, hashing each suffix of the name costs more.
const COMPARED_MAX: usize = 8;

impl ZoneSet {
    /// A set of these zones, duplicates removed, order kept.
    pub fn new(zones: impl IntoIterator<Item = Zone>) -> ZoneSet {
        let mut unique: Vec<Zone> = Vec::new();
        let mut index = HashMap::default();
        for zone in zones {
            if !index.contains_key(zone.name.as_wire()) {
                index.insert(zone.name.as_wire().into(), unique.len());
                unique.push(zone);
            }
        }
        ZoneSet {
            index: (unique.len() > COMPARED_MAX).then_some(index),
            zones: unique,
        }
    }

    /// The root: every name.
    pub fn everything() -> ZoneSet {
        ZoneSet::new([Zone::root()])
    }

    /// The longest zone that `qname` (lower-cased wire form) is in. No allocation.
    pub fn cover(&self, qname: &[u8]) -> Option<&Zone> {
        match &self.index {
            None => self
                .zones
                .iter()
                .filter(|zone| name::is_within(qname, zone.name.as_wire()))
                .max_by_key(|zone| zone.name.as_wire().len()),
            Some(index) => name::suffixes(qname)
                .find_map(|suffix| index.get(suffix))
                .and_then(|at| self.zones.get(*at)),
        }
    }

    /// All of them, in the order given.
    pub fn iter(&self) -> std::slice::Iter<'_, Zone> {
        self.zones.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }
}

impl fmt::Display for ZoneSet {
    /// Joined with commas, as CoreDNS's `zones` label has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, zone) in self.zones.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            f.write_str(&zone.text)?;
        }
        Ok(())
    }
}

/// Reads a zone or a CIDR network as a zone argument has it (scheme and port stripped, reference 3.0.1); a network may be several zones.
pub fn parse_zones(text: &str) -> Result<Vec<Zone>, String> {
    let (_, rest) = split_scheme(text);
    let (host, _) = split_port(rest)?;
    zones_of(host)
}

/// The scheme of a server block's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// UDP and TCP.
    Dns,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scheme::Dns => f.write_str("dns"),
        }
    }
}

/// A server block's key, read: one for every zone that a CIDR key stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// Its scheme.
    pub scheme: Scheme,
    /// Its zone.
    pub zone: Zone,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Key {
    /// As CoreDNS writes it: `dns://example.org.:53`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.zone, self.port)
    }
}

/// Reads a server block's key (reference 1.7). A scheme we do not serve yet is an error that says so.
pub fn parse_key(text: &str, default_port: u16) -> Result<Vec<Key>, String> {
    let (scheme, rest) = split_scheme(text);
    match scheme {
        None | Some("dns") => {}
        Some(scheme) => {
            return Err(format!(
                "{scheme}:// is not served yet, only dns:// is: `{text}`"
            ));
        }
    }
    // A name may hold any octet, but nobody means a zone called `http://example.org.`.
    if let Some((scheme, host)) = rest.split_once("://") {
        return Err(format!(
            "unknown scheme `{scheme}://`; write `dns://{host}` or leave it out"
        ));
    }
    let (host, port) = split_port(rest)?;
    if host.is_empty() {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        return Err(format!(
            "zone is not a valid domain name: it is empty, write `.{port}` for every name"
        ));
    }
    let zones = zones_of(host)?;
    Ok(zones
        .into_iter()
        .map(|zone| Key {
            scheme: Scheme::Dns,
            zone,
            port: port.unwrap_or(default_port),
        })
        .collect())
}

/// The schemes that CoreDNS knows; lower case only.
const SCHEMES: [&str; 7] = ["dns", "tls", "quic", "grpc", "https3", "https", "unix"];

fn split_scheme(text: &str) -> (Option<&'static str>, &str) {
    SCHEMES
        .iter()
        .find_map(|scheme| {
            let rest = text.strip_prefix(scheme)?.strip_prefix("://")?;
            Some((Some(*scheme), rest))
        })
        .unwrap_or((None, text))
}

/// What stands behind the last colon is a port if it is a number, else part of the name: `2001:db8::/32` is a network.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Ok((text, None));
    };
    if port.is_empty() {
        return Err(format!("a port is missing behind the last colon: `{text}`"));
    }
    let digits = port.strip_prefix(['-', '+']).unwrap_or(port);
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return Ok((text, None));
    }
    match port.parse() {
        Ok(port) => Ok((host, Some(port))),
        Err(_) => Err(format!("a port lies between 0 and 65535, got `{port}`")),
    }
}

fn zones_of(host: &str) -> Result<Vec<Zone>, String> {
    match network(host)? {
        Some(network) => reverse_zones(network)
            .iter()
            .map(|text| Zone::parse(text))
            .collect(),
        None => Ok(vec![Zone::parse(host)?]),
    }
}

/// A CIDR network, or nothing if it does not look like one (`0/25.2.0.192.in-addr.arpa` is a name, RFC 2317).
fn network(host: &str) -> Result<Option<IpNet>, String> {
    let Some((address, length)) = host.split_once('/') else {
        return Ok(None);
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Ok(None);
    };
    if host.starts_with(':') || host.starts_with('0') && host.contains(':') {
        return Err(format!(
            "invalid CIDR `{host}`: write its first group of digits without zeros in front"
        ));
    }
    length
        .parse()
        .ok()
        .and_then(|length| IpNet::new(address, length).ok())
        .map(|network| Some(network.trunc()))
        .ok_or_else(|| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            format!("invalid CIDR `{host}`: its length lies between 0 and {most}")
        })
}

/// The reverse zones that make up a network: labels are 8 bits of an IPv4 address (RFC 1035 §3.5), 4 of an IPv6 one
/// (RFC 3596 §2.5), so that a length between two boundaries is several zones: 128 or 8 of them at most.
fn reverse_zones(network: IpNet) -> Vec<String> {
    let step = match network {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    };
    let length = network.prefix_len().next_multiple_of(step);
    let parts: Vec<IpNet> = match network.subnets(length) {
        Ok(parts) => parts.collect(),
        Err(_) => vec![network],
    };
    parts
        .into_iter()
        .map(|part| reverse_zone(part.network(), usize::from(length / step)))
        .collect()
}

fn reverse_zone(address: IpAddr, labels: usize) -> String {
    let (mut labels, suffix): (Vec<String>, &str) = match address {
        IpAddr::V4(ip) => (
            ip.octets().iter().take(labels).map(u8::to_string).collect(),
            "in-addr.arpa.",
        ),
        IpAddr::V6(ip) => (
            ip.octets()
                .iter()
                .flat_map(|octet| [octet >> 4, octet & 15])
                .take(labels)
                .map(|nibble| format!("{nibble:x}"))
                .collect(),
            "ip6.arpa.",
        ),
    };
    labels.reverse();
    labels.push(suffix.to_owned());
    labels.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(text: &str) -> Vec<String> {
        match parse_zones(text) {
            Ok(zones) => zones.into_iter().map(|zone| zone.text).collect(),
            Err(error) => vec![error],
        }
    }

    fn keys(text: &str) -> String {
        match parse_key(text, 53) {
            Ok(keys) => keys
                .iter()
                .map(Key::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error,
        }
    }

    #[test]
    fn keys_are_lower_cased_qualified_and_get_a_port() {
        assert_eq!(keys("EXAMPLE.ORG"), "dns://example.org.:53");
        assert_eq!(keys("dns://example.org:1053"), "dns://example.org.:1053");
        assert_eq!(keys("."), "dns://.:53");
        assert_eq!(keys(".:0"), "dns://.:0");
        assert_eq!(
            keys("0/25.2.0.192.in-addr.arpa"),
            "dns://0/25.2.0.192.in-addr.arpa.:53"
        );
        assert_eq!(keys("example.org{"), "dns://example.org{.:53");
    }

    #[test]
    fn keys_that_are_none_say_why() {
        assert_eq!(
            keys("tls://example.org"),
            "tls:// is not served yet, only dns:// is: `tls://example.org`"
        );
        assert_eq!(
            keys("https3://."),
            "https3:// is not served yet, only dns:// is: `https3://.`"
        );
        assert_eq!(
            keys("http://a"),
            "unknown scheme `http://`; write `dns://a` or leave it out"
        );
        assert_eq!(
            keys(":53"),
            "zone is not a valid domain name: it is empty, write `.:53` for every name"
        );
        assert_eq!(keys("a:"), "a port is missing behind the last colon: `a:`");
        assert_eq!(
            keys("a:65536"),
            "a port lies between 0 and 65535, got `65536`"
        );
        assert_eq!(keys("a:-1"), "a port lies between 0 and 65535, got `-1`");
        assert!(keys("a..b").starts_with("zone is not a valid domain name: `a..b`"));
        assert!(keys(&"a".repeat(64)).contains("more than 63 octets"));
        assert!(keys("10.0.0.0/33").starts_with("invalid CIDR `10.0.0.0/33`"));
        assert!(keys("::/0").starts_with("invalid CIDR"));
        assert!(keys("0a::/16").starts_with("invalid CIDR"));
    }

    #[test]
    fn networks_are_reverse_zones() {
        assert_eq!(
            zones("10.0.0.0/15"),
            ["0.10.in-addr.arpa.", "1.10.in-addr.arpa."]
        );
        assert_eq!(zones("192.0.2.0/24"), ["2.0.192.in-addr.arpa."]);
        assert_eq!(zones("0.0.0.0/0"), ["in-addr.arpa."]);
        assert_eq!(zones("192.168.1.0/25").len(), 128);
        assert_eq!(zones("192.168.1.0/25")[127], "127.1.168.192.in-addr.arpa.");
        let masked = zones("10.9.3.0/18");
        assert_eq!(
            (masked.len(), masked[0].as_str()),
            (64, "0.9.10.in-addr.arpa.")
        );
        assert_eq!(zones("2001:db8::/32"), ["8.b.d.0.1.0.0.2.ip6.arpa."]);
        assert_eq!(zones("2001:db8::/32:53"), ["8.b.d.0.1.0.0.2.ip6.arpa."]);
        assert_eq!(zones("2001:db8::/29").len(), 8);
        assert_eq!(zones("2001:db8::/112").len(), 1);
        assert_eq!(zones("2001:db8::/127").len(), 2);
    }

    #[test]
    fn zone_arguments_lose_scheme_and_port() {
        assert_eq!(zones("tls://Example.ORG:853"), ["example.org."]);
    }

    #[test]
    fn the_longest_zone_covers() {
        let few = ["example.org", "a.example.org", "net"];
        let many = (0..20).map(|n| format!("z{n}.test"));
        let parse = |text: &str| Zone::parse(text).unwrap();
        let few = ZoneSet::new(few.iter().map(|zone| parse(zone)));
        let many = ZoneSet::new(few.iter().cloned().chain(many.map(|zone| parse(&zone))));
        for set in [&few, &many] {
            let cover = |qname: &str| {
                set.cover(Name::parse(qname).unwrap().as_wire())
                    .map(|zone| zone.text.as_str())
            };
            assert_eq!(cover("www.a.example.org"), Some("a.example.org."));
            assert_eq!(cover("a.example.org"), Some("a.example.org."));
            assert_eq!(cover("b.example.org"), Some("example.org."));
            assert_eq!(cover("xexample.org"), None);
            assert_eq!(cover("org"), None);
            assert_eq!(cover("."), None);
        }
        assert_eq!(
            many.cover(Name::parse("a.z7.test").unwrap().as_wire())
                .unwrap()
                .text,
            "z7.test."
        );
        let all = ZoneSet::everything();
        assert_eq!(all.cover(&[0]).unwrap().text, ".");
        assert_eq!(all.cover(b"\x01a\x00").unwrap().text, ".");
        assert_eq!(
            ZoneSet::new([parse("a"), parse("A."), parse("b")]).to_string(),
            "a.,b."
        );
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,300}") {
            let _ = parse_zones(&text);
            let _ = parse_key(&text, 53);
        }

        #[test]
        fn what_was_read_reads_again(text in "[a-z0-9./:-]{1,40}") {
            if let Ok(keys) = parse_key(&text, 53) {
                for key in keys {
                    proptest::prop_assert_eq!(parse_key(&key.to_string(), 1), Ok(vec![key]));
                }
            }
        }
    }
}
