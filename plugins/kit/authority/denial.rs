//! What proves in a zone that was signed before it was loaded that something is not there: its NSEC (RFC 4035 §3.1.3) or
//! NSEC3 records (RFC 5155 §7.2).

use std::cmp::Ordering;

use ring::digest;

use super::contents::{Contents, LABELS_MAX, Node, label_starts};
use crate::kit::wire::{NameBuf, Rtype};

/// Iterations of NSEC3's hash, at most: each query that is denied costs several hashes, and resolvers treat more as insecure (RFC 9276 §3.2).
pub(super) const ITERATIONS_MAX: u16 = 50;
/// Records that one answer proves with: each of ten aliases may want up to three, most are the same.
const PROOFS_MAX: usize = 16;
/// Octets of a SHA-1 hash in base32hex.
const HASH_TEXT: usize = 32;

/// How a zone proves that something is not there.
#[derive(Default)]
pub(super) enum Chain {
    /// Not at all: it is not signed.
    #[default]
    None,
    /// NSEC.
    Nsec,
    /// NSEC3.
    Nsec3(Nsec3),
}

/// The chain of hashed names.
pub(super) struct Nsec3 {
    iterations: u16,
    salt: Vec<u8>,
    // Nodes of this chain, by hash, which is canonical order.
    nodes: Vec<u32>,
}

/// Too many iterations.
pub(super) struct IterationsError(pub(super) u16);

/// Nodes whose NSEC or NSEC3 goes into an answer, each once.
pub(super) struct Proofs {
    nodes: [u32; PROOFS_MAX],
    len: usize,
}

impl Proofs {
    pub(super) const fn new() -> Proofs {
        Proofs {
            nodes: [0; PROOFS_MAX],
            len: 0,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().take(self.len).copied()
    }

    fn add(&mut self, node: Option<Node<'_>>) {
        if let Some(node) = node
            && !self.iter().any(|number| number == node.number)
            && let Some(slot) = self.nodes.get_mut(self.len)
        {
            *slot = node.number;
            self.len += 1;
        }
    }
}

impl Chain {
    pub(super) fn of(zone: &Contents) -> Result<Chain, IterationsError> {
        // RFC 5155 §4: NSEC3PARAM says which of several chains is whole. Flags are zero, the hash is SHA-1 (1).
        if let Some(params) = zone.apex().rrset(Rtype::NSEC3PARAM) {
            for data in params.records() {
                let Some((&[1, 0, i0, i1, salt_len], salt)) = data.split_first_chunk::<5>() else {
                    continue;
                };
                if usize::from(salt_len) != salt.len() {
                    continue;
                }
                let iterations = u16::from_be_bytes([i0, i1]);
                if iterations > ITERATIONS_MAX {
                    return Err(IterationsError(iterations));
                }
                let has_params = |data: &[u8]| {
                    data.first() == Some(&1)
                        && data.get(2..4) == Some(&[i0, i1])
                        && data.get(5..5 + salt.len()) == Some(salt)
                        && data.get(4) == Some(&salt_len)
                };
                let is_hash = |node: &Node<'_>| {
                    zone.relative_name(node.number).len() == 1 + HASH_TEXT
                        && node
                            .rrset(Rtype::NSEC3)
                            .is_some_and(|rrset| rrset.records().any(has_params))
                };
                let nodes: Vec<u32> = zone
                    .nodes()
                    .filter(is_hash)
                    .map(|node| node.number)
                    .collect();
                if !nodes.is_empty() {
                    return Ok(Chain::Nsec3(Nsec3 {
                        iterations,
                        salt: salt.to_vec(),
                        nodes,
                    }));
                }
            }
        }
        match zone.apex().rrset(Rtype::NSEC) {
            Some(_) => Ok(Chain::Nsec),
            None => Ok(Chain::None),
        }
    }

    /// The type of its records.
    pub(super) fn rtype(&self) -> Rtype {
        match self {
            Chain::Nsec3(_) => Rtype::NSEC3,
            _ => Rtype::NSEC,
        }
    }
}

impl Contents {
    /// A node without the type asked for.
    pub(super) fn prove_nodata(&self, node: Node<'_>, proofs: &mut Proofs) {
        match &self.chain {
            Chain::None => {}
            Chain::Nsec => match node.rrset(Rtype::NSEC) {
                Some(_) => proofs.add(Some(node)),
                // An empty non-terminal has none: the one before it says so (RFC 4035 §3.1.3.2).
                None => proofs.add(self.nsec_before(self.relative_name(node.number))),
            },
            Chain::Nsec3(chain) => {
                let own = chain.matching(self, self.relative_name(node.number));
                match own {
                    Some(_) => proofs.add(own),
                    None => self.prove_opt_out(chain, node, proofs),
                }
            }
        }
    }

    /// A name that is not there; `encloser` is the nearest node above it.
    pub(super) fn prove_nxdomain(&self, encloser: Node<'_>, relative: &[u8], proofs: &mut Proofs) {
        match &self.chain {
            Chain::None => {}
            Chain::Nsec => {
                proofs.add(self.nsec_before(relative));
                if let Some(wildcard) = wildcard_of(self.relative_name(encloser.number)) {
                    proofs.add(self.nsec_before(wildcard.as_wire()));
                }
            }
            Chain::Nsec3(chain) => {
                proofs.add(chain.matching(self, self.relative_name(encloser.number)));
                proofs.add(chain.covering(self, next_closer(encloser, relative)));
                if let Some(wildcard) = wildcard_of(self.relative_name(encloser.number)) {
                    proofs.add(chain.covering(self, wildcard.as_wire()));
                }
            }
        }
    }

