//! From a query to the answer of one zone: RFC 1034 §4.3.2 with what came later (RFC 2308, 4035, 4592, 5155, 6604, 6672, 8482, 9471).
//!
//! ```text
//!   place of the name ─▶ below a delegation ─▶ referral
//!                     ├▶ below a DNAME ───────▶ synthesised CNAME ─▶ again
//!                     ├▶ a node, or a wildcard for it ─▶ the RRset │ CNAME ─▶ again │ NODATA
//!                     └▶ nothing ─▶ NXDOMAIN
//! ```
//! Nothing here allocates. An alias that leaves the zone is handed back half written, for whoever may wait for the rest.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::contents::{Contents, Node, Place, Relative, Rrset};
use super::denial::{Chain, Proofs};
use super::published::Published;
use crate::kit::errors::ServeError;
use crate::kit::fallthrough::Fallthrough;
use crate::kit::handler::{Next, Served};
use crate::kit::lookup::Lookup;
use crate::kit::query::{Facts, Query, flags};
use crate::kit::response::{Answer, Owner, Response};
use crate::kit::wire::message::{self, expand_name, names_in, records};
use crate::kit::wire::name::{self, is_within, wire_len};
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Class, NameBuf, Rcode, Rtype, Section};

/// Aliases in a row, synthesised ones included; where CoreDNS ends too.
pub const ALIASES_MAX: usize = 10;
/// Names whose addresses go into the additional section of one answer.
const ADDITIONAL_MAX: usize = 64;
/// Octets that an OPT without options has: what is optional is left out rather than truncated.
const OPT_OCTETS: usize = 11;

/// What a zone makes of a query.
pub enum Made {
    /// An answer.
    Whole(Response),
    /// An alias leads out of the zone: the answer up to there.
    Elsewhere(Box<Elsewhere>),
    /// The name is not there, and may pass on to the next handler.
    Missing(Query),
}

/// An answer that ends in an alias to a name outside the zone.
pub struct Elsewhere {
    answer: Answer,
    target: NameBuf,
    proofs: Proofs,
}

/// Serves a query for a name within the zone that stands at `published`: the whole of what `file`, `auto` and `secondary` do with one.
/// `what` names the zone's source where there is no zone yet.
pub fn serve<'c>(
    published: &Published,
    what: impl FnOnce() -> String,
    fallthrough: &Fallthrough,
    lookup: &Lookup,
    query: Query,
    next: Next<'c>,
) -> Served<'c> {
    // Transfers are the plugin's in front of us, if there is one (RFC 5936 §4.2: REFUSED).
    if matches!(query.qtype(), Rtype::AXFR | Rtype::IXFR) {
        return Served::Now(query.refuse());
    }
    let made = published.read(|zone| match zone {
        Some(zone) => Ok(answer(zone, query, |facts| {
            fallthrough.passes(facts.qname())
        })),
        None => Err(query),
    });
    match made {
        Ok(Made::Whole(response)) => Served::Now(response),
        Ok(Made::Missing(query)) => next.serve(query),
        Ok(Made::Elsewhere(elsewhere)) => match published.get() {
            Some(zone) => Served::later(complete(elsewhere, zone, lookup.clone())),
            None => Served::Now(elsewhere.answer.rcode(Rcode::SERVFAIL).done()),
        },
        Err(query) => Served::Now(query.fail(ServeError::Backend {
            which: what(),
            what: "the zone is not loaded".into(),
            not_ready: true,
        })),
    }
}

