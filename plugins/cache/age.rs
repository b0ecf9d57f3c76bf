//! How long: which answers may be kept, and what becomes of their TTLs.
//!
//! Arithmetic over one message and nothing else: no store, no clock, no configuration beyond [`Rules`]. Every TTL
//! ages by itself (RFC 2181 §5.2 gives one to every rrset), unlike in CoreDNS, where a message has one for all.

use crate::kit::query::{Facts, flags};
use crate::kit::response::Response;
use crate::kit::wire::message::{self, Section};
use crate::kit::wire::name::eq_ignore_case;
use crate::kit::wire::{NameBuf, Opcode, Rcode, Rtype};

use super::store::Kind;

/// EDNS Client Subnet (RFC 7871).
pub(super) const OPTION_ECS: u16 = 8;
/// Extended DNS Error (RFC 8914).
const OPTION_EDE: u16 = 15;

/// Seconds for what says no TTL of its own: messages without records, referrals, aliases into nothing.
pub(super) const BRIEF: u32 = 5;
/// Aliases followed through an answer section; upstreams stop earlier.
const ALIASES_MAX: usize = 16;

/// The limits for one kind of answer, in seconds. `max` wins where it is the smaller one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    /// Lower TTLs are raised to it.
    pub(super) min: u32,
    /// Higher ones are cut to it.
    pub(super) max: u32,
}

impl Bounds {
    fn clamp(self, ttl: u32) -> u32 {
        ttl.max(self.min).min(self.max)
    }
}

/// What the Dnsfile says about times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rules {
    /// For answers.
    pub(super) success: Bounds,
    /// For NXDOMAIN and NODATA.
    pub(super) denial: Bounds,
    /// For SERVFAIL and NOTIMP, in seconds; 0 keeps none.
    pub(super) servfail: u32,
}

/// What kind of answer a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Has what was asked for.
    Answer,
    /// NOERROR with neither an answer nor a denial: a referral, or nothing at all.
    Empty,
    /// NXDOMAIN or NODATA, with its SOA.
    Denial,
    /// SERVFAIL or NOTIMP.
    Failure,
}

impl Class {
    /// The store it is kept in.
    pub(super) fn kind(self) -> Kind {
        match self {
            Class::Answer | Class::Empty => Kind::Success,
            Class::Denial | Class::Failure => Kind::Denial,
        }
    }
}

/// What is to be done with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Judgement {
    /// Its class, if it may be kept.
    pub(super) keep: Option<Class>,
    /// Whether it answers another question than the one asked, or is no message.
    pub(super) is_alien: bool,
    bounds: Bounds,
    // RFC 2308 §5: the lesser of the SOA's own TTL and its MINIMUM is the negative TTL.
    soa_max: u32,
    // SERVFAIL is kept for its own time whatever the records say.
    life: Option<u32>,
}

/// Judges a response to `query` at `unix_now` (seconds since 1970, for signatures).
pub(super) fn judge(response: &Response, query: &Facts, rules: &Rules, unix_now: u32) -> Judgement {
    let brief = |bounds: Bounds| {
        let ttl = bounds.clamp(BRIEF);
        Bounds { min: ttl, max: ttl }
    };
    let pass = Judgement {
        keep: None,
        is_alien: false,
        bounds: brief(rules.success),
        soa_max: u32::MAX,
        life: None,
    };
    let Some(seen) = Survey::of(response.wire(), query, unix_now) else {
        return Judgement {
            is_alien: true,
            ..pass
        };
    };
    if query.opcode() != Opcode::QUERY || matches!(query.qtype(), Rtype::AXFR | Rtype::IXFR) {
        return pass;
    }
    // RFC 2181 §9: what is truncated is not to be kept. Signatures that are no longer or not yet valid neither.
    let may_keep = response.flags() & flags::TC == 0 && seen.may_keep;
    let answers = response.count(Section::Answer) > 0;
    let denial = Judgement {
        bounds: rules.denial,
        soa_max: seen.soa_minimum.unwrap_or(u32::MAX),
        ..pass
    };
    let has_soa = seen.soa_minimum.is_some();
    let success = Judgement {
        bounds: rules.success,
        ..pass
    };
    let (keep, judgement) = match response.rcode() {
        _ if seen.bad_signature => (None, pass),
        Rcode::NOERROR if answers => match chain(response.wire(), query) {
            ChainEnd::Answer => (Some(Class::Answer), success),
            _ if has_soa => (Some(Class::Denial), denial),
            _ => (None, success),
        },
        Rcode::NXDOMAIN if answers => {
            let dangling = has_soa && chain(response.wire(), query) == ChainEnd::Dangling;
            (dangling.then_some(Class::Denial), pass)
        }
        Rcode::NOERROR if has_soa => (Some(Class::Denial), denial),
        // RFC 2308 §5: a denial without its SOA is not to be kept.
        Rcode::NXDOMAIN => (has_soa.then_some(Class::Denial), denial),
        Rcode::SERVFAIL | Rcode::NOTIMP => (
            (rules.servfail > 0).then_some(Class::Failure),
            Judgement {
                bounds: Bounds {
                    min: 0,
                    max: rules.servfail,
                },
                life: Some(rules.servfail),
                ..pass
            },
        ),
        Rcode::NOERROR if seen.has_ns => (Some(Class::Empty), pass),
        Rcode::NOERROR => (Some(Class::Empty), success),
        _ => (None, pass),
    };
    Judgement {
        keep: keep.filter(|_| may_keep),
        ..judgement
    }
}

