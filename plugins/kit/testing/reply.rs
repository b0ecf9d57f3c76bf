//! Scripted replies: what an upstream says to one question, written as a conversation writes it, and the records in it.

use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::upstream::{Reaction, SCRIPTED, Script, ScriptedUpstream, Seen};
use crate::kit::query::Transport;
use crate::kit::wire::{Class, Rcode, Rtype, Section};

/// Who is asked what: `upstream [WHO] NAME TYPE`.
struct Match {
    upstream: String,
    name: Pattern,
    rtype: Option<Rtype>,
    transport: Option<Transport>,
}

enum Pattern {
    Any,
    Below(String),
    Exactly(String),
}

/// One scripted reply.
/// The size that an OPT record says, and its options.
type Opt = (u16, Vec<(u16, Vec<u8>)>);

#[derive(Default)]
struct Reply {
    rcode: u16,
    flags: Vec<String>,
    // Text, so that `{count}` and `{name}` can be filled in.
    records: Vec<(Section, String)>,
    edns: Option<Opt>,
    raw: Option<Vec<u8>>,
    silent: bool,
    after: Duration,
    times: Option<u32>,
}

/// Makes a script of `upstream SUBJECT` and the lines below it: SUBJECT is `[scripted-X] NAME TYPE`, where NAME may be `*` or
/// `*.example.org` and TYPE `*`.
///
/// Lines: `RCODE [aa] [tc] [ra] [ad]` (RD and CD are the query's), records (answer section unless `authority` or
/// `additional` stands before them; `{count}` is how often this was asked, `{name}` the name asked for), `edns SIZE
/// [CODE=HEX…]`, `after DURATION`, `silent`, `raw HEX` (the ID is put right), `times N` (then the script is used up), `udp`, `tcp` (this transport only).
pub fn script(subject: &str, lines: &str) -> Result<Script, String> {
    let words: Vec<&str> = subject.split_whitespace().collect();
    let mut subject = match *words.as_slice() {
        [who, name, rtype] if ScriptedUpstream::is_named_by(who) => Match::new(who, name, rtype)?,
        [name, rtype] => Match::new(SCRIPTED, name, rtype)?,
        _ => return Err("write `upstream [scripted-X] NAME TYPE`".into()),
    };
    let mut reply = Reply::default();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line {
            "udp" => subject.transport = Some(Transport::Udp),
            "tcp" => subject.transport = Some(Transport::Tcp),
            line => reply
                .line(line)
                .map_err(|what| format!("{line:?}: {what}"))?,
        }
    }
    // Fail now and not when it is asked.
    reply.build(&Message::query(), 1)?;
    let mut asked = 0;
    Ok(Box::new(move |seen: &Seen| {
        let query = Message::from_vec(&seen.packet).ok()?;
        if reply.times.is_some_and(|times| asked >= times) || !subject.fits(seen, &query) {
            return None;
        }
        asked += 1;
        let bytes = match &reply.raw {
            _ if reply.silent => None,
            Some(raw) => {
                let mut raw = raw.clone();
                for (to, from) in raw.iter_mut().zip(seen.packet.iter().take(2)) {
                    *to = *from;
                }
                Some(raw)
            }
            None => reply.build(&query, asked).ok(),
        };
        Some(Reaction {
            reply: bytes,
            after: reply.after,
        })
    }))
}

impl Match {
    fn new(upstream: &str, name: &str, rtype: &str) -> Result<Match, String> {
        Ok(Match {
            upstream: upstream.to_owned(),
            name: match name.to_ascii_lowercase() {
                any if any == "*" => Pattern::Any,
                name => match name.strip_prefix('*') {
                    Some(parent) => Pattern::Below(absolute(parent)),
                    None => Pattern::Exactly(absolute(&name)),
                },
            },
            rtype: match rtype {
                "*" => None,
                text => {
                    Some(Rtype::parse(text).ok_or_else(|| format!("{text} is no record type"))?)
                }
            },
            transport: None,
        })
    }

    fn fits(&self, seen: &Seen, query: &Message) -> bool {
        let Some(question) = query.queries.first() else {
            return false;
        };
        let name = question.name().to_ascii().to_ascii_lowercase();
        self.upstream == seen.upstream
            && self.transport.is_none_or(|only| only == seen.transport)
            && self
                .rtype
                .is_none_or(|rtype| rtype.0 == u16::from(question.query_type()))
            && match &self.name {
                Pattern::Any => true,
                Pattern::Below(parent) => name.ends_with(parent.as_str()),
                Pattern::Exactly(exactly) => name == *exactly,
            }
    }
}

fn absolute(name: &str) -> String {
    if name.ends_with('.') {
        name.to_owned()
    } else {
        format!("{name}.")
    }
}