/// Answers from a zone that the query's name is within. `passes` says whether a name that is not there is to be handed back.
pub fn answer(zone: &Contents, query: Query, passes: impl FnOnce(&Facts) -> bool) -> Made {
    let qtype = query.qtype();
    let Some(step) = step(zone, query.qname(), qtype) else {
        return Made::Whole(query.refuse());
    };
    if step.is_missing() && passes(&query) {
        return Made::Missing(query);
    }
    let dnssec = query.dnssec_ok();
    let apex_at = 12 + query.qname().len() - zone.apex.as_wire().len();
    let mut name = NameBuf::new();
    let copied = name.extend(query.qname());
    debug_assert!(copied.is_ok());
    let mut answering = Answering {
        zone,
        qtype,
        dnssec,
        apex_at,
        name,
        aliases: 0,
        seen: [0; ALIASES_MAX],
        proofs: Proofs::new(),
        answer: query.answer(),
    };
    match answering.walk(step) {
        End::Whole { rcode, aa } => {
            // A cache in front would keep it beyond the next version of the zone, and be no faster.
            let answer = answering.answer.rcode(rcode).not_stored();
            Made::Whole(if aa { answer.authoritative() } else { answer }.done())
        }
        End::Elsewhere => Made::Elsewhere(Box::new(Elsewhere {
            answer: answering.answer,
            target: answering.name,
            proofs: answering.proofs,
        })),
    }
}

/// What is where a name leads.
enum Step<'z> {
    /// The node itself.
    Node(Node<'z>),
    /// A wildcard in its place, below this encloser.
    Wildcard(Node<'z>, Node<'z>),
    /// A DNAME above it.
    Dname(Node<'z>),
    /// A delegation at it or above it.
    Referral(Node<'z>),
    /// Nothing, below this encloser.
    Nothing(Node<'z>),
}

impl Step<'_> {
    /// No such name, or nothing at it: what CoreDNS lets fall through.
    fn is_missing(&self) -> bool {
        match self {
            Step::Nothing(_) => true,
            Step::Node(node) => node.is_empty(),
            _ => false,
        }
    }
}

/// Finds out; `None` outside the zone.
fn step<'z>(zone: &'z Contents, name: &[u8], qtype: Rtype) -> Option<Step<'z>> {
    let (node, exact) = match zone.place(name)? {
        Place::Exact(node) if node.is_nsec3_only() => (node.parent(), false),
        Place::Exact(node) => (node, true),
        Place::Below(node) if node.is_nsec3_only() => (node.parent(), false),
        Place::Below(node) => (node, false),
    };
    if node.is_occluded() {
        let above = node.occluder();
        return Some(match above.is_cut() {
            true => Step::Referral(above),
            false => Step::Dname(above),
        });
    }
    // RFC 4035 §3.1.4.1: the parent answers for the DS of a delegation.
    if node.is_cut() && !(exact && qtype == Rtype::DS) {
        return Some(Step::Referral(node));
    }
    if exact {
        return Some(Step::Node(node));
    }
    // RFC 6672 §3.2: a DNAME is for the names below it.
    if node.rrset(Rtype::DNAME).is_some() {
        return Some(Step::Dname(node));
    }
    Some(match node.wildcard() {
        Some(wildcard) => Step::Wildcard(wildcard, node),
        None => Step::Nothing(node),
    })
}

/// How an answer ended.
enum End {
    Whole { rcode: Rcode, aa: bool },
    Elsewhere,
}

impl End {
    const POSITIVE: End = End::Whole {
        rcode: Rcode::NOERROR,
        aa: true,
    };
}

/// An answer being written.
struct Answering<'z> {
    zone: &'z Contents,
    qtype: Rtype,
    dnssec: bool,
    // Where the apex stands in the question.
    apex_at: usize,
    // The name that is being answered for: the question's, then what aliases led to.
    name: NameBuf,
    aliases: usize,
    // Owners of the aliases, hashed, and DNAMEs.
    seen: [u64; ALIASES_MAX],
    proofs: Proofs,
    answer: Answer,
}

/// Whether there is another name to answer for.
enum Follow {
    Next,
    End(End),
}

impl<'z> Answering<'z> {
    fn walk(&mut self, first: Step<'z>) -> End {
        let mut step = first;
        loop {
            let follow = match step {
                Step::Node(node) => self.at(node, None),
                Step::Wildcard(node, encloser) => self.at(node, Some(encloser)),
                Step::Dname(node) => self.dname(node),
                Step::Referral(node) => Follow::End(self.referral(node)),
                Step::Nothing(encloser) => Follow::End(self.nxdomain(encloser)),
            };
            if let Follow::End(end) = follow {
                return end;
            }
            step = match self::step(self.zone, self.name.as_wire(), self.qtype) {
                Some(step) => step,
                None => return End::Elsewhere,
            };
        }
    }

