//! A resource record in a form in which two of them can be compared, and its text.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use skein_plugins::kit::wire::message::{RecordView, expand_name, names_in};
use skein_plugins::kit::wire::{NameBuf, Rtype, name};

/// Owner, type and data; names in lower case and uncompressed, so that equal records are equal octets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Rr {
    pub(crate) owner: Box<[u8]>,
    pub(crate) rtype: Rtype,
    /// The data; of TXT the texts without their lengths, since how a long text is cut is nobody's promise.
    pub(crate) data: Box<[u8]>,
}

impl Rr {
    pub(crate) fn new(owner: &[u8], rtype: Rtype, data: impl Into<Vec<u8>>) -> Rr {
        Rr {
            owner: owner.to_ascii_lowercase().into(),
            rtype,
            data: data.into().into(),
        }
    }

    /// From a message; `None` if it is malformed.
    pub(crate) fn read(message: &[u8], view: &RecordView) -> Option<Rr> {
        let mut owner = NameBuf::new();
        expand_name(message, view.start, &mut owner).ok()?;
        let data = match view.rtype {
            Rtype::TXT => texts(message.get(view.rdata.clone())?)?,
            // RFC 2782: the target is not to be compressed, but some do.
            Rtype::SRV => with_names(message, view, (6, 1, 0))?,
            rtype => match names_in(rtype) {
                Some(places) => with_names(message, view, places)?,
                None => message.get(view.rdata.clone())?.to_vec(),
            },
        };
        Some(Rr::new(owner.as_wire(), view.rtype, data))
    }
}

/// The strings of a TXT, one behind the other.
fn texts(mut data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while let Some((len, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*len))?;
        text.extend_from_slice(string);
        data = rest;
    }
    Some(text)
}

fn with_names(
    message: &[u8],
    view: &RecordView,
    (before, names, behind): (usize, usize, usize),
) -> Option<Vec<u8>> {
    let mut at = view.rdata.start + before;
    let mut data = message.get(view.rdata.start..at)?.to_vec();
    for _ in 0..names {
        let mut name = NameBuf::new();
        at = expand_name(message, at, &mut name).ok()?;
        data.extend(name.as_wire().to_ascii_lowercase());
    }
    data.extend_from_slice(message.get(at..at + behind)?);
    Some(data)
}

impl fmt::Display for Rr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rtype, Data(self))
    }
}

/// The data alone.
pub(crate) struct Data<'r>(pub(crate) &'r Rr);

impl fmt::Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = &*self.0.data;
        let number = |at: usize| {
            let octets = data.get(at..at + 2).and_then(<[u8]>::first_chunk::<2>);
            octets.map_or(0, |octets| u16::from_be_bytes(*octets))
        };
        let name = |at: usize| name::display(data.get(at..).unwrap_or_default());
        match self.0.rtype {
            Rtype::A => match <[u8; 4]>::try_from(data) {
                Ok(octets) => write!(f, "{}", Ipv4Addr::from(octets)),
                Err(_) => f.write_str("(malformed)"),
            },
            Rtype::AAAA => match <[u8; 16]>::try_from(data) {
                Ok(octets) => write!(f, "{}", Ipv6Addr::from(octets)),
                Err(_) => f.write_str("(malformed)"),
            },
            Rtype::CNAME | Rtype::NS | Rtype::PTR | Rtype::DNAME | Rtype::SOA => {
                write!(f, "{}", name(0))
            }
            Rtype::MX => write!(f, "{} {}", number(0), name(2)),
            Rtype::SRV => write!(f, "{} {} {} {}", number(0), number(2), number(4), name(6)),
            Rtype::TXT => write!(f, "\"{}\"", String::from_utf8_lossy(data).escape_debug()),
            _ => write!(f, "{} octets", data.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_plugins::kit::wire::message::records;

    #[test]
    fn records_are_read_out_of_a_message_and_shown() {
        let mut message = vec![0, 1, 0x84, 0, 0, 1, 0, 3, 0, 0, 0, 0];
        message.extend_from_slice(b"\x01A\x00\x00\x21\x00\x01");
        message.extend_from_slice(
            b"\xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x3c\x00\x09\x00\x0a\x00\x64\x00\x50\x01b\xc0\x0c"
                .as_slice(),
        );
        // The length of the data above is 10 with its pointer.
        message[30] = 10;
        message.extend_from_slice(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x04\x01x\x01y");
        message
            .extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
        let views = records(&message).expect("it has a question");
        let read: Vec<String> = views
            .map(|view| Rr::read(&message, &view.expect("whole")).expect("sound"))
            .map(|rr| rr.to_string())
            .collect();
        assert_eq!(read, ["SRV 10 100 80 b.a.", "TXT \"xy\"", "A 192.0.2.1"]);
    }
}
