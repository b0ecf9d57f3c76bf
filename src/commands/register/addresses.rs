//! Which of the system's addresses are registered, and why the others are not. Where they come from is `netlink.rs`.

use std::net::{IpAddr, UdpSocket};

use ipnet::IpNet;

use super::config::Filter;

/// Addresses that are registered, at most: a name with more has answers that no packet holds.
pub(super) const ADDRESSES_MAX: usize = 256;

/// Interfaces that are left out unless they are named: what containers, virtual machines and tunnels make.
const INTERFACES_LEFT_OUT: [&str; 10] = [
    "lo", "docker*", "br-*", "veth*", "virbr*", "cni*", "flannel*", "cali*", "tun*", "wg*",
];

/// Networks that are never registered: nobody reaches this machine from another one by them.
const NETWORKS_LEFT_OUT: [&str; 8] = [
    "169.254.0.0/16",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "0.0.0.0/8",
    "fe80::/10",
    "::1/128",
    "ff00::/8",
    "::/128",
];

/// An address of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) ip: IpAddr,
    pub(super) interface: String,
    /// Whether the interface is switched on.
    pub(super) up: bool,
    /// Made for privacy and soon replaced (RFC 8981).
    pub(super) temporary: bool,
    /// Not to be used for new connections (RFC 4862 §5.5.4).
    pub(super) deprecated: bool,
    /// It is not known yet whether somebody else has it (RFC 4862 §5.4).
    pub(super) tentative: bool,
    /// Somebody else has it.
    pub(super) duplicate: bool,
}

/// An address to register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    /// Empty for one that was given by hand.
    pub(super) interface: String,
}

/// The addresses to register, in order, each once; and what was left out, with the reason.
pub(super) fn choose(
    found: &[Found],
    filter: &Filter,
    primary: impl Fn() -> Vec<IpAddr>,
) -> (Vec<Address>, Vec<String>) {
    let mut chosen = Vec::new();
    let mut left_out = Vec::new();
    if filter.addresses.is_empty() {
        let primary = if filter.primary_only {
            primary()
        } else {
            Vec::new()
        };
        for found in found {
            match objection(found, filter, &primary) {
                None => chosen.push(Address {
                    ip: found.ip,
                    interface: found.interface.clone(),
                }),
                Some(why) => left_out.push(format!("{} on {}: {why}", found.ip, found.interface)),
            }
        }
    } else {
        let wanted = filter
            .addresses
            .iter()
            .filter(|ip| is_of_family(**ip, filter));
        chosen.extend(wanted.map(|ip| Address {
            ip: *ip,
            interface: String::new(),
        }));
    }
    chosen.sort();
    chosen.dedup_by(|one, other| one.ip == other.ip);
    for address in chosen.drain(ADDRESSES_MAX.min(chosen.len())..) {
        left_out.push(format!(
            "{}: more than {ADDRESSES_MAX} addresses",
            address.ip
        ));
    }
    (chosen, left_out)
}

fn is_of_family(ip: IpAddr, filter: &Filter) -> bool {
    match ip {
        IpAddr::V4(_) => filter.v4,
        IpAddr::V6(_) => filter.v6,
    }
}

/// Why an address is not registered.
fn objection(found: &Found, filter: &Filter, primary: &[IpAddr]) -> Option<&'static str> {
    let named = |patterns: &[String]| {
        patterns
            .iter()
            .any(|pattern| matches(pattern, &found.interface))
    };
    let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&found.ip));
    let never = NETWORKS_LEFT_OUT
        .iter()
        .filter_map(|net| net.parse::<IpNet>().ok())
        .any(|net| net.contains(&found.ip));
    let usually = INTERFACES_LEFT_OUT
        .iter()
        .any(|pattern| matches(pattern, &found.interface));
    let reasons = [
        (!is_of_family(found.ip, filter), "not of --family"),
        (never, "no other machine reaches this one by it"),
        (named(&filter.exclude_interfaces), "--exclude-interface"),
        (
            !filter.interfaces.is_empty() && !named(&filter.interfaces),
            "not of --interface",
        ),
        (
            filter.interfaces.is_empty() && usually,
            "an interface that is left out unless --interface names it",
        ),
        (!found.up, "the interface is down"),
        (within(&filter.exclude_cidrs), "--exclude-cidr"),
        (
            !filter.cidrs.is_empty() && !within(&filter.cidrs),
            "not in --cidr",
        ),
        (
            found.duplicate,
            "another machine has it (duplicate address detection failed)",
        ),
        (
            found.tentative,
            "duplicate address detection is not done yet",
        ),
        (found.deprecated, "deprecated"),
        (
            found.temporary && !filter.temporary,
            "temporary; --ipv6-temporary takes it",
        ),
        (
            filter.primary_only && !primary.contains(&found.ip),
            "not the address of the default route",
        ),
    ];
    reasons
        .iter()
        .find(|(applies, _)| *applies)
        .map(|(_, why)| *why)
}