    /// A node, or the wildcard that stands for the name.
    fn at(&mut self, node: Node<'z>, encloser: Option<Node<'z>>) -> Follow {
        let wanted = match self.qtype {
            Rtype::ANY => any(node),
            qtype => node.rrset(qtype),
        };
        if let Some(rrset) = wanted {
            return Follow::End(self.positive(node, rrset, encloser));
        }
        match node.rrset(Rtype::CNAME) {
            Some(cname) => self.cname(node, cname, encloser),
            None => Follow::End(self.nodata(node, encloser)),
        }
    }

    //--- Answers --------------------------------------------------------------------------------

    fn positive(&mut self, node: Node<'z>, rrset: Rrset<'z>, encloser: Option<Node<'z>>) -> End {
        self.answer_rrset(node, rrset, self.aliases == 0);
        self.wildcard_proof(encloser);
        let is_apex_ns = rrset.rtype == Rtype::NS && node.is_apex();
        // As NSD: not with keys and digests, which are large.
        if !is_apex_ns && !matches!(self.qtype, Rtype::DNSKEY | Rtype::DS) {
            self.apex_ns();
        }
        self.put_proofs();
        self.additional_of(rrset);
        End::POSITIVE
    }

    fn cname(&mut self, node: Node<'z>, cname: Rrset<'z>, encloser: Option<Node<'z>>) -> Follow {
        let owner = self.zone.hasher.hash_one(self.name.as_wire());
        if self.is_last_alias(owner) {
            return self.end_of_aliases();
        }
        self.answer_rrset(node, cname, self.aliases == 1);
        self.wildcard_proof(encloser);
        let Some(target) = cname.records().next() else {
            return self.end_of_aliases();
        };
        self.name.clear();
        if self.name.extend(target).is_err() {
            return self.end_of_aliases();
        }
        self.name.make_lowercase();
        match self.aliases {
            ALIASES_MAX => self.end_of_aliases(),
            _ => Follow::Next,
        }
    }

    fn dname(&mut self, node: Node<'z>) -> Follow {
        // A DNAME used twice is a loop, or as good as one: there the answer ends, as NSD's does.
        let used = u64::from(node.number);
        let Some(rrset) = node.rrset(Rtype::DNAME) else {
            return self.end_of_aliases();
        };
        if self.is_last_alias(used) {
            return self.end_of_aliases();
        }
        let mut owner = NameBuf::new();
        node.name(&mut owner);
        self.put_rrset(Section::Answer, Some(&owner), node, rrset);
        let kept = self.name.as_wire().len().saturating_sub(node.name_len());
        let prefix = self.name.as_wire().get(..kept).unwrap_or_default();
        let mut target = NameBuf::new();
        let substituted = rrset.records().next().map(|to| {
            target.extend(prefix)?;
            target.extend(to)
        });
        if !matches!(substituted, Some(Ok(()))) {
            // RFC 6672 §2.2: the name became too long.
            return Follow::End(End::Whole {
                rcode: Rcode::YXDOMAIN,
                aa: true,
            });
        }
        // RFC 6672 §3.1: a CNAME for those who know no DNAME, with its TTL.
        let synthesised = Rdata::Name(target.as_wire());
        let owner = match self.aliases {
            1 => Owner::Question,
            _ => Owner::Name(self.name.as_wire()),
        };
        let ttl = rrset.ttl();
        self.answer
            .put(Section::Answer, owner, Rtype::CNAME, ttl, synthesised);
        self.name = target;
        self.name.make_lowercase();
        if matches!(self.qtype, Rtype::CNAME | Rtype::ANY) || self.aliases == ALIASES_MAX {
            return self.end_of_aliases();
        }
        Follow::Next
    }

    /// Notes an alias; true where the chain has gone round.
    fn is_last_alias(&mut self, mark: u64) -> bool {
        let seen = self.seen.iter().take(self.aliases);
        let is_last = seen.into_iter().any(|other| *other == mark);
        if let Some(slot) = self.seen.get_mut(self.aliases) {
            *slot = mark;
            self.aliases += 1;
        }
        is_last
    }