    /// A name that a wildcard stands for: it is not there itself.
    pub(super) fn prove_wildcard(&self, encloser: Node<'_>, relative: &[u8], proofs: &mut Proofs) {
        match &self.chain {
            Chain::None => {}
            Chain::Nsec => proofs.add(self.nsec_before(relative)),
            Chain::Nsec3(chain) => {
                proofs.add(chain.covering(self, next_closer(encloser, relative)));
            }
        }
    }

    /// A wildcard without the type asked for.
    pub(super) fn prove_wildcard_nodata(
        &self,
        encloser: Node<'_>,
        wildcard: Node<'_>,
        relative: &[u8],
        proofs: &mut Proofs,
    ) {
        self.prove_wildcard(encloser, relative, proofs);
        if let Chain::Nsec3(chain) = &self.chain {
            proofs.add(chain.matching(self, self.relative_name(encloser.number)));
        }
        self.prove_nodata(wildcard, proofs);
    }

    fn prove_opt_out(&self, chain: &Nsec3, node: Node<'_>, proofs: &mut Proofs) {
        // RFC 5155 §7.2.4: the closest name above that is in the chain, and what covers the next one.
        let mut above = node;
        while !above.is_apex() {
            let below = above;
            above = above.parent();
            if let Some(found) = chain.matching(self, self.relative_name(above.number)) {
                proofs.add(Some(found));
                proofs.add(chain.covering(self, self.relative_name(below.number)));
                return;
            }
        }
    }

    /// The node whose NSEC covers a name without one.
    fn nsec_before(&self, relative: &[u8]) -> Option<Node<'_>> {
        let mut node = self.node_at(self.first_after(relative).checked_sub(1)?);
        while node.rrset(Rtype::NSEC).is_none() {
            node = match node.is_occluded() {
                true => node.occluder(),
                false => node.before()?,
            };
        }
        Some(node)
    }
}

/// `*` below a name.
fn wildcard_of(relative: &[u8]) -> Option<NameBuf> {
    let mut name = NameBuf::new();
    name.push_label(b"*").ok()?;
    name.extend(relative).ok()?;
    Some(name)
}

/// The name one label longer than its closest encloser (RFC 5155 §1.3).
fn next_closer<'n>(encloser: Node<'_>, relative: &'n [u8]) -> &'n [u8] {
    let mut starts = [0_u8; LABELS_MAX];
    let labels = label_starts(relative, &mut starts);
    let depth = usize::from(encloser.zone.raw(encloser.number).labels);
    let start = labels
        .checked_sub(depth + 1)
        .and_then(|at| starts.get(at))
        .map_or(0, |start| usize::from(*start));
    relative.get(start..).unwrap_or_default()
}

impl Nsec3 {
    /// The node of this name's own NSEC3.
    fn matching<'z>(&self, zone: &'z Contents, relative: &[u8]) -> Option<Node<'z>> {
        let hash = self.hash(zone, relative);
        self.search(zone, &hash).ok()
    }

    /// The node whose NSEC3 covers this name's hash.
    fn covering<'z>(&self, zone: &'z Contents, relative: &[u8]) -> Option<Node<'z>> {
        let hash = self.hash(zone, relative);
        match self.search(zone, &hash) {
            Ok(_) => None,
            Err(node) => node,
        }
    }

    fn search<'z>(
        &self,
        zone: &'z Contents,
        hash: &[u8; HASH_TEXT],
    ) -> Result<Node<'z>, Option<Node<'z>>> {
        let compare = |number: &u32| -> Ordering {
            let label = zone.relative_name(*number).get(1..);
            label.unwrap_or_default().cmp(hash)
        };
        let node = |at: usize| self.nodes.get(at).map(|number| zone.node_at(*number));
        match self.nodes.binary_search_by(compare) {
            Ok(at) => node(at).ok_or(None),
            // The last one covers what is before the first.
            Err(0) => Err(node(self.nodes.len().saturating_sub(1))),
            Err(at) => Err(node(at - 1)),
        }
    }

    /// RFC 5155 §5: the name and the salt hashed, and the result and the salt again and again; in base32hex, lower-case.
    fn hash(&self, zone: &Contents, relative: &[u8]) -> [u8; HASH_TEXT] {
        let algorithm = &digest::SHA1_FOR_LEGACY_USE_ONLY;
        let mut context = digest::Context::new(algorithm);
        context.update(relative);
        context.update(zone.apex.as_wire());
        context.update(&self.salt);
        let mut hash = context.finish();
        for _ in 0..self.iterations {
            let mut context = digest::Context::new(algorithm);
            context.update(hash.as_ref());
            context.update(&self.salt);
            hash = context.finish();
        }
        let mut text = [0; HASH_TEXT];
        for (five, eight) in hash.as_ref().chunks_exact(5).zip(text.chunks_exact_mut(8)) {
            let bits = five
                .iter()
                .fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
            for (place, slot) in eight.iter_mut().enumerate() {
                let digit = (bits >> (35 - 5 * place) & 31) as u8;
                *slot = if digit < 10 {
                    b'0' + digit
                } else {
                    b'a' + digit - 10
                };
            }
        }
        text
    }
}
