//! The weight file: how much of the traffic each address of a name gets.
//!
//! ```text
//! # a name on a line of its own, then its addresses
//! www.example.org
//! 192.0.2.1 3
//! 192.0.2.2 1
//! ```

use std::collections::HashMap;
use std::net::IpAddr;

use crate::kit::wire::Name;

/// Octets of a weight file at most: some 20,000 addresses.
pub(super) const FILE_OCTETS_MAX: usize = 1 << 20;

/// What a weight file says.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    // By lower-cased wire form.
    names: HashMap<Vec<u8>, Vec<(IpAddr, u8)>, foldhash::fast::RandomState>,
}

impl Weights {
    /// Reads a weight file. The error names its line.
    pub(super) fn parse(text: &str) -> Result<Weights, String> {
        let mut weights = Weights::default();
        let mut current = None;
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let wrong = |what: String| format!("line {}: {what}", number + 1);
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                [name] => {
                    let name =
                        Name::parse(name).map_err(|_| wrong(format!("`{name}` is no name")))?;
                    let name = name.to_lowercase().as_wire().to_vec();
                    weights.names.entry(name.clone()).or_default();
                    current = Some(name);
                }
                [address, weight] => {
                    let Some(list) = current
                        .as_ref()
                        .and_then(|name| weights.names.get_mut(name))
                    else {
                        return Err(wrong("an address stands before the first name".into()));
                    };
                    let address = address
                        .parse::<IpAddr>()
                        .map_err(|_| wrong(format!("`{address}` is no IP address")))?;
                    let weight = weight
                        .parse::<u8>()
                        .ok()
                        .filter(|weight| *weight > 0)
                        .ok_or_else(|| {
                            wrong(format!(
                                "a weight must lie between 1 and 255, got `{weight}`"
                            ))
                        })?;
                    list.push((address, weight));
                }
                _ => return Err(wrong("write a name, or an address and its weight".into())),
            }
        }
        Ok(weights)
    }

    /// The weight of an address of a name (lower-cased wire form); 1 where the file says none.
    pub(super) fn of(&self, name: &[u8], address: IpAddr) -> u32 {
        let list = self.names.get(name).map_or(&[][..], Vec::as_slice);
        let found = list.iter().find(|(listed, _)| *listed == address);
        found.map_or(1, |(_, weight)| u32::from(*weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_comments() {
        let text = "# all\nWWW.example.org\n192.0.2.1 3\n\n 2001:db8::1\t255\nftp.example.org.\n192.0.2.1 7\n";
        let weights = Weights::parse(text).unwrap();
        let www = Name::parse("www.example.org").unwrap();
        let of = |name: &Name, address: &str| weights.of(name.as_wire(), address.parse().unwrap());
        assert_eq!(of(&www, "192.0.2.1"), 3);
        assert_eq!(of(&www, "2001:db8::1"), 255);
        assert_eq!(of(&www, "192.0.2.9"), 1);
        assert_eq!(of(&Name::parse("ftp.example.org").unwrap(), "192.0.2.1"), 7);
        assert_eq!(of(&Name::root(), "192.0.2.1"), 1);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, what) in [
            (
                "192.0.2.1 3",
                "line 1: an address stands before the first name",
            ),
            (
                "a.example\n192.0.2.300 3",
                "line 2: `192.0.2.300` is no IP address",
            ),
            (
                "a.example\n192.0.2.1 0",
                "line 2: a weight must lie between 1 and 255, got `0`",
            ),
            (
                "a.example\n192.0.2.1 256",
                "line 2: a weight must lie between 1 and 255, got `256`",
            ),
            (
                "a.example\n\n192.0.2.1 1 1",
                "line 3: write a name, or an address and its weight",
            ),
            ("a..example", "line 1: `a..example` is no name"),
        ] {
            assert_eq!(Weights::parse(text), Err(what.to_owned()), "{text}");
        }
    }
}