    /// What has been found so far is the answer: the client may go on from there.
    fn end_of_aliases(&mut self) -> Follow {
        self.apex_ns();
        self.put_proofs();
        Follow::End(End::POSITIVE)
    }

    fn nodata(&mut self, node: Node<'z>, encloser: Option<Node<'z>>) -> End {
        if self.dnssec {
            match encloser {
                None => self.zone.prove_nodata(node, &mut self.proofs),
                Some(encloser) => {
                    let relative = self.zone.relative(self.name.as_wire()).unwrap_or_default();
                    self.zone
                        .prove_wildcard_nodata(encloser, node, relative, &mut self.proofs);
                }
            }
        }
        self.negative_soa();
        self.put_proofs();
        End::POSITIVE
    }

    fn nxdomain(&mut self, encloser: Node<'z>) -> End {
        if self.dnssec {
            let relative = self.zone.relative(self.name.as_wire()).unwrap_or_default();
            self.zone
                .prove_nxdomain(encloser, relative, &mut self.proofs);
        }
        self.negative_soa();
        self.put_proofs();
        // RFC 6604 §3: the rcode is that of the last name.
        End::Whole {
            rcode: Rcode::NXDOMAIN,
            aa: true,
        }
    }

    fn referral(&mut self, cut: Node<'z>) -> End {
        let mut owner = NameBuf::new();
        cut.name(&mut owner);
        let Some(ns) = cut.rrset(Rtype::NS) else {
            return End::POSITIVE;
        };
        // No signatures: the parent is no authority for them (RFC 4035 §3.1.4).
        self.put_records(Section::Authority, Some(&owner), ns);
        // RFC 4035 §3.1.4. In a zone without signatures too: `dnssec` in front may make them.
        if self.dnssec {
            match cut.rrset(Rtype::DS) {
                Some(ds) => self.put_rrset(Section::Authority, Some(&owner), cut, ds),
                None => self.zone.prove_nodata(cut, &mut self.proofs),
            }
        }
        self.put_proofs();
        self.additional_of(ns);
        End::Whole {
            rcode: Rcode::NOERROR,
            // Behind an alias that is ours (RFC 1035 §4.1.1: AA is about the first owner).
            aa: self.aliases > 0,
        }
    }

    fn wildcard_proof(&mut self, encloser: Option<Node<'z>>) {
        if let (true, Some(encloser)) = (self.dnssec, encloser) {
            let relative = self.zone.relative(self.name.as_wire()).unwrap_or_default();
            self.zone
                .prove_wildcard(encloser, relative, &mut self.proofs);
        }
    }

    //--- Records --------------------------------------------------------------------------------

    /// Writes an RRset of the answer section, owned by the name that is being answered for, with its signatures.
    fn answer_rrset(&mut self, node: Node<'z>, rrset: Rrset<'z>, is_of_question: bool) {
        if is_of_question {
            self.put_rrset(Section::Answer, None, node, rrset);
        } else {
            let owner = self.name.clone();
            self.put_rrset(Section::Answer, Some(&owner), node, rrset);
        }
    }

    /// Writes an RRset with its signatures if they are wanted; owned by the question's name, or another one.
    fn put_rrset(
        &mut self,
        section: Section,
        owner: Option<&NameBuf>,
        node: Node<'z>,
        rrset: Rrset<'z>,
    ) {
        self.put_records(section, owner, rrset);
        if self.dnssec
            && let Some(signatures) = node.signatures(rrset.rtype)
        {
            self.put_records(section, owner, signatures);
        }
    }

    fn put_records(&mut self, section: Section, owner: Option<&NameBuf>, rrset: Rrset<'_>) {
        put_records(&mut self.answer, section, owner, rrset);
    }

    fn apex_ns(&mut self) {
        put_apex_ns(&mut self.answer, self.zone, self.apex_at, self.dnssec);
    }

    fn negative_soa(&mut self) {
        put_negative_soa(&mut self.answer, self.zone, self.apex_at, self.dnssec);
    }

    fn put_proofs(&mut self) {
        put_proofs(&mut self.answer, self.zone, &self.proofs);
    }

    //--- Additional records ---------------------------------------------------------------------

