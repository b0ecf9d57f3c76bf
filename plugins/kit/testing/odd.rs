//! The upstream's names below `odd.example.`: the first label says what the upstream does, its numbers are arguments.
//!
//! | name | reply |
//! |---|---|
//! | `echo[-TTL]` | TXT that describes the query as it arrived |
//! | `rc-N` | that rcode and nothing else |
//! | `rcsoa-N` | that rcode with an SOA |
//! | `nxcount-TTL[-MIN]`, `ndcount-TTL[-MIN]` | NXDOMAIN or NODATA; the SOA's serial counts the times asked, its TTL and minimum are those |
//! | `sfcount` | SERVFAIL with such an SOA |
//! | `flip` | SERVFAIL the first time, then an address |
//! | `multi-N`, `big-N` | N addresses, N long texts |
//! | `mixttl` | a chain of aliases whose TTLs are 300, 20, and 60 and 45 at its end |
//! | `soaonly` | an alias to a name that does not exist, with the SOA |
//! | `nosoa`, `nxnosoa` | NODATA or NXDOMAIN without an SOA |
//! | `opts` | EDNS options NSID, EDE 18 and 65001 |
//! | `noopt`, `optsize` | never an OPT; one that says 4096 |
//! | `extra` | an NS and its address in the other sections |

use std::collections::HashMap;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};

use super::upstream::{Reaction, Script, Seen};
use super::{render, reply, zone};
use crate::kit::query::Transport;
use crate::kit::wire::Section;

const PARENT: &str = ".odd.example.";

/// The script; every scripted upstream has it.
pub(super) fn script() -> Script {
    let mut asked: HashMap<(String, u16), u32> = HashMap::new();
    Box::new(move |seen: &Seen| {
        let query = Message::from_vec(&seen.packet).ok()?;
        let question = query.queries.first()?;
        let name = question.name().to_ascii();
        let lower = name.to_ascii_lowercase();
        // `x.flip.odd.example.` is another flip: the label that counts is the last one.
        let label = lower.strip_suffix(PARENT)?.rsplit('.').next()?;
        let count = asked
            .entry((lower.clone(), question.query_type().into()))
            .or_default();
        *count += 1;
        let mut message = reply::reply_to(&query, 0);
        message.metadata.recursion_available = true;
        Odd {
            message: &mut message,
            query: &query,
            seen,
            name: &name,
            asked: *count,
        }
        .behave(label)?;
        Some(Reaction {
            reply: match label {
                "noopt" => message.to_vec().ok(),
                _ => zone::fitted(message, &query, seen.transport),
            },
            after: Duration::ZERO,
        })
    })
}

struct Odd<'q> {
    message: &'q mut Message,
    query: &'q Message,
    seen: &'q Seen,
    name: &'q str,
    asked: u32,
}

impl Odd<'_> {
    /// `None` when the label means nothing.
    fn behave(mut self, label: &str) -> Option<()> {
        let mut words = label.split('-');
        let word = words.next()?;
        let numbers: Vec<u32> = words.map_while(|n| n.parse().ok()).collect();
        let first = numbers.first().copied();
        let name = self.name;
        let rtype = self.query.queries.first()?.query_type();
        let address = format!("{name} 60 IN A 192.0.2.80");
        match word {
            "echo" => {
                let text = self.description();
                self.answer(&format!("{name} {} IN TXT \"{text}\"", first.unwrap_or(0)));
            }
            "rc" => self.rcode(first?),
            "rcsoa" => {
                self.rcode(first?);
                self.soa(30, 7, 30);
            }
            "nxcount" | "ndcount" => {
                if word == "nxcount" {
                    self.rcode(3);
                }
                let ttl = first?;
                let minimum = numbers.get(1).copied().unwrap_or(ttl);
                self.soa(ttl, self.asked, minimum);
            }
            "sfcount" => {
                self.rcode(2);
                self.soa(30, self.asked, 30);
            }
            "flip" if self.asked == 1 => self.rcode(2),
            "flip" | "noopt" => self.answer(&address),
            "multi" => {
                for n in 0..first?.min(200) {
                    let host = 10 + n;
                    self.answer(&match rtype {
                        hickory_proto::rr::RecordType::AAAA => {
                            format!("{name} 60 IN AAAA 2001:db8:0:53::c000:2{host:02x}")
                        }
                        _ => format!("{name} 60 IN A 192.0.2.{host}"),
                    });
                }
            }
            "big" => {
                for n in 0..first?.min(500) {
                    let text = "lorem-ipsum-dolor-".repeat(5);
                    self.answer(&format!("{name} 60 IN TXT \"{n:03} {text}\""));
                }
            }
            "mixttl" => {
                self.answer(&format!("{name} 300 IN CNAME m1.odd.example."));
                self.answer("m1.odd.example. 20 IN CNAME m2.odd.example.");
                self.answer("m2.odd.example. 60 IN A 192.0.2.31");
                self.answer("m2.odd.example. 45 IN A 192.0.2.32");
            }
            "soaonly" => {
                self.rcode(3);
                self.answer(&format!("{name} 50 IN CNAME gone.odd.example."));
                self.soa(30, 7, 30);
            }
            "nosoa" => {}
            "nxnosoa" => self.rcode(3),
            "opts" => {
                self.answer(&address);
                let mut ede = vec![0, 18];
                ede.extend_from_slice(b"prohibited");
                self.edns(
                    1232,
                    &[(3, b"up-nsid".to_vec()), (15, ede), (65001, vec![1, 2])],
                );
            }
            "optsize" => {
                self.answer(&address);
                self.edns(4096, &[]);
            }
            "extra" => {
                self.answer(&address);
                self.record(
                    Section::Authority,
                    "odd.example. 120 IN NS ns9.odd.example.",
                );
                self.record(Section::Additional, "ns9.odd.example. 240 IN A 192.0.2.99");
            }
            _ => return None,
        }
        Some(())
    }

    fn rcode(&mut self, n: u32) {
        self.message.metadata.response_code = ResponseCode::from((n >> 4) as u8, (n & 15) as u8);
    }

    fn answer(&mut self, text: &str) {
        self.record(Section::Answer, text);
    }

    fn record(&mut self, section: Section, text: &str) {
        // The texts are this file's own; one that does not parse leaves an answer short, which a conversation notices.
        let Ok(record) = reply::record(text) else {
            return;
        };
        match section {
            Section::Answer => self.message.add_answer(record),
            Section::Authority => self.message.add_authority(record),
            Section::Additional => self.message.add_additional(record),
        };
    }

    fn soa(&mut self, ttl: u32, serial: u32, minimum: u32) {
        let text = format!(
            "odd.example. {ttl} IN SOA ns.odd.example. who.odd.example. {serial} 60 60 60 {minimum}"
        );
        self.record(Section::Authority, &text);
    }

    fn edns(&mut self, size: u16, options: &[(u16, Vec<u8>)]) {
        if self.query.edns.is_some() {
            reply::set_edns(self.message, size, options);
        }
    }

    /// As conversations list queries: `udp NAME TYPE FLAGS edns SIZE OPTIONS`, or `noedns` at the end.
    fn description(&self) -> String {
        let mut text = render::query(
            match self.seen.transport {
                Transport::Udp => "udp",
                Transport::Tcp => "tcp",
            },
            &self.seen.packet,
        );
        if !text.contains(" edns ") {
            text += " noedns";
        }
        text
    }
}
