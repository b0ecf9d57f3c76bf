//! The shape of a line: CoreDNS's placeholders, parsed once, written without allocation.

use std::io::Write;
use std::net::IpAddr;

use crate::kit::clock;
use crate::kit::query::{Transport, flags};
use crate::kit::response::Response;
use crate::kit::wire::{Opcode, name};

const COMMON: &str = r#"{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration}"#;
const COMBINED_END: &str = r#" "{>opcode}""#;

/// What a rule writes.
pub(super) enum Format {
    Text(Vec<Piece>),
    Json,
}

/// A part of a line.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) enum Piece {
    Literal(String),
    Field(Field),
}

macro_rules! fields {
    ($($name:ident $text:literal),+ $(,)?) => {
        /// A placeholder.
        #[derive(Debug, PartialEq, Eq, Clone, Copy)]
        pub(super) enum Field { $($name),+ }
        impl Field {
            fn parse(text: &str) -> Option<Field> {
                match text { $($text => Some(Field::$name),)+ _ => None }
            }
        }
    };
}

fields!(
    Type "type", Name "name", Class "class", Proto "proto", Size "size", Remote "remote", Port "port", Local "local", Rcode "rcode",
    Rsize "rsize", Duration "duration", Id ">id", Opcode ">opcode", Do ">do", Bufsize ">bufsize", Rflags ">rflags", Missing "",
);

impl Format {
    /// Reads a format; what is no placeholder stays as it is written.
    pub(super) fn text(format: &str) -> Format {
        let format = format
            .replace("{combined}", &format!("{COMMON}{COMBINED_END}"))
            .replace("{common}", COMMON);
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = format.as_str();
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            literal.push_str(before);
            let Some(close) = from.find('}') else {
                rest = from;
                break;
            };
            let inside = &from[1..close];
            let field = match inside {
                // Metadata that no plugin sets prints as missing.
                label if label.starts_with('/') && label.len() > 1 => Some(Field::Missing),
                "" => None,
                other => Field::parse(other),
            };
            match field {
                Some(field) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Field(field));
                    rest = &from[close + 1..];
                }
                None => {
                    literal.push('{');
                    rest = &from[1..];
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Format::Text(pieces)
    }

    /// Appends a line with its end. Writing to a `Vec` cannot fail, so results are not looked at.
    pub(super) fn write(&self, response: &Response, line: &mut Vec<u8>) {
        match self {
            Format::Text(pieces) => {
                line.extend_from_slice(b"[INFO] ");
                for piece in pieces {
                    match piece {
                        Piece::Literal(text) => line.extend_from_slice(text.as_bytes()),
                        Piece::Field(field) => field.write(response, line),
                    }
                }
            }
            Format::Json => write_json(response, line),
        }
        line.push(b'\n');
    }
}

impl Field {
    fn write(self, response: &Response, line: &mut Vec<u8>) {
        let query = response.query();
        match self {
            Field::Type => write!(line, "{}", query.qtype()).ok(),
            Field::Name => write!(line, "{}", name::display(query.qname())).ok(),
            Field::Class => write!(line, "{}", query.qclass()).ok(),
            Field::Proto => line.write_all(query.transport().as_str().as_bytes()).ok(),
            Field::Size => write!(line, "{}", query.size()).ok(),
            Field::Remote => write_ip(line, query.client().ip()),
            Field::Port => write!(line, "{}", query.client().port()).ok(),
            Field::Local => write_ip(line, query.local().ip()),
            Field::Rcode => write!(line, "{}", response.rcode()).ok(),
            Field::Rsize => write!(line, "{}", response.len()).ok(),
            Field::Duration => write!(line, "{}s", seconds(response)).ok(),
            Field::Id => write!(line, "{}", query.id()).ok(),
            Field::Opcode => write!(line, "{}", query.opcode().0).ok(),
            Field::Do => write!(line, "{}", query.dnssec_ok()).ok(),
            Field::Bufsize => write!(line, "{}", bufsize(response)).ok(),
            Field::Rflags => write_flags(line, response.flags()),
            Field::Missing => line.write_all(b"-").ok(),
        };
    }
}