    /// Addresses of the names in an RRset (RFC 1035 §3.3.9, §3.3.11; RFC 2782; RFC 9460 §4.1).
    fn additional_of(&mut self, rrset: Rrset<'z>) {
        let Some(before) = target_at(rrset.rtype) else {
            return;
        };
        let mut seen = [u64::MAX; ADDITIONAL_MAX];
        let mut count = 0;
        for rdata in rrset.records() {
            let target = rdata.get(before..).unwrap_or_default();
            let target = wire_len(target).and_then(|len| target.get(..len));
            let mut name = NameBuf::new();
            if target.is_none_or(|target| name.extend(target).is_err()) {
                continue;
            }
            name.make_lowercase();
            // RFC 9460 §2.5: a root target stands for the owner itself.
            if name.as_wire() == [0] && matches!(rrset.rtype, Rtype::SVCB | Rtype::HTTPS) {
                name = self.name.clone();
            }
            if !is_within(name.as_wire(), self.zone.apex.as_wire()) {
                continue;
            }
            let hash = self.zone.hasher.hash_one(name.as_wire());
            if seen.iter().take(count).any(|other| *other == hash) {
                continue;
            }
            let Some(slot) = seen.get_mut(count) else {
                return;
            };
            *slot = hash;
            count += 1;
            self.addresses(&name, rrset.rtype);
        }
    }

    fn addresses(&mut self, name: &NameBuf, of: Rtype) {
        let node = match self.zone.place(name.as_wire()) {
            Some(Place::Exact(node)) => node,
            // Also what a wildcard gives, and even one below a delegation, as NSD and Knot.
            Some(Place::Below(encloser)) if encloser.rrset(Rtype::DNAME).is_none() => {
                match encloser.wildcard() {
                    Some(wildcard) => wildcard,
                    None => return,
                }
            }
            _ => return,
        };
        // Glue is for finding name servers: those of the delegation, and of others in the zone (RFC 9471 §2).
        let is_glue = node.is_occluded() || node.is_cut();
        if is_glue && (of != Rtype::NS || is_below_dname(node)) {
            return;
        }
        for rtype in [Rtype::A, Rtype::AAAA] {
            if let Some(rrset) = node.rrset(rtype) {
                self.put_rrset(Section::Additional, Some(name), node, rrset);
            }
        }
    }
}

/// Whether a node is hidden by a DNAME: it is no glue, it is not there.
fn is_below_dname(node: Node<'_>) -> bool {
    node.is_occluded() && !node.occluder().is_cut()
}

/// Where the target stands in the data of types with addresses in the additional section.
fn target_at(rtype: Rtype) -> Option<usize> {
    match rtype {
        Rtype::NS | Rtype::MB => Some(0),
        Rtype::MX | Rtype::KX | Rtype::RT | Rtype::AFSDB | Rtype::SVCB | Rtype::HTTPS => Some(2),
        Rtype::SRV => Some(6),
        _ => None,
    }
}

/// RFC 8482 §4.1: one RRset for ANY, a popular and small one.
fn any(node: Node<'_>) -> Option<Rrset<'_>> {
    const POPULAR: [Rtype; 8] = [
        Rtype::A,
        Rtype::AAAA,
        Rtype::CNAME,
        Rtype::MX,
        Rtype::SRV,
        Rtype::PTR,
        Rtype::TXT,
        Rtype::NS,
    ];
    let popular = POPULAR.iter().find_map(|rtype| node.rrset(*rtype));
    popular.or_else(|| {
        let mut small = node.rrsets().filter(|rrset| rrset.rtype != Rtype::RRSIG);
        small.next().or_else(|| node.rrset(Rtype::RRSIG))
    })
}

//--- Writing ---------------------------------------------------------------------------------------

/// Stored data as the writer wants it: with names to compress where they may be.
fn rdata_of(rtype: Rtype, rdata: &[u8]) -> Rdata<'_> {
    match rtype {
        Rtype::MX => match rdata.split_first_chunk::<2>() {
            Some((preference, exchange)) => Rdata::Mx(u16::from_be_bytes(*preference), exchange),
            None => Rdata::Raw(rdata),
        },
        Rtype::SOA => soa_of(rdata).unwrap_or(Rdata::Raw(rdata)),
        rtype if names_in(rtype) == Some((0, 1, 0)) => Rdata::Name(rdata),
        _ => Rdata::Raw(rdata),
    }
}

