//! Makes text of DNS messages: the one renderer for conversations, snapshots and failures.
//!
//! It reads messages with a reader of its own, so that a fault in `kit::wire` cannot hide itself.
//!
//! ```text
//! NXDOMAIN qr aa rd
//! authority example.org. 30 IN SOA ns.example.org. hostmaster.example.org. 7 7200 1800 86400 30
//! edns 1232 do nsid=node-7
//! ```

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::kit::wire::{Class, Opcode, Rcode, Rtype};

/// A message as text: the first line (rcode and flags), and one line per record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// `NOERROR qr rd ra`.
    pub head: String,
    /// Question (only where it differs from the one asked), records, EDNS.
    pub lines: Vec<String>,
    /// Octets.
    pub size: usize,
}

impl Rendered {
    /// Head and lines, each ended by a newline.
    pub fn text(&self) -> String {
        let mut out = self.head.clone() + "\n";
        for line in &self.lines {
            out += line;
            out.push('\n');
        }
        out
    }
}

/// Renders a response to `query` (both as bytes). A response that ends early or cannot be read says so in its last line.
pub fn response(query: &[u8], response: &[u8]) -> Rendered {
    let mut lines = Vec::new();
    let mut reader = Reader {
        bytes: response,
        at: 0,
    };
    let Some(header) = reader.header() else {
        return Rendered {
            head: format!("unreadable: {}", hex(response)),
            lines,
            size: response.len(),
        };
    };
    let mut rcode = header.flags & 15;
    if query.get(..2) != response.get(..2) {
        lines.push("wrong id".to_owned());
    }
    let mut edns = None;
    if read_body(&mut reader, &header, query, &mut lines, &mut edns).is_none() {
        lines.push("unreadable from here".to_owned());
    } else if reader.at < response.len() {
        lines.push(format!("{} octets too many", response.len() - reader.at));
    }
    if let Some((high, line)) = edns {
        rcode |= u16::from(high) << 4;
        lines.push(line);
    }
    let mut head = Rcode(rcode).to_string();
    for (bit, name) in FLAGS {
        if header.flags & bit != 0 {
            head.push(' ');
            head += name;
        }
    }
    let opcode = Opcode((header.flags >> 11) as u8 & 15);
    if opcode != Opcode::QUERY {
        // Writing into a String cannot fail.
        write!(head, " opcode={opcode}").ok();
    }
    Rendered {
        head,
        lines,
        size: response.len(),
    }
}

/// Renders a query as an upstream saw it: `udp www.example.org. A rd edns 1232 do`.
pub fn query(transport: &str, packet: &[u8]) -> String {
    let mut reader = Reader {
        bytes: packet,
        at: 0,
    };
    let described = (|| {
        let header = reader.header()?;
        let (name, rtype, class) = reader.question()?;
        let mut out = format!("{transport} {name} {rtype}");
        if class != Class::IN {
            write!(out, " {class}").ok();
        }
        for (bit, name) in FLAGS {
            if header.flags & bit != 0 {
                out.push(' ');
                out += name;
            }
        }
        for _ in 0..header.counts[1] + header.counts[2] + header.counts[3] {
            let record = reader.record()?;
            if record.rtype == Rtype::OPT {
                out.push(' ');
                out += &edns_text(&record, packet)?;
            }
        }
        Some(out)
    })();
    described.unwrap_or_else(|| format!("{transport} unreadable {}", hex(packet)))
}

const FLAGS: [(u16, &str); 8] = [
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0040, "z"),
    (0x0020, "ad"),
    (0x0010, "cd"),
];

fn read_body(
    reader: &mut Reader<'_>,
    header: &Header,
    query: &[u8],
    lines: &mut Vec<String>,
    edns: &mut Option<(u8, String)>,
) -> Option<()> {
    let start = reader.at;
    for _ in 0..header.counts[0] {
        let (name, rtype, class) = reader.question()?;
        // The question is echoed octet for octet, spelling included.
        if query.get(start..reader.at) != reader.bytes.get(start..reader.at) {
            lines.push(format!("question {name} {class} {rtype}"));
        }
    }
    if header.counts[0] == 0 && query.get(4..6) != Some(&[0, 0]) {
        lines.push("no question".to_owned());
    }
    for (section, count) in ["", "authority ", "additional "]
        .iter()
        .zip(&header.counts[1..])
    {
        for _ in 0..*count {
            let record = reader.record()?;
            if record.rtype == Rtype::OPT && *section == "additional " && edns.is_none() {
                let text = edns_text(&record, reader.bytes)?;
                *edns = Some(((record.ttl >> 24) as u8, text));
                continue;
            }
            let data = rdata_text(&record, reader.bytes)?;
            lines.push(format!(
                "{section}{} {} {} {} {data}",
                record.owner, record.ttl, record.class, record.rtype
            ));
        }
    }
    Some(())
}