/// The addresses that the default routes use, as the kernel chooses them.
pub(super) fn primary() -> Vec<IpAddr> {
    // To connect a datagram socket sends nothing: it only asks the routing table. Both targets are for documentation (RFC 5737, RFC 3849).
    let ask = |from: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let answers = [
        ask("0.0.0.0:0", "192.0.2.1:53"),
        ask("[::]:0", "[2001:db8::1]:53"),
    ];
    answers.into_iter().flatten().collect()
}

/// Whether a name matches a pattern in which `*` stands for anything and `?` for one sign.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and what it has swallowed up to: the only place to go back to.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(sign) if *sign == '?' || Some(sign) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    p = at + 1;
                    n = swallowed + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|sign| *sign == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        Filter {
            addresses: Vec::new(),
            interfaces: Vec::new(),
            exclude_interfaces: Vec::new(),
            v4: true,
            v6: true,
            cidrs: Vec::new(),
            exclude_cidrs: Vec::new(),
            temporary: false,
            primary_only: false,
        }
    }

    fn found(ip: &str, interface: &str) -> Found {
        Found {
            ip: ip.parse().expect("an address"),
            interface: interface.to_owned(),
            up: true,
            temporary: false,
            deprecated: false,
            tentative: false,
            duplicate: false,
        }
    }

    /// The addresses that are chosen, as text.
    fn check(found: &[Found], filter: &Filter, expected: &str) {
        let (chosen, _) = choose(found, filter, || vec!["192.0.2.7".parse().expect("one")]);
        let chosen: Vec<String> = chosen
            .iter()
            .map(|address| address.ip.to_string())
            .collect();
        assert_eq!(chosen.join(" "), expected);
    }

    #[test]
    fn what_nobody_can_reach_is_left_out() {
        let all = [
            found("192.0.2.8", "eth1"),
            found("192.0.2.7", "eth0"),
            found("127.0.0.1", "lo"),
            found("10.1.1.1", "docker0"),
            found("169.254.1.1", "eth0"),
            found("fe80::1", "eth0"),
            found("2001:db8::7", "eth0"),
            Found {
                tentative: true,
                ..found("2001:db8::8", "eth0")
            },
            Found {
                temporary: true,
                ..found("2001:db8::9", "eth0")
            },
            Found {
                duplicate: true,
                ..found("2001:db8::a", "eth0")
            },
            Found {
                deprecated: true,
                ..found("2001:db8::b", "eth0")
            },
            Found {
                up: false,
                ..found("192.0.2.9", "eth2")
            },
        ];
        check(&all, &filter(), "192.0.2.7 192.0.2.8 2001:db8::7");
        check(
            &all,
            &Filter {
                temporary: true,
                v4: false,
                ..filter()
            },
            "2001:db8::7 2001:db8::9",
        );
        check(
            &all,
            &Filter {
                interfaces: vec!["docker?".into()],
                ..filter()
            },
            "10.1.1.1",
        );
        check(
            &all,
            &Filter {
                exclude_interfaces: vec!["eth1".into()],
                v6: false,
                ..filter()
            },
            "192.0.2.7",
        );
        check(
            &all,
            &Filter {
                primary_only: true,
                ..filter()
            },
            "192.0.2.7",
        );
        let nets = vec!["192.0.2.8/32".parse().expect("a net")];
        check(
            &all,
            &Filter {
                cidrs: nets.clone(),
                ..filter()
            },
            "192.0.2.8",
        );
        check(
            &all,
            &Filter {
                exclude_cidrs: nets,
                ..filter()
            },
            "192.0.2.7 2001:db8::7",
        );
        let by_hand = vec!["203.0.113.1".parse().expect("one")];
        check(
            &all,
            &Filter {
                addresses: by_hand,
                ..filter()
            },
            "203.0.113.1",
        );
    }

    #[test]
    fn an_address_on_two_interfaces_is_registered_once() {
        check(
            &[found("192.0.2.7", "eth0"), found("192.0.2.7", "eth1")],
            &filter(),
            "192.0.2.7",
        );
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("eth*", "eth0", true),
            ("eth*", "eth", true),
            ("eth?", "eth", false),
            ("*0", "eth10", true),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxx", false),
            ("lo", "lo0", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