impl Reply {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "after" => self.after = duration(rest)?,
            "silent" => self.silent = true,
            "raw" => self.raw = Some(octets(rest)?),
            "times" => self.times = Some(rest.parse().map_err(|_| "times takes a number")?),
            "edns" => self.edns = Some(edns(rest)?),
            "authority" => self.records.push((Section::Authority, rest.to_owned())),
            "additional" => self.records.push((Section::Additional, rest.to_owned())),
            _ => match Rcode::parse(word) {
                Some(rcode) => {
                    self.rcode = rcode.0;
                    self.flags = rest.split_whitespace().map(str::to_owned).collect();
                }
                None => self.records.push((Section::Answer, line.to_owned())),
            },
        }
        Ok(())
    }

    fn build(&self, query: &Message, asked: u32) -> Result<Vec<u8>, String> {
        let mut message = reply_to(query, self.rcode);
        for flag in &self.flags {
            match flag.as_str() {
                "aa" => message.metadata.authoritative = true,
                "tc" => message.metadata.truncation = true,
                "ra" => message.metadata.recursion_available = true,
                "ad" => message.metadata.authentic_data = true,
                "qr" => {}
                "rd" => message.metadata.recursion_desired = true,
                "cd" => message.metadata.checking_disabled = true,
                other => return Err(format!("{other} is no flag of a reply")),
            }
        }
        let name = query
            .queries
            .first()
            .map_or_else(|| ".".to_owned(), |question| question.name().to_ascii());
        for (section, text) in &self.records {
            let text = text
                .replace("{count}", &asked.to_string())
                .replace("{name}", &name);
            let record = record(&text)?;
            match section {
                Section::Answer => message.add_answer(record),
                Section::Authority => message.add_authority(record),
                Section::Additional => message.add_additional(record),
            };
        }
        if let Some((size, options)) = &self.edns {
            set_edns(&mut message, *size, options);
        }
        message.to_vec().map_err(|error| error.to_string())
    }
}

/// A response to `query` with its question, RD and CD.
pub(super) fn reply_to(query: &Message, rcode: u16) -> Message {
    let mut message = Message::new(
        query.metadata.id,
        MessageType::Response,
        query.metadata.op_code,
    );
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.checking_disabled = query.metadata.checking_disabled;
    message.metadata.response_code = ResponseCode::from((rcode >> 4) as u8, (rcode & 15) as u8);
    message.queries = query.queries.clone();
    message
}

/// Gives a message an OPT.
pub(super) fn set_edns(message: &mut Message, size: u16, options: &[(u16, Vec<u8>)]) {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    for (code, data) in options {
        edns.options_mut()
            .insert(EdnsOption::Unknown(*code, data.clone()));
    }
    message.set_edns(edns);
}

/// Reads `NAME TTL [CLASS] TYPE DATA`.
pub(super) fn record(text: &str) -> Result<Record, String> {
    let mut rest = text.trim();
    let mut word = || {
        let (word, tail) = rest
            .split_once(char::is_whitespace)
            .ok_or("a record is NAME TTL [CLASS] TYPE DATA")?;
        rest = tail.trim_start();
        Ok::<&str, String>(word)
    };
    let owner = Name::from_str(&absolute(word()?)).map_err(|error| error.to_string())?;
    let ttl = word()?;
    let ttl = ttl.parse().map_err(|_| format!("{ttl} is no TTL"))?;
    let mut rtype = word()?;
    let class = match Class::parse(rtype) {
        Some(class) => {
            rtype = word()?;
            class
        }
        None => Class::IN,
    };
    let rtype = Rtype::parse(rtype).ok_or_else(|| format!("{rtype} is no record type"))?;
    let mut record = Record::from_rdata(owner, ttl, rdata(rtype, rest)?);
    record.dns_class = DNSClass::from(class.0);
    Ok(record)
}

fn rdata(rtype: Rtype, text: &str) -> Result<RData, String> {
    // RFC 3597 §5.
    if let Some(generic) = text.strip_prefix("\\#") {
        let hex = generic
            .trim_start()
            .split_once(char::is_whitespace)
            .map_or("", |(_, hex)| hex);
        return Ok(RData::Unknown {
            code: RecordType::from(rtype.0),
            rdata: NULL::with(octets(hex)?),
        });
    }
    RData::try_from_str(RecordType::from(rtype.0), text)
        .map_err(|error| format!("{rtype} {text}: {error}"))
}

fn edns(text: &str) -> Result<Opt, String> {
    let mut words = text.split_whitespace();
    let size = words
        .next()
        .and_then(|size| size.parse().ok())
        .ok_or("write `edns SIZE [CODE=HEX…]`")?;
    let mut options = Vec::new();
    for word in words {
        let (code, hex) = word.split_once('=').ok_or("an option is CODE=HEX")?;
        options.push((
            code.parse()
                .map_err(|_| format!("{code} is no option code"))?,
            octets(hex)?,
        ));
    }
    Ok((size, options))
}

/// Hexadecimal octets, spaces between them or not.
pub(super) fn octets(text: &str) -> Result<Vec<u8>, String> {
    let digits: String = text.split_whitespace().collect();
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .map_err(|error| format!("{text}: {error}"))
}

/// `250ms`, `25s`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("{text} is no duration"))?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text} has no unit of ms, s, m, h")),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}
