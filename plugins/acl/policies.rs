//! The lines of an `acl` block: `ACTION [type TYPE...] [net NETWORK...]`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::kit::dnsfile::{Line, Word};
use crate::kit::errors::{SetupError, SetupErrors, nearest};
use crate::kit::wire::Rtype;

/// What a policy does with a query.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Action {
    Allow,
    Block,
    Filter,
    Drop,
}

const ACTIONS: [(&str, Action); 4] = [
    ("allow", Action::Allow),
    ("block", Action::Block),
    ("filter", Action::Filter),
    ("drop", Action::Drop),
];

/// A line, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Policy {
    pub(super) action: Action,
    /// The types it is about; `None`: all.
    pub(super) types: Option<BTreeSet<Rtype>>,
    /// The networks it is about; `None`: all.
    pub(super) networks: Option<Vec<IpNet>>,
}

/// Reads the lines of a block; all errors, not the first.
pub(super) fn read(lines: &[Line]) -> Result<Vec<Policy>, SetupErrors> {
    let mut errors = SetupErrors::default();
    let mut policies = Vec::new();
    for line in lines {
        match read_line(&line.words) {
            Ok(policy) => policies.extend(policy),
            Err(error) => errors.0.push(error),
        }
    }
    errors.or(policies)
}

fn read_line(words: &[Word]) -> Result<Option<Policy>, SetupError> {
    let Some((first, mut rest)) = words.split_first() else {
        return Ok(None);
    };
    let action = ACTIONS
        .iter()
        .find(|(name, _)| first.text.eq_ignore_ascii_case(name));
    let Some((_, action)) = action else {
        let what = format!(
            "unexpected word `{}`; a line starts with allow, block, filter or drop",
            first.text
        );
        let error = SetupError::at(first.span, what);
        return Err(match nearest(&first.text, ACTIONS.map(|(name, _)| name)) {
            Some(near) => error.suggest(near),
            None => error,
        });
    };
    // A section that is not written stands for everything, and so does `*`.
    let mut types = Section::default();
    let mut networks = Section::default();
    while let Some((section, behind)) = rest.split_first() {
        let end = behind.iter().position(|word| section_of(word).is_some());
        let (values, behind) = behind.split_at(end.unwrap_or(behind.len()));
        rest = behind;
        if values.is_empty() && section_of(section).is_some() {
            let what = format!(
                "nothing stands behind `{}`; write what it is about, or `*` for all",
                section.text
            );
            return Err(SetupError::at(section.span, what));
        }
        match section_of(section) {
            Some("type") => types.add(values, read_type)?,
            Some(_) => networks.add(values, read_network)?,
            None => {
                let what = format!(
                    "unexpected word `{}`; write `{} type TYPE... net NETWORK...`",
                    section.text, first.text
                );
                return Err(SetupError::at(section.span, what));
            }
        }
    }
    Ok(Some(Policy {
        action: *action,
        types: types.done().map(BTreeSet::from_iter),
        networks: networks.done(),
    }))
}

fn section_of(word: &Word) -> Option<&'static str> {
    ["type", "net"]
        .into_iter()
        .find(|section| word.text.eq_ignore_ascii_case(section))
}

/// The values of a section, wherever it stands in the line.
struct Section<T> {
    values: Vec<T>,
    all: bool,
}

impl<T> Default for Section<T> {
    fn default() -> Section<T> {
        Section {
            values: Vec::new(),
            all: false,
        }
    }
}

impl<T> Section<T> {
    fn add(
        &mut self,
        words: &[Word],
        read: impl Fn(&Word) -> Result<T, SetupError>,
    ) -> Result<(), SetupError> {
        for word in words {
            match word.text.as_str() {
                "*" => self.all = true,
                _ => self.values.push(read(word)?),
            }
        }
        Ok(())
    }

    fn done(self) -> Option<Vec<T>> {
        (!self.all && !self.values.is_empty()).then_some(self.values)
    }
}

fn read_type(word: &Word) -> Result<Rtype, SetupError> {
    Rtype::parse(&word.text).ok_or_else(|| {
        let what = format!(
            "`{}` is no record type; write A, AAAA, TXT …, TYPE65280 for one without a name, or `*` for all",
            word.text
        );
        SetupError::at(word.span, what)
    })
}

fn read_network(word: &Word) -> Result<IpNet, SetupError> {
    let network = match word.text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => word.text.parse().ok(),
    };
    network.map(as_clients_come).ok_or_else(|| {
        let what = format!(
            "illegal CIDR notation `{}`; write an address or a network such as 192.0.2.0/24, or `*` for all",
            word.text
        );
        SetupError::at(word.span, what)
    })
}

/// A network without its host bits; one of IPv4 addresses mapped into IPv6 is an IPv4 network, as such clients are IPv4 clients.
fn as_clients_come(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(Ipv4Addr::from(address.octets()), length)
    {
        return IpNet::V4(v4.trunc());
    }
    network.trunc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::dnsfile::Span;

    fn policy(text: &str) -> Result<Policy, String> {
        let word = |text: &str| Word {
            text: text.to_owned(),
            span: Span {
                file: 0,
                start: 0,
                end: 0,
            },
            quoted: false,
        };
        let words: Vec<Word> = text.split_whitespace().map(word).collect();
        match read_line(&words) {
            Ok(policy) => Ok(policy.expect("the line is not empty")),
            Err(error) => Err(error.what),
        }
    }

    #[test]
    fn sections_stand_in_any_order_and_add_up() {
        let one = policy("block type A AAAA net 192.0.2.7/24 2001:db8::1").unwrap();
        let other = policy("BLOCK NET 192.0.2.0/24 TYPE a net 2001:db8::1 type aaaa").unwrap();
        assert_eq!(one, other);
        assert_eq!(one.networks.unwrap()[1].to_string(), "2001:db8::1/128");
        let all = policy("drop").unwrap();
        assert_eq!((all.types, all.networks), (None, None));
        let starred = policy("drop type A * net *").unwrap();
        assert_eq!((starred.types, starred.networks), (None, None));
        let mapped = policy("allow net ::ffff:192.0.2.0/120").unwrap();
        assert_eq!(mapped.networks.unwrap()[0].to_string(), "192.0.2.0/24");
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, what) in [
            (
                "blok net 192.0.2.1",
                "unexpected word `blok`; a line starts",
            ),
            ("block A net 192.0.2.1", "unexpected word `A`; write `block"),
            ("block type net 192.0.2.1", "nothing stands behind `type`"),
            ("block type A net", "nothing stands behind `net`"),
            ("block type ABC", "`ABC` is no record type"),
            ("block net 192.168.0/16", "illegal CIDR notation"),
            ("block net 192.0.2.0/33", "illegal CIDR notation"),
        ] {
            let error = policy(text).unwrap_err();
            assert!(error.starts_with(what), "{text}: {error}");
        }
    }
}
