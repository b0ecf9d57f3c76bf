//! Names that a wildcard answers for: one finished answer for all of them, kept at the wildcard's parent.
//!
//! The names are without number, so nothing is kept at them. What is kept is made for a name that nobody has, and is the same for all but
//! for the owner, which is a pointer to the question wherever that ends.

use super::tree::{Finished, Of, is_wildcard};
use super::zone::ZoneData;
use super::{Etcd, answer, finish, skydns};
use crate::kit::handler::{Next, Served};
use crate::kit::query::Query;
use crate::kit::wire::Rtype;
use crate::kit::wire::name::{NameBuf, is_within, labels};

/// The first label of the name that an answer is made for: nothing that a key is called.
const STAND_IN: &[u8] = b"\xff";
/// Instead of counts: there is no such name.
const NO_NAME: [u16; 3] = [u16::MAX; 3];

impl Etcd {
    /// Answers for a name that has no entry from the wildcard at its closest encloser (RFC 4592 §3.3.1). Comes back with the query if that
    /// must be looked at closer.
    pub(super) fn by_wildcard<'c>(
        &'c self,
        query: Query,
        next: Next<'c>,
        zone: &'c ZoneData,
        of: Of,
    ) -> Result<Served<'c>, (Query, Next<'c>)> {
        // Names with the words of patterns have no entries, so theirs is not the closest one.
        if labels(query.qname()).any(is_wildcard) {
            return Err((query, next));
        }
        let tree = self.follower.tree();
        let of = Of {
            for_wildcard: true,
            ..of
        };
        let changes = tree.changes();
        let apex = zone.zone.name.as_wire();
        // One label less each time, down to the zone.
        let mut start = 0;
        while let Some(length) = query.qname().get(start) {
            start += 1 + usize::from(*length);
            let encloser = query.qname().get(start..).unwrap_or_default();
            if !is_within(encloser, apex) {
                break;
            }
            let hash = tree.hash(encloser);
            let shard = tree.shard(hash);
            let Some(entry) = shard.find(hash, encloser) else {
                continue;
            };
            if let Some(found) = entry.answer(of, changes) {
                return Ok(match found.counts {
                    NO_NAME => {
                        drop(shard);
                        self.missing(query, next, zone)
                    }
                    [0, 0, 0] => {
                        drop(shard);
                        self.no_data(query, next, zone)
                    }
                    counts => Served::Now(finish(query, self.flags, counts, &found.wire)),
                });
            }
            let version = entry.version;
            drop(shard);
            let Some((counts, alone, wire)) = self.for_all_below(encloser, zone, of.qtype) else {
                break;
            };
            let valid = if alone { 0 } else { changes };
            let finished = Finished::new(of, valid, counts, &wire);
            tree.keep(hash, encloser, version, finished);
            return Ok(match counts {
                NO_NAME => self.missing(query, next, zone),
                [0, 0, 0] => self.no_data(query, next, zone),
                counts => Served::Now(finish(query, self.flags, counts, &wire)),
            });
        }
        Err((query, next))
    }

    /// The answer that every name below a name has that is not there; `None` if they have not all the same.
    fn for_all_below(
        &self,
        encloser: &[u8],
        zone: &ZoneData,
        qtype: u16,
    ) -> Option<([u16; 3], bool, Vec<u8>)> {
        let mut name = NameBuf::new();
        name.push_label(STAND_IN).ok()?;
        name.extend(encloser).ok()?;
        let name = name.as_wire();
        let made = self.collected(zone, |collector| match &self.style.sky {
            None => Some(answer::make(collector, name, Rtype(qtype))),
            Some(sky) => skydns::make_now(collector, sky, name, Rtype(qtype)),
        })?;
        let Some(made) = made else {
            return Some((NO_NAME, true, Vec::new()));
        };
        let (wire, counts) = made.wire_below(name)?;
        Some((counts, made.alone, wire))
    }
}