/// `edns 1232 do version=1 z=4000 nsid=.. ede=14:not ready`
fn edns_text(record: &Record, message: &[u8]) -> Option<String> {
    let mut out = format!("edns {}", record.class.0);
    if record.owner != "." {
        write!(out, " owner={}", record.owner).ok();
    }
    if record.ttl & 0x8000 != 0 {
        out += " do";
    }
    let version = record.ttl >> 16 & 0xff;
    if version != 0 {
        write!(out, " version={version}").ok();
    }
    if record.ttl & 0x7fff != 0 {
        write!(out, " z={}", record.ttl & 0x7fff).ok();
    }
    let mut options = Reader {
        bytes: message.get(..record.end)?,
        at: record.start,
    };
    while options.at < record.end {
        let code = options.u16()?;
        let len = usize::from(options.u16()?);
        let data = options.take(len)?;
        match code {
            3 => write!(out, " nsid={}", printable(data)),
            8 => write!(out, " ecs={}", hex(data)),
            10 => write!(out, " cookie={}", hex(data)),
            12 => write!(out, " padding={len}"),
            15 if len >= 2 => {
                let info = u16::from_be_bytes([data[0], data[1]]);
                match data.len() {
                    2 => write!(out, " ede={info}"),
                    _ => write!(out, " ede={info}:{}", printable(&data[2..])),
                }
            }
            _ => write!(out, " opt{code}={}", hex(data)),
        }
        .ok();
    }
    Some(out)
}

/// Text that stands as it is where it has no octet outside printable ASCII, in hexadecimal otherwise; spaces become `_`.
fn printable(data: &[u8]) -> String {
    if data.iter().all(|b| (0x20..0x7f).contains(b)) {
        String::from_utf8_lossy(data).replace(' ', "_")
    } else {
        format!("0x{}", hex(data))
    }
}

fn rdata_text(record: &Record, message: &[u8]) -> Option<String> {
    let data = message.get(record.start..record.end)?;
    let mut reader = Reader {
        bytes: message.get(..record.end)?,
        at: record.start,
    };
    let text = known_rdata_text(record.rtype, data, &mut reader);
    // What does not fill its data exactly is shown as octets, so that a wrong length cannot hide.
    Some(match text {
        Some(text) if reader.at == record.end => text,
        // RFC 3597 §5.
        _ if data.is_empty() => "\\# 0".to_owned(),
        _ => format!("\\# {} {}", data.len(), hex(data)),
    })
}

fn known_rdata_text(rtype: Rtype, data: &[u8], reader: &mut Reader<'_>) -> Option<String> {
    Some(match rtype {
        Rtype::A => {
            reader.take(4)?;
            Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string()
        }
        Rtype::AAAA => {
            reader.take(16)?;
            Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string()
        }
        Rtype::NS | Rtype::CNAME | Rtype::PTR | Rtype::DNAME => reader.name()?,
        Rtype::MX => format!("{} {}", reader.u16()?, reader.name()?),
        Rtype::SRV => format!(
            "{} {} {} {}",
            reader.u16()?,
            reader.u16()?,
            reader.u16()?,
            reader.name()?
        ),
        Rtype::SOA => {
            let mut text = format!("{} {}", reader.name()?, reader.name()?);
            for _ in 0..5 {
                write!(text, " {}", reader.u32()?).ok();
            }
            text
        }
        Rtype::TXT | Rtype::HINFO => {
            let mut strings = Vec::new();
            while reader.at < reader.bytes.len() {
                strings.push(quoted(reader.string()?));
            }
            strings.join(" ")
        }
        Rtype::CAA => {
            let flags = reader.take(1)?[0];
            let tag = String::from_utf8_lossy(reader.string()?).into_owned();
            let rest = reader.bytes.len() - reader.at;
            format!("{flags} {tag} {}", quoted(reader.take(rest)?))
        }
        Rtype::DS => {
            let (tag, algorithm, digest) = (reader.u16()?, reader.take(1)?[0], reader.take(1)?[0]);
            let rest = reader.bytes.len() - reader.at;
            format!("{tag} {algorithm} {digest} {}", hex(reader.take(rest)?))
        }
        Rtype::SVCB | Rtype::HTTPS => svcb_text(reader)?,
        _ => return None,
    })
}