impl Judgement {
    /// For what is passed on and never kept: TTLs are cut to the limits and not raised.
    pub(super) fn passing(response: &Response, rules: &Rules) -> Judgement {
        let max = match response.rcode() {
            Rcode::NOERROR if response.count(Section::Answer) > 0 => rules.success.max,
            Rcode::SERVFAIL | Rcode::NOTIMP => rules.servfail,
            _ => rules.denial.max,
        };
        Judgement {
            keep: None,
            is_alien: false,
            bounds: Bounds { min: 0, max },
            soa_max: u32::MAX,
            life: None,
        }
    }

    /// Puts the TTLs of `wire` within bounds and says how long the message may live: as long as its shortest one. No allocation.
    pub(super) fn apply(&self, wire: &mut [u8]) -> u32 {
        let mut shortest = None;
        let Ok(question) = message::question(wire) else {
            return self.bounds.clamp(BRIEF);
        };
        let count = |at: usize| {
            wire.get(at..at + 2)
                .map_or(0, |n| u16::from_be_bytes([n[0], n[1]]))
        };
        let (answers, authority, all) = (
            u32::from(count(6)),
            u32::from(count(6)) + u32::from(count(8)),
            u32::from(count(6)) + u32::from(count(8)) + u32::from(count(10)),
        );
        // `message::records` would hold the message, so the walk is written out here.
        let mut at = question.end;
        for number in 0..all {
            let Ok(fixed) = message::skip_name(wire, at) else {
                break;
            };
            let Some(fields) = wire
                .get_mut(fixed..)
                .and_then(<[u8]>::first_chunk_mut::<10>)
            else {
                break;
            };
            let rtype = Rtype(u16::from_be_bytes([fields[0], fields[1]]));
            at = fixed + 10 + usize::from(u16::from_be_bytes([fields[8], fields[9]]));
            if rtype == Rtype::OPT {
                continue;
            }
            let mut ttl = u32::from_be_bytes([fields[4], fields[5], fields[6], fields[7]]);
            // RFC 2181 §8: a TTL with its top bit set is zero.
            if ttl > i32::MAX as u32 {
                ttl = 0;
            }
            if rtype == Rtype::SOA && (answers..authority).contains(&number) {
                ttl = ttl.min(self.soa_max);
            }
            ttl = self.bounds.clamp(ttl);
            fields[4..8].copy_from_slice(&ttl.to_be_bytes());
            shortest = Some(shortest.map_or(ttl, |shortest: u32| shortest.min(ttl)));
        }
        self.life
            .or(shortest)
            .unwrap_or_else(|| self.bounds.clamp(BRIEF))
    }
}

//--- What is in a message --------------------------------------------------------------------------

/// What one walk over a message finds.
struct Survey {
    soa_minimum: Option<u32>,
    has_ns: bool,
    bad_signature: bool,
    may_keep: bool,
}

