//! minimal: answers without what was not asked for.

use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::options::Checked;
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::Response;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Rcode, Rtype, Section, message};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "minimal",
    aliases: &[],
    summary: "leaves out of positive answers what was not asked for",
    arguments: &[],
    options: &[],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(_: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    server.chain(Minimal);
    Ok(())
}

struct Minimal;

impl Handler for Minimal {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        match query.qtype() {
            // All of a transfer was asked for.
            Rtype::AXFR | Rtype::IXFR => next.serve(query),
            _ => next.serve(query).then(self),
        }
    }
}

impl Edit for Minimal {
    fn edit(&self, mut response: Response) -> Response {
        if response.rcode() != Rcode::NOERROR {
            return response;
        }
        let dnssec_ok = response.query().dnssec_ok();
        if let Some(cut) = cut(response.wire(), dnssec_ok) {
            let message = response.wire_mut();
            message.truncate(cut.at);
            if let Some(counts) = message.get_mut(8..12) {
                counts.copy_from_slice(&[0, 0, 0, 0]);
            }
            if let (Some(authority), Some(count)) = (cut.authority, message.get_mut(8..10)) {
                count.copy_from_slice(&authority.to_be_bytes());
            }
        }
        response
    }
}

/// Where a message ends, and how many records of its authority section stay.
struct Cut {
    at: usize,
    authority: Option<u16>,
}

/// `None`: it stays as it is.
fn cut(message: &[u8], dnssec_ok: bool) -> Option<Cut> {
    let mut answers = 0;
    let mut denies = false;
    let (mut answer_end, mut authority_end, mut authorities) = (None, None, 0);
    for record in message::records(message).ok()? {
        let record = record.ok()?;
        match record.section {
            Section::Answer => answers += 1,
            Section::Authority => {
                answer_end.get_or_insert(record.start);
                authorities += 1;
                match record.rtype {
                    // A denial, perhaps behind an alias, or a referral: that is what was asked for.
                    Rtype::SOA => return None,
                    Rtype::NS if answers == 0 => return None,
                    Rtype::NSEC | Rtype::NSEC3 => denies = true,
                    _ => {}
                }
            }
            Section::Additional => {
                answer_end.get_or_insert(record.start);
                authority_end.get_or_insert(record.start);
            }
        }
    }
    // RFC 4035 §3.1.3.3: an answer that a wildcard gave is proved by what is in the authority section.
    if denies && dnssec_ok {
        return Some(Cut {
            at: authority_end?,
            authority: Some(authorities),
        });
    }
    Some(Cut {
        at: answer_end?,
        authority: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::wire::writer::{Compressor, Rdata};
    use crate::kit::wire::{Class, Name, Writer};

    /// A NOERROR message with these records, and where each starts.
    fn message(records: &[(Section, Rtype)]) -> (Vec<u8>, Vec<usize>) {
        let owner = Name::parse("w.example.org").unwrap();
        let mut message = vec![0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(owner.as_wire());
        message.extend_from_slice(&[0, 16, 0, 1]);
        let mut names = Compressor::default();
        let starts = records.iter().map(|(section, rtype)| {
            let start = message.len();
            let mut writer = Writer::new(&mut message, &mut names);
            let data = Rdata::Raw(&[0, 0, 0]);
            assert!(writer.record(*section, owner.as_wire(), *rtype, Class::IN, 60, data));
            start
        });
        let starts = starts.collect();
        (message, starts)
    }

    #[test]
    fn the_proof_of_a_wildcard_stays_with_do() {
        let (message, starts) = message(&[
            (Section::Answer, Rtype::TXT),
            (Section::Answer, Rtype::RRSIG),
            (Section::Authority, Rtype::NSEC),
            (Section::Authority, Rtype::RRSIG),
            (Section::Additional, Rtype::TXT),
        ]);
        let with_do = cut(&message, true).unwrap();
        assert_eq!((with_do.at, with_do.authority), (starts[4], Some(2)));
        let without = cut(&message, false).unwrap();
        assert_eq!((without.at, without.authority), (starts[2], None));
    }

    #[test]
    fn what_is_minimal_or_says_no_stays() {
        let (answer, _) = message(&[(Section::Answer, Rtype::TXT)]);
        assert!(cut(&answer, true).is_none());
        let (denial, _) = message(&[
            (Section::Answer, Rtype::TXT),
            (Section::Authority, Rtype::SOA),
        ]);
        assert!(cut(&denial, false).is_none());
        let (referral, _) = message(&[
            (Section::Authority, Rtype::NS),
            (Section::Additional, Rtype::A),
        ]);
        assert!(cut(&referral, false).is_none());
        assert!(cut(&answer[..answer.len() - 1], false).is_none());
    }
}
