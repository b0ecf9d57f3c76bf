//! local: names about the machine itself, which must not leave it (RFC 6303, RFC 6761 §6.3).

use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::metrics::Counter;
use crate::kit::options::{Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::{Answer, Owner, Source};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::name::is_within;
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Class, Rcode, Rtype, Section};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "local",
    aliases: &[],
    summary: "answers for localhost and for reverse names that mean nothing elsewhere",
    arguments: &[],
    options: &[Opt::new(
        "localhost_prefix",
        &[Arg::one("on|off", Kind::Choice(&["on", "off"]))],
        "on",
        "answer for names that start with `localhost.` as well, which a search list makes of `localhost`",
    )],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let prefix = directives
        .iter()
        .rev()
        .find_map(|directive| directive.option("localhost_prefix")?.arg("on|off"));
    server.chain(Local {
        prefix: prefix.is_none_or(|prefix| prefix.text() == "on"),
        localhost: server.metrics().counter(
            "coredns_local_localhost_requests_total",
            "Counter of localhost.<domain> requests.",
            &[],
        ),
    });
    Ok(())
}

const TTL: u32 = 604_800;
const LOCALHOST: &[u8] = b"\x09localhost\0";
const LOOPBACK: &[u8] = b"\x011\x010\x010\x03127\x07in-addr\x04arpa\0";
/// The zones that are answered for.
const ZONES: [&[u8]; 4] = [
    LOCALHOST,
    b"\x010\x07in-addr\x04arpa\0",
    b"\x03127\x07in-addr\x04arpa\0",
    b"\x03255\x07in-addr\x04arpa\0",
];

/// What a name is to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// A name of the machine itself, with its addresses.
    Localhost,
    /// The top of a zone.
    Apex,
    /// 127.0.0.1, backwards.
    Loopback,
    /// Between a zone and a name in it: it exists, without records (RFC 8020).
    Between,
    /// Below a zone, and not there; where the zone starts.
    Nothing(usize),
    /// Somebody else's.
    Elsewhere,
}

struct Local {
    prefix: bool,
    localhost: Counter,
}

impl Local {
    fn place(&self, qname: &[u8]) -> Place {
        if qname.len() > LOCALHOST.len() {
            let label = LOCALHOST.len() - 1;
            let starts = qname.get(..label) == LOCALHOST.get(..label);
            if is_within(qname, LOCALHOST) || self.prefix && starts {
                return Place::Localhost;
            }
        }
        let Some(zone) = ZONES.iter().find(|zone| is_within(qname, zone)) else {
            return Place::Elsewhere;
        };
        if qname.len() == zone.len() {
            Place::Apex
        } else if qname == LOOPBACK {
            Place::Loopback
        } else if is_within(LOOPBACK, qname) {
            Place::Between
        } else {
            Place::Nothing(qname.len() - zone.len())
        }
    }
}

impl Handler for Local {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        if query.qclass() != Class::IN {
            return next.serve(query);
        }
        let place = self.place(query.qname());
        let qtype = query.qtype();
        let is_localhost = match place {
            Place::Elsewhere => return next.serve(query),
            Place::Localhost => {
                self.localhost.inc();
                true
            }
            _ => query.qname() == LOCALHOST,
        };
        let answer = query.answer().source(Source::Local);
        let answer = match (place, qtype) {
            (_, Rtype::A) if is_localhost => put(answer, qtype, Rdata::Raw(&[127, 0, 0, 1])),
            (_, Rtype::AAAA) if is_localhost => put(
                answer,
                qtype,
                Rdata::Raw(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            ),
            (Place::Apex, Rtype::SOA) => soa(answer, Section::Answer, 0),
            (Place::Apex, Rtype::NS) => put(answer, qtype, Rdata::Name(LOCALHOST)),
            (Place::Loopback, Rtype::PTR) => put(answer, qtype, Rdata::Name(LOCALHOST)),
            (Place::Nothing(zone), _) => {
                soa(answer.rcode(Rcode::NXDOMAIN), Section::Authority, zone)
            }
            (Place::Loopback | Place::Between, _) => {
                // Both lie below 127.in-addr.arpa.
                let zone = answer.query().qname().len() - ZONES[2].len();
                soa(answer, Section::Authority, zone)
            }
            _ => soa(answer, Section::Authority, 0),
        };
        Served::Now(answer.done())
    }
}

fn put(answer: Answer, rtype: Rtype, rdata: Rdata<'_>) -> Answer {
    answer.record(Section::Answer, Owner::Question, rtype, TTL, rdata)
}

/// The SOA record of the name that starts `at` octets into the question's.
fn soa(answer: Answer, section: Section, at: usize) -> Answer {
    let mut owner = [0; crate::kit::wire::name::NAME_OCTETS_MAX];
    let name = answer.query().qname_as_spelled();
    let name = name.get(at..).unwrap_or_default();
    let Some(owner) = owner.get_mut(..name.len()) else {
        return answer;
    };
    owner.copy_from_slice(name);
    let rdata = Rdata::Soa {
        mname: LOCALHOST,
        rname: b"\x04root\x09localhost\0",
        numbers: [1, 0, 0, 0, TTL],
    };
    answer.record(section, Owner::Name(owner), Rtype::SOA, TTL, rdata)
}