/// RFC 9460 §2.1.
fn svcb_text(reader: &mut Reader<'_>) -> Option<String> {
    let mut text = format!("{} {}", reader.u16()?, reader.name()?);
    while reader.at < reader.bytes.len() {
        let (key, len) = (reader.u16()?, usize::from(reader.u16()?));
        let value = reader.take(len)?;
        let mut value_reader = Reader {
            bytes: value,
            at: 0,
        };
        let mut words = Vec::new();
        while value_reader.at < value.len() {
            words.push(match key {
                1 => String::from_utf8_lossy(value_reader.string()?).into_owned(),
                3 => value_reader.u16()?.to_string(),
                4 => Ipv4Addr::from(<[u8; 4]>::try_from(value_reader.take(4)?).ok()?).to_string(),
                6 => Ipv6Addr::from(<[u8; 16]>::try_from(value_reader.take(16)?).ok()?).to_string(),
                _ => hex(value_reader.take(value.len())?),
            });
        }
        let name = match key {
            1 => "alpn".to_owned(),
            3 => "port".to_owned(),
            4 => "ipv4hint".to_owned(),
            6 => "ipv6hint".to_owned(),
            _ => format!("key{key}"),
        };
        write!(text, " {name}=\"{}\"", words.join(",")).ok();
    }
    Some(text)
}

fn quoted(data: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in data {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            0x20..0x7f => out.push(char::from(*byte)),
            _ => {
                write!(out, "\\{byte:03}").ok();
            }
        }
    }
    out.push('"');
    out
}

/// Octets in lower-case hexadecimal.
pub fn hex(data: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(data)
}

struct Header {
    flags: u16,
    counts: [u16; 4],
}

struct Record {
    owner: String,
    rtype: Rtype,
    class: Class,
    ttl: u32,
    start: usize,
    end: usize,
}

/// Reads a message front to back.
struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, n: usize) -> Option<&'m [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A character string (RFC 1035 §3.3).
    fn string(&mut self) -> Option<&'m [u8]> {
        let len = usize::from(self.take(1)?[0]);
        self.take(len)
    }

    fn header(&mut self) -> Option<Header> {
        self.take(2)?;
        let flags = self.u16()?;
        let counts = [self.u16()?, self.u16()?, self.u16()?, self.u16()?];
        Some(Header { flags, counts })
    }

    fn question(&mut self) -> Option<(String, Rtype, Class)> {
        Some((self.name()?, Rtype(self.u16()?), Class(self.u16()?)))
    }

    fn record(&mut self) -> Option<Record> {
        let owner = self.name()?;
        let rtype = Rtype(self.u16()?);
        let class = Class(self.u16()?);
        let ttl = self.u32()?;
        let len = usize::from(self.u16()?);
        let start = self.at;
        self.take(len)?;
        Some(Record {
            owner,
            rtype,
            class,
            ttl,
            start,
            end: self.at,
        })
    }

    /// A name in presentation format; pointers lead backwards only.
    fn name(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut at = self.at;
        let mut end = None;
        let mut lowest = self.at;
        let mut octets = 0;
        loop {
            let len = usize::from(*self.bytes.get(at)?);
            if len == 0 {
                self.at = end.unwrap_or(at + 1);
                return Some(if text.is_empty() {
                    ".".to_owned()
                } else {
                    text
                });
            }
            if len & 0xc0 == 0xc0 {
                let target = (len & 0x3f) << 8 | usize::from(*self.bytes.get(at + 1)?);
                end.get_or_insert(at + 2);
                if target >= lowest {
                    return None;
                }
                (lowest, at) = (target, target);
                continue;
            }
            octets += 1 + len;
            if len > 63 || octets > 254 {
                return None;
            }
            for byte in self.bytes.get(at + 1..at + 1 + len)? {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        text.push('\\');
                        text.push(char::from(*byte));
                    }
                    0x21..0x7f => text.push(char::from(*byte)),
                    _ => {
                        write!(text, "\\{byte:03}").ok();
                    }
                }
            }
            text.push('.');
            at += 1 + len;
        }
    }
}
