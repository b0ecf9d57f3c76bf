//! What makes one version of a zone the next: for IXFR (RFC 1995) and for tests.

use super::contents::{Contents, Node, Rrset, canonical_cmp};
use crate::kit::wire::{NameBuf, Rtype};

/// One record that is in one of two versions only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its owner, wire form.
    pub owner: Vec<u8>,
    /// Its type.
    pub rtype: Rtype,
    /// Its TTL.
    pub ttl: u32,
    /// Its data.
    pub rdata: Vec<u8>,
}

/// What was taken out and what was put in, each in canonical order of names; the SOA records are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Records of the old version that the new one does not have.
    pub removed: Vec<Change>,
    /// Records of the new version that the old one does not have.
    pub added: Vec<Change>,
}

impl Changes {
    /// Compares two versions of one zone; `None` if there are more than `records_max` changes, when a whole transfer is the better way.
    pub fn between(old: &Contents, new: &Contents, records_max: usize) -> Option<Changes> {
        let mut changes = Changes::default();
        let (mut olds, mut news) = (old.nodes().peekable(), new.nodes().peekable());
        loop {
            let order = match (olds.peek(), news.peek()) {
                (None, None) => return Some(changes),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => canonical_cmp(
                    a.zone.relative_name(a.number),
                    b.zone.relative_name(b.number),
                ),
            };
            let before = if order.is_le() { olds.next() } else { None };
            let after = if order.is_ge() { news.next() } else { None };
            minus(before, after, &mut changes.removed);
            minus(after, before, &mut changes.added);
            if changes.removed.len() + changes.added.len() > records_max {
                return None;
            }
        }
    }
}

/// Records of node `a` that are not at node `b`.
fn minus(a: Option<Node<'_>>, b: Option<Node<'_>>, out: &mut Vec<Change>) {
    let Some(a) = a else { return };
    let mut owner = NameBuf::new();
    for rrset in a.rrsets() {
        let other = b.and_then(|b| b.rrset(rrset.rtype));
        if other.is_some_and(|other: Rrset<'_>| other.wire == rrset.wire) {
            continue;
        }
        for record in rrset.iter() {
            let is_there = other.is_some_and(|other| other.iter().any(|found| found == record));
            if is_there {
                continue;
            }
            a.name(&mut owner);
            out.push(Change {
                owner: owner.as_wire().to_vec(),
                rtype: rrset.rtype,
                ttl: record.ttl,
                rdata: record.rdata.to_vec(),
            });
        }
    }
}