impl Survey {
    /// `None` if it is no message, or one about another question.
    fn of(wire: &[u8], query: &Facts, unix_now: u32) -> Option<Survey> {
        let question = message::question(wire).ok()?;
        let qname = wire.get(message::HEADER_OCTETS..question.name_end)?;
        if !eq_ignore_case(qname, query.qname())
            || question.qtype != query.qtype()
            || question.qclass != query.qclass()
        {
            return None;
        }
        let mut seen = Survey {
            soa_minimum: None,
            has_ns: false,
            bad_signature: false,
            may_keep: true,
        };
        for record in message::records(wire).ok()? {
            let record = record.ok()?;
            let rdata = wire.get(record.rdata.clone())?;
            match (record.rtype, record.section) {
                (Rtype::SOA, Section::Authority) => {
                    // MINIMUM is the last of the five numbers that end the data (RFC 1035 §3.3.13).
                    let minimum = u32::from_be_bytes(*rdata.last_chunk()?);
                    seen.soa_minimum = Some(seen.soa_minimum.unwrap_or(u32::MAX).min(minimum));
                }
                (Rtype::NS, Section::Authority) => seen.has_ns = true,
                (Rtype::RRSIG, _) if query.dnssec_ok() => {
                    seen.bad_signature |= !is_valid_at(rdata, unix_now);
                }
                // What belongs to one exchange is nobody else's.
                (Rtype::TSIG | Rtype::SIG | Rtype::TKEY, Section::Additional) => {
                    seen.may_keep = false;
                }
                _ => {}
            }
        }
        Some(seen)
    }
}

/// Whether a signature's period holds now, in serial arithmetic (RFC 4034 §3.1.5).
fn is_valid_at(rrsig: &[u8], unix_now: u32) -> bool {
    let Some(&[e0, e1, e2, e3, i0, i1, i2, i3]) = rrsig.get(8..).and_then(<[u8]>::first_chunk)
    else {
        return false;
    };
    let expiration = u32::from_be_bytes([e0, e1, e2, e3]);
    let inception = u32::from_be_bytes([i0, i1, i2, i3]);
    expiration.wrapping_sub(unix_now) as i32 >= 0 && unix_now.wrapping_sub(inception) as i32 >= 0
}

/// Where the aliases of an answer section lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ChainEnd {
    /// To records of the type asked for.
    Answer,
    /// To a name without any.
    Dangling,
    /// Nowhere: none starts at the name asked for, one name has two targets, they go in circles.
    Unrelated,
}

fn chain(wire: &[u8], query: &Facts) -> ChainEnd {
    let qtype = query.qtype();
    let (mut owner, mut target) = (NameBuf::new(), NameBuf::new());
    let mut current: Option<NameBuf> = None;
    for _ in 0..=ALIASES_MAX {
        let name = current.as_ref().map_or(query.qname(), NameBuf::as_wire);
        let mut found = 0;
        let mut next: Option<NameBuf> = None;
        let Ok(records) = message::records(wire) else {
            return ChainEnd::Unrelated;
        };
        for record in records.map_while(Result::ok) {
            if record.section != Section::Answer {
                break;
            }
            let at_name = record.class == query.qclass()
                && message::expand_name(wire, record.start, &mut owner).is_ok()
                && eq_ignore_case(owner.as_wire(), name);
            if !at_name {
                continue;
            }
            if record.rtype == qtype || qtype == Rtype::ANY {
                found += 1;
            } else if record.rtype == Rtype::CNAME {
                if message::expand_name(wire, record.rdata.start, &mut target).is_err() {
                    return ChainEnd::Unrelated;
                }
                match &next {
                    Some(other) if !eq_ignore_case(other.as_wire(), target.as_wire()) => {
                        return ChainEnd::Unrelated;
                    }
                    _ => next = Some(target.clone()),
                }
            }
        }
        if found > 0 {
            // RFC 2181 §10.1: a name has one CNAME.
            return if qtype == Rtype::CNAME && found > 1 {
                ChainEnd::Unrelated
            } else {
                ChainEnd::Answer
            };
        }
        match next {
            Some(_) => current = next,
            None if current.is_some() => return ChainEnd::Dangling,
            None => return ChainEnd::Unrelated,
        }
    }
    ChainEnd::Unrelated
}

/// Where the TTLs of a message stand. `None` if it cannot be walked.
pub(super) fn ttl_offsets(wire: &[u8]) -> Option<impl Iterator<Item = usize> + '_> {
    Some(
        message::records(wire)
            .ok()?
            .map_while(Result::ok)
            .filter(|record| record.rtype != Rtype::OPT)
            .map(|record| record.fixed + 4),
    )
}