fn soa_of(rdata: &[u8]) -> Option<Rdata<'_>> {
    let (mname, rest) = rdata.split_at_checked(wire_len(rdata)?)?;
    let (rname, rest) = rest.split_at_checked(wire_len(rest)?)?;
    let mut numbers = [0; 5];
    for (number, four) in numbers.iter_mut().zip(rest.chunks_exact(4)) {
        *number = u32::from_be_bytes(four.try_into().ok()?);
    }
    Some(Rdata::Soa {
        mname,
        rname,
        numbers,
    })
}

/// Writes records; an answer that outgrows a message is marked as truncated.
fn put_records(answer: &mut Answer, section: Section, owner: Option<&NameBuf>, rrset: Rrset<'_>) {
    let fits = match owner {
        // They lie there as they go out.
        None if names_in(rrset.rtype).is_none() => {
            answer.put_wire(section, rrset.count, rrset.wire)
        }
        _ => rrset.iter().all(|record| {
            let owner = match owner {
                Some(name) => Owner::Name(name.as_wire()),
                None => Owner::Question,
            };
            let rdata = rdata_of(rrset.rtype, record.rdata);
            answer.put(section, owner, rrset.rtype, record.ttl, rdata)
        }),
    };
    if !fits && section != Section::Additional {
        answer.set_flags(flags::TC);
    }
}

/// The zone's name servers, where they fit: nobody asked for them.
fn put_apex_ns(answer: &mut Answer, zone: &Contents, apex_at: usize, dnssec: bool) {
    let opt = answer.query().edns().map_or(0, |_| OPT_OCTETS);
    let size = answer.octets() + zone.apex_ns.wire.len() + opt;
    if size > answer.query().reply_size() {
        return;
    }
    put_relative(answer, &zone.apex_ns, apex_at);
    if dnssec && let Some(signatures) = zone.apex().signatures(Rtype::NS) {
        let mut owner = NameBuf::new();
        zone.apex().name(&mut owner);
        put_records(answer, Section::Authority, Some(&owner), signatures);
    }
}

/// The SOA of a denial (RFC 2308 §3).
fn put_negative_soa(answer: &mut Answer, zone: &Contents, apex_at: usize, dnssec: bool) {
    put_relative(answer, &zone.negative_soa, apex_at);
    if dnssec && let Some(signatures) = zone.apex().signatures(Rtype::SOA) {
        let mut owner = NameBuf::new();
        zone.apex().name(&mut owner);
        for record in signatures.iter() {
            // The signature lives as long as what it signs.
            let ttl = record.ttl.min(zone.soa.minimum);
            let rdata = Rdata::Raw(record.rdata);
            let owner = Owner::Name(owner.as_wire());
            answer.put(Section::Authority, owner, Rtype::RRSIG, ttl, rdata);
        }
    }
}

fn put_relative(answer: &mut Answer, relative: &Relative, apex_at: usize) {
    answer.put_relative(
        Section::Authority,
        relative.count,
        &relative.wire,
        &relative.pointers,
        apex_at,
    );
}

fn put_proofs(answer: &mut Answer, zone: &Contents, proofs: &Proofs) {
    if matches!(zone.chain, Chain::None) {
        return;
    }
    let rtype = zone.chain.rtype();
    for number in proofs.iter() {
        let node = zone.node_at(number);
        let mut owner = NameBuf::new();
        node.name(&mut owner);
        for rrset in [node.rrset(rtype), node.signatures(rtype)]
            .into_iter()
            .flatten()
        {
            put_records(answer, Section::Authority, Some(&owner), rrset);
        }
    }
}

//--- Elsewhere -------------------------------------------------------------------------------------

