//! Which policy decides for a client, without going through them.
//!
//! The address space is cut wherever a network starts or ends. Between two cuts the same policies match all addresses, so what they say
//! together is worked out once: an answer is one binary search and a look at a short list, however many networks there are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::policies::{Action, Policy};
use crate::kit::wire::Rtype;

/// The policies of an `acl` line, arranged for looking up.
pub(super) struct Networks {
    v4: Cuts<u32>,
    v6: Cuts<u128>,
    // What is said between two cuts: policies in their order, none that those before it leave nothing to decide.
    lists: Vec<Box<[Verdict]>>,
}

struct Verdict {
    action: Action,
    types: Option<Box<[Rtype]>>,
}

/// Where something changes, in ascending order, and which list holds from there on. The first cut is at 0.
struct Cuts<A> {
    starts: Vec<A>,
    lists: Vec<u32>,
}

impl Networks {
    pub(super) fn new(policies: &[Policy]) -> Networks {
        let mut lists = Lists::new(policies);
        let v4 = cut(policies, v4_range, u32::MAX.into(), &mut lists);
        let v6 = cut(policies, v6_range, u128::MAX, &mut lists);
        Networks {
            v4: Cuts {
                starts: v4.iter().map(|(start, _)| *start as u32).collect(),
                lists: v4.iter().map(|(_, list)| *list).collect(),
            },
            v6: Cuts {
                starts: v6.iter().map(|(start, _)| *start).collect(),
                lists: v6.iter().map(|(_, list)| *list).collect(),
            },
            lists: lists.done(),
        }
    }

    /// What the first policy says that matches this client and type. No allocation.
    pub(super) fn decide(&self, client: IpAddr, qtype: Rtype) -> Option<Action> {
        let list = match client {
            IpAddr::V4(ip) => self.v4.find(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.find(ip.to_bits()),
        };
        let verdict = self.lists.get(list as usize)?.iter().find(|verdict| {
            let types = verdict.types.as_deref();
            types.is_none_or(|types| types.contains(&qtype))
        });
        verdict.map(|verdict| verdict.action)
    }
}

impl<A: Ord> Cuts<A> {
    fn find(&self, address: A) -> u32 {
        let behind = self.starts.partition_point(|start| *start <= address);
        let at = behind.saturating_sub(1);
        self.lists.get(at).copied().unwrap_or(u32::MAX)
    }
}

/// First and last address of a network.
type Range = (u128, u128);

fn v4_range(network: &IpNet) -> Option<Range> {
    match network {
        IpNet::V4(v4) => Some((
            v4.network().to_bits().into(),
            v4.broadcast().to_bits().into(),
        )),
        IpNet::V6(_) => None,
    }
}

fn v6_range(network: &IpNet) -> Option<Range> {
    match network {
        IpNet::V6(v6) => Some((v6.network().to_bits(), v6.broadcast().to_bits())),
        IpNet::V4(_) => None,
    }
}

/// A policy's addresses, ascending and apart from each other.
fn ranges(policy: &Policy, range_of: fn(&IpNet) -> Option<Range>, last: u128) -> Vec<Range> {
    let Some(networks) = &policy.networks else {
        return vec![(0, last)];
    };
    let mut ranges: Vec<Range> = networks.iter().filter_map(range_of).collect();
    ranges.sort_unstable();
    let mut apart: Vec<Range> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match apart.last_mut() {
            Some((_, before)) if start <= *before => *before = end.max(*before),
            _ => apart.push((start, end)),
        }
    }
    apart
}

/// Goes over the addresses once: where a policy starts or ends to match, another list may hold.
fn cut(
    policies: &[Policy],
    range_of: fn(&IpNet) -> Option<Range>,
    last: u128,
    lists: &mut Lists<'_>,
) -> Vec<(u128, u32)> {
    // Address, policy, and whether it matches from here on.
    let mut events: Vec<(u128, u32, bool)> = Vec::new();
    for (at, policy) in (0..).zip(policies) {
        for (start, end) in ranges(policy, range_of, last) {
            events.push((start, at, true));
            if end < last {
                events.push((end + 1, at, false));
            }
        }
    }
    events.sort_unstable();
    let mut matching = BTreeSet::new();
    let mut cuts = vec![(0, lists.number_of(&matching))];
    for at_once in events.chunk_by(|a, b| a.0 == b.0) {
        // A range of a policy may start where another of its own ends.
        for (_, policy, _) in at_once.iter().filter(|(_, _, starts)| !starts) {
            matching.remove(policy);
        }
        for (_, policy, _) in at_once.iter().filter(|(_, _, starts)| *starts) {
            matching.insert(*policy);
        }
        let list = lists.number_of(&matching);
        let start = at_once.first().map_or(0, |(start, _, _)| *start);
        match cuts.last_mut() {
            Some(last) if last.0 == start => last.1 = list,
            Some((_, before)) if *before == list => {}
            _ => cuts.push((start, list)),
        }
    }
    cuts
}