fn seconds(response: &Response) -> f64 {
    clock::now()
        .saturating_duration_since(response.query().received_at())
        .as_secs_f64()
}

/// What the client can take: its EDNS size, at least 512; everything over TCP.
fn bufsize(response: &Response) -> u16 {
    let query = response.query();
    match query.transport() {
        Transport::Tcp => u16::MAX,
        Transport::Udp => query.edns().map_or(512, |edns| edns.udp_size.max(512)),
    }
}

fn write_ip(line: &mut Vec<u8>, ip: IpAddr) -> Option<()> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => write!(line, "{ip}").ok(),
        IpAddr::V6(ip) => write!(line, "[{ip}]").ok(),
    }
}

const FLAGS: [(u16, &str); 8] = [
    (flags::QR, "qr"),
    (flags::AA, "aa"),
    (flags::TC, "tc"),
    (flags::RD, "rd"),
    (flags::RA, "ra"),
    (flags::Z, "z"),
    (flags::AD, "ad"),
    (flags::CD, "cd"),
];

fn write_flags(line: &mut Vec<u8>, word: u16) -> Option<()> {
    let mut first = true;
    for (_, text) in FLAGS.iter().filter(|(bit, _)| word & bit != 0) {
        if !std::mem::take(&mut first) {
            line.push(b',');
        }
        line.extend_from_slice(text.as_bytes());
    }
    Some(())
}

/// One object per line. Names are in presentation format, whose octets are printable ASCII; only `"` and `\` need care.
fn write_json(response: &Response, line: &mut Vec<u8>) {
    let query = response.query();
    let now = clock::unix_now();
    write!(
        line,
        r#"{{"level":"info","time":{}.{:03},"remote":"{}","port":{},"#,
        now.as_secs(),
        now.subsec_millis(),
        query.client().ip().to_canonical(),
        query.client().port()
    )
    .ok();
    write!(
        line,
        r#""local":"{}","id":{},"type":"{}","class":"{}","name":""#,
        query.local().ip().to_canonical(),
        query.id(),
        query.qtype(),
        query.qclass()
    )
    .ok();
    let start = line.len();
    write!(line, "{}", name::display(query.qname())).ok();
    escape_json(line, start);
    write!(
        line,
        r#"","proto":"{}","size":{},"do":{},"bufsize":{},"opcode":"{}","rcode":"{}","rflags":""#,
        query.transport().as_str(),
        query.size(),
        query.dnssec_ok(),
        bufsize(response),
        Opcode(query.opcode().0),
        response.rcode(),
    )
    .ok();
    write_flags(line, response.flags());
    write!(
        line,
        r#"","rsize":{},"duration":{},"source":"{}","plugin":"{}"}}"#,
        response.len(),
        seconds(response),
        response.source().as_str(),
        response.link()
    )
    .ok();
}

fn escape_json(line: &mut Vec<u8>, start: usize) {
    let mut at = start;
    while at < line.len() {
        if matches!(line[at], b'"' | b'\\') {
            line.insert(at, b'\\');
            at += 1;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(format: &str) -> Vec<Piece> {
        match Format::text(format) {
            Format::Text(pieces) => pieces,
            Format::Json => Vec::new(),
        }
    }

    #[test]
    fn unknown_braces_stay_as_written() {
        assert_eq!(
            pieces("{nosuch} {} {>nosuch} {"),
            [Piece::Literal("{nosuch} {} {>nosuch} {".into())]
        );
        assert_eq!(
            pieces("a{type}b"),
            [
                Piece::Literal("a".into()),
                Piece::Field(Field::Type),
                Piece::Literal("b".into())
            ]
        );
        assert_eq!(
            pieces("{/forward/upstream}"),
            [Piece::Field(Field::Missing)]
        );
    }

    #[test]
    fn common_and_combined_expand() {
        assert_eq!(pieces("{combined}").len(), pieces("{common}").len() + 3);
    }

    #[test]
    fn quotes_and_backslashes_are_escaped_for_json() {
        let mut line = br#"x"y\"#.to_vec();
        escape_json(&mut line, 0);
        assert_eq!(line, br#"x\"y\\"#);
    }
}