/// Asks the server itself for the rest of an answer whose alias left the zone, and puts it together.
async fn complete(elsewhere: Box<Elsewhere>, zone: Arc<Contents>, lookup: Lookup) -> Response {
    let Elsewhere {
        mut answer,
        target,
        proofs,
    } = *elsewhere;
    let facts = answer.query();
    let dnssec = facts.dnssec_ok();
    let apex_at = 12
        + facts
            .qname()
            .len()
            .saturating_sub(zone.apex.as_wire().len());
    let Some(reply) = lookup.ask(facts, target.as_wire(), facts.qtype()).await else {
        // Zones whose aliases lead to each other: nobody would ever come to an end.
        return answer.authoritative().rcode(Rcode::SERVFAIL).done();
    };
    let rcode = match reply.rcode() {
        // RFC 6604 §3: the rcode is that of the last name.
        rcode @ (Rcode::NXDOMAIN | Rcode::SERVFAIL | Rcode::YXDOMAIN) => rcode,
        // Nobody here knows the target: the client goes on from the alias.
        _ => Rcode::NOERROR,
    };
    if reply.is_truncated() {
        answer.set_flags(flags::TC);
    }
    let found = copy(&mut answer, &reply, Section::Answer, |_| true);
    let is_denial = rcode == Rcode::NXDOMAIN || (rcode == Rcode::NOERROR && !found);
    if is_denial && reply.rcode() != Rcode::REFUSED {
        // The SOA of the zone that denied it, with the proofs that are its own (RFC 2308 §2.1).
        copy(
            &mut answer,
            &reply,
            Section::Authority,
            |rtype| match rtype {
                Rtype::SOA => true,
                Rtype::RRSIG | Rtype::NSEC | Rtype::NSEC3 => dnssec,
                _ => false,
            },
        );
    } else {
        put_apex_ns(&mut answer, &zone, apex_at, dnssec);
    }
    put_proofs(&mut answer, &zone, &proofs);
    answer.authoritative().rcode(rcode).done()
}

/// Copies records of a reply's section; whether one of the type asked for was among them.
fn copy(
    answer: &mut Answer,
    reply: &Response,
    section: Section,
    wanted: impl Fn(Rtype) -> bool,
) -> bool {
    let message = reply.wire();
    let qtype = answer.query().qtype();
    let Ok(found) = records(message) else {
        return false;
    };
    let (mut owner, mut data) = (NameBuf::new(), Vec::new());
    let mut has_qtype = false;
    for record in found.map_while(Result::ok) {
        if record.section != section || record.class != Class::IN || !wanted(record.rtype) {
            continue;
        }
        if expand_name(message, record.start, &mut owner).is_err()
            || !expand_rdata(message, &record, &mut data)
        {
            continue;
        }
        has_qtype |= record.rtype == qtype || qtype == Rtype::ANY;
        let owner = Owner::Name(owner.as_wire());
        let rdata = rdata_of(record.rtype, &data);
        if !answer.put(section, owner, record.rtype, record.ttl, rdata) {
            answer.set_flags(flags::TC);
        }
    }
    has_qtype
}

/// A record's data with its names uncompressed. False where it is malformed.
fn expand_rdata(message: &[u8], record: &message::RecordView, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some(data) = message.get(record.rdata.clone()) else {
        return false;
    };
    let Some((before, names, _)) = names_in(record.rtype) else {
        out.extend_from_slice(data);
        return true;
    };
    out.extend_from_slice(data.get(..before).unwrap_or_default());
    let mut at = record.rdata.start + before;
    let mut name = NameBuf::new();
    for _ in 0..names {
        match expand_name(message, at, &mut name) {
            Ok(end) => at = end,
            Err(_) => return false,
        }
        out.extend_from_slice(name.as_wire());
    }
    match message.get(at..record.rdata.end) {
        Some(rest) => {
            out.extend_from_slice(rest);
            true
        }
        None => false,
    }
}

/// Which of several zones answers for a name (lower-case wire form): the longest, but for DS the one above (RFC 4035 §3.1.4.1).
pub fn responsible<T>(
    qname: &[u8],
    qtype: Rtype,
    find: impl Fn(&[u8]) -> Option<(T, usize)>,
) -> Option<T> {
    let (zone, apex_len) = find(qname)?;
    if qtype == Rtype::DS && apex_len == qname.len() {
        let parent = name::suffixes(qname).nth(1);
        if let Some((above, _)) = parent.and_then(find) {
            return Some(above);
        }
    }
    Some(zone)
}