/// Every list that holds somewhere, once.
struct Lists<'p> {
    policies: &'p [Policy],
    // The first policy that says the same, for each.
    alike: Vec<u32>,
    numbers: HashMap<Vec<u32>, u32>,
}

impl<'p> Lists<'p> {
    fn new(policies: &'p [Policy]) -> Lists<'p> {
        let mut first = HashMap::new();
        let alike = (0..).zip(policies).map(|(at, policy)| {
            let says = (policy.action, &policy.types);
            *first.entry(says).or_insert(at)
        });
        Lists {
            policies,
            alike: alike.collect(),
            numbers: HashMap::new(),
        }
    }

    /// The number of the list that these policies make: those that decide nothing any more are left out.
    fn number_of(&mut self, matching: &BTreeSet<u32>) -> u32 {
        let mut decided: HashSet<Rtype> = HashSet::new();
        let mut list = Vec::new();
        for at in matching {
            let (Some(policy), Some(alike)) = (
                self.policies.get(*at as usize),
                self.alike.get(*at as usize),
            ) else {
                continue;
            };
            let Some(types) = &policy.types else {
                list.push(*alike);
                break;
            };
            let before = decided.len();
            decided.extend(types);
            if decided.len() > before {
                list.push(*alike);
            }
        }
        let next = self.numbers.len() as u32;
        *self.numbers.entry(list).or_insert(next)
    }

    fn done(self) -> Vec<Box<[Verdict]>> {
        let mut lists: Vec<(u32, Vec<u32>)> = self
            .numbers
            .into_iter()
            .map(|(list, number)| (number, list))
            .collect();
        lists.sort_unstable();
        let verdicts = |list: &[u32]| {
            let policies = list.iter().filter_map(|at| self.policies.get(*at as usize));
            let verdict = |policy: &Policy| Verdict {
                action: policy.action,
                types: policy
                    .types
                    .as_ref()
                    .map(|types| types.iter().copied().collect()),
            };
            policies.map(verdict).collect()
        };
        lists.iter().map(|(_, list)| verdicts(list)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first policy that matches, found one by one.
    fn one_by_one(policies: &[Policy], client: IpAddr, qtype: Rtype) -> Option<Action> {
        let matches = |policy: &&Policy| {
            let types = policy.types.as_ref();
            let networks = policy.networks.as_ref();
            types.is_none_or(|types| types.contains(&qtype))
                && networks
                    .is_none_or(|networks| networks.iter().any(|network| network.contains(&client)))
        };
        policies.iter().find(matches).map(|policy| policy.action)
    }

    fn networks() -> impl Strategy<Value = IpNet> {
        // Few different octets, so that networks touch and contain each other.
        let v4 = (prop::array::uniform4(0u8..3), 0u8..=32)
            .prop_map(|(octets, length)| (IpAddr::from(octets), length));
        let v6 = (prop::array::uniform16(0u8..2), 0u8..=128)
            .prop_map(|(octets, length)| (IpAddr::from(octets), length));
        prop_oneof![v4, v6].prop_map(|(address, length)| {
            let network = IpNet::new(address, length).expect("the length is in range");
            network.trunc()
        })
    }

    fn policies() -> impl Strategy<Value = Vec<Policy>> {
        let actions = prop::sample::select(vec![
            Action::Allow,
            Action::Block,
            Action::Filter,
            Action::Drop,
        ]);
        let types = prop::option::of(prop::collection::btree_set((1u16..4).prop_map(Rtype), 1..3));
        let networks = prop::option::of(prop::collection::vec(networks(), 1..6));
        let policy = (actions, types, networks).prop_map(|(action, types, networks)| Policy {
            action,
            types,
            networks,
        });
        prop::collection::vec(policy, 0..8)
    }

    proptest! {
        #[test]
        fn the_first_policy_that_matches_decides(policies in policies(), more in prop::collection::vec(networks(), 1..10)) {
            let networks = Networks::new(&policies);
            let all = policies.iter().filter_map(|policy| policy.networks.clone()).flatten().chain(more);
            for network in all {
                for client in [network.network(), network.broadcast()] {
                    for qtype in (1..5).map(Rtype) {
                        prop_assert_eq!(
                            networks.decide(client, qtype),
                            one_by_one(&policies, client, qtype),
                            "{} {}", client, qtype
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn many_lines_that_say_the_same_make_one_list() {
        let every_other = (0..100_000u32).map(|n| {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n * 512));
            IpNet::new(address, 24).unwrap()
        });
        let policies: Vec<Policy> = every_other
            .map(|network| Policy {
                action: Action::Block,
                types: None,
                networks: Some(vec![network]),
            })
            .collect();
        let networks = Networks::new(&policies);
        assert_eq!(networks.v4.starts.len(), 200_001);
        assert_eq!(networks.lists.len(), 2);
        let decide = |text: &str| networks.decide(text.parse().unwrap(), Rtype::A);
        assert_eq!(decide("10.0.0.255"), Some(Action::Block));
        assert_eq!(decide("10.0.1.0"), None);
        assert_eq!(decide("2001:db8::1"), None);
    }
}
