//! [`Addresses`]: which keys have an address, so that reverse names can be answered from them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::record::Host;
use crate::kit::wire::Name;
use crate::kit::wire::name::labels;

/// Keys with an address that are remembered; with their names some 250 MB.
const KEYS_MAX: usize = 1_000_000;
/// Names of one address, in one answer.
pub(super) const NAMES_MAX: usize = 64;

/// An IP address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Address {
    V4([u8; 4]),
    V6([u8; 16]),
}

/// See the module.
#[derive(Default)]
pub(super) struct Addresses {
    keys: BTreeSet<(Address, Box<[u8]>)>,
    is_full: bool,
}

impl Addresses {
    /// Adds a key's path; whether it is new here.
    pub(super) fn insert(&mut self, address: Address, path: &[u8]) -> bool {
        if self.keys.len() >= KEYS_MAX {
            if !std::mem::replace(&mut self.is_full, true) {
                tracing::warn!(
                    "plugin/etcd: more than {KEYS_MAX} keys with addresses: those behind have no automatic PTR"
                );
            }
            return false;
        }
        self.keys.insert((address, path.into()))
    }

    /// Takes a key's path away; whether it was here.
    pub(super) fn remove(&mut self, address: Address, path: &[u8]) -> bool {
        self.keys.remove(&(address, path.into()))
    }

    /// The paths of the keys whose addresses a reverse name (lower-case wire form) is or is above of, by address.
    pub(super) fn below(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        let range = reverse_range(name).map(|range| {
            let (first, last) = range.into_inner();
            // No path is empty, and none starts with an octet that a name cannot have.
            let first = (first, Box::from(&[][..]));
            self.keys
                .range(first..)
                .take_while(move |(at, _)| *at <= last)
        });
        range.into_iter().flatten().map(|(_, path)| &**path)
    }
}

impl Address {
    /// The address of a host, if it is one.
    pub(super) fn of(host: &Host) -> Option<Address> {
        match host {
            Host::V4(octets) => Some(Address::V4(*octets)),
            Host::V6(octets) => Some(Address::V6(*octets)),
            Host::Name(_) | Host::None => None,
        }
    }

    /// Its reverse name (RFC 1035 §3.5, RFC 3596 §2.5), lower-case.
    pub(super) fn reverse(self) -> Option<Name> {
        let mut text = String::with_capacity(73);
        match self {
            Address::V4([a, b, c, d]) => write!(text, "{d}.{c}.{b}.{a}.in-addr.arpa").ok()?,
            Address::V6(octets) => {
                for octet in octets.iter().rev() {
                    write!(text, "{:x}.{:x}.", octet & 15, octet >> 4).ok()?;
                }
                text.push_str("ip6.arpa");
            }
        }
        Name::parse(&text).ok()
    }
}

/// Whether a name (lower-case wire form) stands above reverse names instead of being one.
pub(super) fn is_above_reverse(name: &[u8]) -> bool {
    reverse_range(name).is_some_and(|range| range.start() != range.end())
}

/// The first and the last address that a reverse name is or is above of; `None` if no address can be below it.
fn reverse_range(name: &[u8]) -> Option<RangeInclusive<Address>> {
    let count = labels(name).count();
    let mut labels = labels(name);
    let own = count.checked_sub(2)?;
    // Outermost label first, that is the last octet.
    let parts: Vec<&[u8]> = labels.by_ref().take(own).collect();
    let parts = parts.into_iter().rev();
    match (labels.next()?, labels.next()?) {
        (b"in-addr", b"arpa") if own <= 4 => {
            let (mut first, mut last) = ([0; 4], [255; 4]);
            for ((low, high), part) in first.iter_mut().zip(&mut last).zip(parts) {
                let octet = decimal(part)?;
                (*low, *high) = (octet, octet);
            }
            Some(Address::V4(first)..=Address::V4(last))
        }
        (b"ip6", b"arpa") if own <= 32 => {
            let (mut first, mut last) = ([0u8; 16], [255u8; 16]);
            for (at, part) in parts.enumerate() {
                let nibble = nibble(part)?;
                let shift = if at % 2 == 0 { 4 } else { 0 };
                let (low, high) = (first.get_mut(at / 2)?, last.get_mut(at / 2)?);
                *low |= nibble << shift;
                *high = *high & !(15 << shift) | nibble << shift;
            }
            Some(Address::V6(first)..=Address::V6(last))
        }
        _ => None,
    }
}

/// An octet as reverse names have it: no zeros in front.
fn decimal(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let octet: u8 = text.parse().ok()?;
    (octet.to_string() == text).then_some(octet)
}

fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [letter @ b'a'..=b'f'] => Some(letter - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(addresses: &Addresses, name: &str) -> Vec<String> {
        let name = Name::parse(name).expect("a name");
        let paths = addresses.below(name.as_wire());
        paths
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect()
    }

    #[test]
    fn names_find_their_address_and_names_above_find_those_below() {
        let mut addresses = Addresses::default();
        assert!(addresses.insert(Address::V4([192, 0, 2, 1]), b"org/a"));
        assert!(!addresses.insert(Address::V4([192, 0, 2, 1]), b"org/a"));
        assert!(addresses.insert(Address::V4([192, 0, 2, 1]), b"org/b"));
        assert!(addresses.insert(Address::V4([192, 0, 3, 1]), b"org/c"));
        let mut v6 = [0; 16];
        (v6[0], v6[1], v6[15]) = (0x20, 0x01, 0x1f);
        assert!(addresses.insert(Address::V6(v6), b"org/d"));
        assert_eq!(
            found(&addresses, "1.2.0.192.in-addr.arpa"),
            ["org/a", "org/b"]
        );
        assert_eq!(found(&addresses, "2.0.192.in-addr.arpa").len(), 2);
        assert_eq!(found(&addresses, "0.192.in-addr.arpa").len(), 3);
        assert_eq!(found(&addresses, "in-addr.arpa").len(), 3);
        assert_eq!(found(&addresses, "1.0.0.2.ip6.arpa"), ["org/d"]);
        assert_eq!(found(&addresses, "2.0.0.2.ip6.arpa").len(), 0);
        assert_eq!(found(&addresses, "arpa").len(), 0);
        for wrong in [
            "01.2.0.192.in-addr.arpa",
            "256.2.0.192.in-addr.arpa",
            "x.1.2.0.192.in-addr.arpa",
            "10.ip6.arpa",
            "g.ip6.arpa",
            "1.2.0.192.example.org",
        ] {
            assert_eq!(found(&addresses, wrong).len(), 0, "{wrong}");
        }
        assert!(addresses.remove(Address::V4([192, 0, 2, 1]), b"org/a"));
        assert!(!addresses.remove(Address::V4([192, 0, 2, 1]), b"org/a"));
        assert_eq!(found(&addresses, "1.2.0.192.in-addr.arpa"), ["org/b"]);
    }

    proptest! {
        #[test]
        fn an_address_is_found_by_its_reverse_name_and_all_above(
            v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(), above in 0usize..34,
        ) {
            for address in [Address::V4(v4), Address::V6(v6)] {
                let mut addresses = Addresses::default();
                addresses.insert(address, b"org/x");
                let name = address.reverse().expect("a name");
                let suffixes = crate::kit::wire::name::suffixes(name.as_wire());
                let count = labels(name.as_wire()).count();
                let above = above % (count - 1);
                let name = suffixes.into_iter().nth(above).expect("a suffix");
                prop_assert_eq!(addresses.below(name).count(), 1);
            }
        }
    }
}