/// Those EDNS options of a response, each whole in wire form, that say something about the answer and not about the exchange.
pub(super) fn kept_options(options: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = options;
    std::iter::from_fn(move || {
        loop {
            let head = rest.first_chunk::<4>()?;
            let code = u16::from_be_bytes([head[0], head[1]]);
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (option, tail) = rest.split_at_checked(4 + len)?;
            rest = tail;
            if code == OPTION_ECS || code == OPTION_EDE {
                return Some(option);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::{query, response};
    use super::*;

    const RULES: Rules = Rules {
        success: Bounds { min: 5, max: 3600 },
        denial: Bounds { min: 5, max: 1800 },
        servfail: 5,
    };

    /// Class, life and the TTLs that come out.
    fn judged(
        qtype: Rtype,
        words: &[&str],
        rcode: Rcode,
        records: &[&str],
    ) -> (Option<Class>, u32, Vec<u32>) {
        let mut response = response(query("www.example.org", qtype, words), rcode, records);
        let judgement = judge(&response, response.query(), &RULES, 1_000);
        assert!(!judgement.is_alien);
        let life = judgement.apply(response.wire_mut());
        let ttls = message::records(response.wire()).expect("a message");
        let ttls = ttls.map(|record| record.expect("a record").ttl).collect();
        (judgement.keep, life, ttls)
    }

    fn a(rcode: Rcode, records: &[&str]) -> (Option<Class>, u32, Vec<u32>) {
        judged(Rtype::A, &[], rcode, records)
    }

    const SOA: &str = "ns example.org 600 SOA 60";

    #[test]
    fn every_ttl_is_clamped_by_itself_and_the_shortest_is_the_life() {
        let chain = [
            "an www.example.org 9000 CNAME host.example.org",
            "an host.example.org 20 A 192.0.2.1",
            "ns example.org 2 NS ns.example.org",
        ];
        assert_eq!(
            a(Rcode::NOERROR, &chain),
            (Some(Class::Answer), 5, vec![3600, 20, 5])
        );
    }

    #[test]
    fn negative_ttl_is_the_lesser_of_the_soa_s_two() {
        assert_eq!(
            a(Rcode::NXDOMAIN, &[SOA]),
            (Some(Class::Denial), 60, vec![60])
        );
        assert_eq!(
            a(Rcode::NOERROR, &[SOA]),
            (Some(Class::Denial), 60, vec![60])
        );
        let short = ["ns example.org 30 SOA 600"];
        assert_eq!(
            a(Rcode::NXDOMAIN, &short),
            (Some(Class::Denial), 30, vec![30])
        );
        let zero = ["ns example.org 600 SOA 0"];
        assert_eq!(a(Rcode::NXDOMAIN, &zero), (Some(Class::Denial), 5, vec![5]));
        let long = ["ns example.org 9000 SOA 9000"];
        assert_eq!(
            a(Rcode::NXDOMAIN, &long),
            (Some(Class::Denial), 1800, vec![1800])
        );
    }

    #[test]
    fn a_denial_without_soa_is_not_kept() {
        assert_eq!(a(Rcode::NXDOMAIN, &[]).0, None);
    }

    #[test]
    fn an_alias_into_nothing_is_kept_briefly() {
        let records = ["an www.example.org 100 CNAME gone.example.org", SOA];
        assert_eq!(
            a(Rcode::NXDOMAIN, &records),
            (Some(Class::Denial), 5, vec![5, 5])
        );
        let unrelated = ["an other.example.org 100 CNAME gone.example.org", SOA];
        assert_eq!(a(Rcode::NXDOMAIN, &unrelated), (None, 5, vec![5, 5]));
    }

    #[test]
    fn an_alias_without_the_type_is_nodata_with_soa_and_nothing_without() {
        let alias = "an www.example.org 100 CNAME host.example.org";
        assert_eq!(
            a(Rcode::NOERROR, &[alias, SOA]),
            (Some(Class::Denial), 60, vec![100, 60])
        );
        assert_eq!(a(Rcode::NOERROR, &[alias]).0, None);
    }

    #[test]
    fn circles_and_two_targets_are_no_answer() {
        let circle = [
            "an www.example.org 100 CNAME b.example.org",
            "an b.example.org 100 CNAME www.example.org",
        ];
        assert_eq!(a(Rcode::NOERROR, &circle).0, None);
        let fork = [
            "an www.example.org 100 CNAME b.example.org",
            "an www.example.org 100 CNAME c.example.org",
            "an b.example.org 100 A 192.0.2.1",
        ];
        assert_eq!(a(Rcode::NOERROR, &fork).0, None);
        let twice = [fork[0], fork[1]];
        assert_eq!(judged(Rtype::CNAME, &[], Rcode::NOERROR, &twice).0, None);
        assert_eq!(
            judged(Rtype::CNAME, &[], Rcode::NOERROR, &twice[..1]).0,
            Some(Class::Answer)
        );
        assert_eq!(
            judged(Rtype::ANY, &[], Rcode::NOERROR, &twice).0,
            Some(Class::Answer)
        );
    }

    #[test]
    fn failures_have_their_own_time() {
        assert_eq!(
            a(Rcode::SERVFAIL, &[SOA]),
            (Some(Class::Failure), 5, vec![5])
        );
        assert_eq!(a(Rcode::NOTIMP, &[]), (Some(Class::Failure), 5, vec![]));
        assert_eq!(a(Rcode::REFUSED, &[SOA]), (None, 5, vec![5]));
    }

    #[test]
    fn referrals_and_nothing_at_all_are_kept_briefly() {
        let referral = ["ns www.example.org 900 NS ns.example.org"];
        assert_eq!(
            a(Rcode::NOERROR, &referral),
            (Some(Class::Empty), 5, vec![5])
        );
        assert_eq!(a(Rcode::NOERROR, &[]), (Some(Class::Empty), 5, vec![]));
    }

    #[test]
    fn a_ttl_with_its_top_bit_is_zero() {
        let records = ["an www.example.org 2147483648 A 192.0.2.1"];
        assert_eq!(
            a(Rcode::NOERROR, &records),
            (Some(Class::Answer), 5, vec![5])
        );
        let records = ["an www.example.org 2147483647 A 192.0.2.1"];
        assert_eq!(
            a(Rcode::NOERROR, &records),
            (Some(Class::Answer), 3600, vec![3600])
        );
    }

    #[test]
    fn signatures_out_of_their_time_are_not_kept() {
        let signed = |period| {
            let records = ["an www.example.org 60 A 192.0.2.1", period];
            judged(Rtype::A, &["do"], Rcode::NOERROR, &records).0
        };
        assert_eq!(
            signed("an www.example.org 60 RRSIG 900-1100"),
            Some(Class::Answer)
        );
        assert_eq!(signed("an www.example.org 60 RRSIG 1-999"), None);
        assert_eq!(signed("an www.example.org 60 RRSIG 1001-1100"), None);
    }

    #[test]
    fn truncated_and_alien_messages_are_not_kept() {
        let records = ["an www.example.org 60 A 192.0.2.1"];
        let mut cut = response(
            query("www.example.org", Rtype::A, &[]),
            Rcode::NOERROR,
            &records,
        );
        cut.set_flags(flags::TC, 0);
        assert_eq!(judge(&cut, cut.query(), &RULES, 0).keep, None);
        let other = query("ftp.example.org", Rtype::A, &[]);
        assert!(judge(&cut, &other, &RULES, 0).is_alien);
        cut.wire_mut().truncate(40);
        assert!(judge(&cut, cut.query(), &RULES, 0).is_alien);
    }

    proptest! {
        #[test]
        fn any_octets_are_judged(octets in proptest::collection::vec(any::<u8>(), 0..300), keep_question: bool) {
            let mut response = response(query("www.example.org", Rtype::A, &["do"]), Rcode::NOERROR, &[]);
            let head = if keep_question { response.len() } else { 0 };
            response.wire_mut().truncate(head);
            response.wire_mut().extend_from_slice(&octets);
            if let Some(count) = octets.first() && keep_question {
                response.wire_mut()[7] = count & 7;
                response.wire_mut()[9] = count >> 6;
            }
            let judgement = judge(&response, response.query(), &RULES, 0);
            let life = judgement.apply(response.wire_mut());
            prop_assert!(judgement.keep.is_none() || (5..=3600).contains(&life));
            kept_options(&octets).for_each(drop);
        }
    }
}
