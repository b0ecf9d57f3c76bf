//! What the data of each type looks like: a table of fields, which is read from text, printed, checked and expanded by it.
//!
//! A type that is not in the table is opaque: text has it in the generic form (RFC 3597 §5), and a message has no names in it to expand.

mod odd;
mod print;
mod text;

pub use print::display;
pub(super) use text::{name, parse, period};

use crate::kit::wire::message::{RecordView, expand_name};
use crate::kit::wire::name::wire_len;
use crate::kit::wire::{NameBuf, Rtype};

/// A field of a record's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    /// A number of one octet.
    U8,
    /// Of two.
    U16,
    /// Of four.
    U32,
    /// Seconds, with units (`2h`).
    Period,
    /// A point in time: `20240517120000`, or seconds since 1970 (RFC 4034 §3.2).
    Time,
    /// An IPv4 address.
    Ip4,
    /// An IPv6 address.
    Ip6,
    /// A name.
    Name,
    /// A name that is stored in lower case, as CoreDNS does.
    Lower,
    /// A string of at most 255 octets with its length.
    Str,
    /// Such strings to the end, one at least.
    Strs,
    /// Text to the end without a length.
    Text,
    /// Octets to the end, in hexadecimal.
    Hex,
    /// Octets with their length, in hexadecimal; `-` is none.
    HexLen,
    /// Octets with their length, in base32hex.
    Base32Len,
    /// Octets to the end, in base64.
    Base64,
    /// A type.
    Type,
    /// Types as a bitmap (RFC 4034 §4.1.2) to the end.
    Types,
    /// A DNSSEC algorithm, as number or mnemonic.
    Algorithm,
    /// A certificate type, as number or mnemonic (RFC 4398 §2.1).
    CertType,
    /// Octets with hyphens between (RFC 7043): so many.
    Eui(u8),
    /// Four groups of four hexadecimal digits (RFC 6742 §2.1.2).
    Locator,
    /// A place on earth (RFC 1876).
    Loc,
    /// Networks (RFC 3123).
    Apl,
    /// Parameters of a service (RFC 9460 §2.1).
    SvcParams,
    /// What stands behind IPSECKEY's precedence (RFC 4025 §3.1).
    IpsecKey,
    /// HIP as a whole (RFC 8005 §6).
    Hip,
    /// Hexadecimal with 0x before it and dots in it (RFC 1706 §6).
    Nsap,
    /// Services of a host (RFC 1035 §3.4.2), behind the address.
    Wks,
}

use Field::*;

/// The fields of a type; none for one that is opaque.
#[rustfmt::skip]
fn layout(rtype: Rtype) -> Option<&'static [Field]> {
    Some(match rtype {
        Rtype::A => &[Ip4],
        Rtype::AAAA => &[Ip6],
        Rtype::NS | Rtype::CNAME | Rtype::DNAME => &[Lower],
        Rtype::MD | Rtype::MF | Rtype::MB | Rtype::MG | Rtype::MR | Rtype::PTR => &[Name],
        Rtype::SOA => &[Lower, Lower, U32, Period, Period, Period, Period],
        Rtype::WKS => &[Ip4, Wks],
        Rtype::HINFO => &[Str, Str],
        Rtype::MINFO | Rtype::RP => &[Name, Name],
        Rtype::MX => &[U16, Lower],
        Rtype::AFSDB | Rtype::RT | Rtype::KX | Rtype::LP => &[U16, Name],
        Rtype::TXT | Rtype::SPF | Rtype::AVC | Rtype::ISDN => &[Strs],
        Rtype::X25 => &[Str],
        Rtype::NSAP => &[Nsap],
        Rtype::RRSIG | Rtype::SIG => &[Type, Algorithm, U8, Period, Time, Time, U16, Name, Base64],
        Rtype::DNSKEY | Rtype::KEY | Rtype::CDNSKEY => &[U16, U8, Algorithm, Base64],
        Rtype::PX => &[U16, Name, Name],
        Rtype::GPOS => &[Str, Str, Str],
        Rtype::LOC => &[Loc],
        Rtype::EID | Rtype::NIMLOC => &[Hex],
        Rtype::SRV => &[U16, U16, U16, Name],
        Rtype::NAPTR => &[U16, U16, Str, Str, Str, Name],
        Rtype::CERT => &[CertType, U16, Algorithm, Base64],
        Rtype::APL => &[Apl],
        Rtype::DS | Rtype::CDS | Rtype::DLV | Rtype::TA => &[U16, Algorithm, U8, Hex],
        Rtype::SSHFP => &[U8, U8, Hex],
        Rtype::IPSECKEY => &[U8, IpsecKey],
        Rtype::NSEC => &[Name, Types],
        Rtype::DHCID | Rtype::OPENPGPKEY => &[Base64],
        Rtype::NSEC3 => &[U8, U8, U16, HexLen, Base32Len, Types],
        Rtype::NSEC3PARAM => &[U8, U8, U16, HexLen],
        Rtype::TLSA | Rtype::SMIMEA => &[U8, U8, U8, Hex],
        Rtype::HIP => &[Hip],
        Rtype::CSYNC => &[U32, U16, Types],
        Rtype::ZONEMD => &[U32, U8, U8, Hex],
        Rtype::SVCB | Rtype::HTTPS => &[U16, Lower, SvcParams],
        Rtype::NID | Rtype::L64 => &[U16, Locator],
        Rtype::L32 => &[U16, Ip4],
        Rtype::EUI48 => &[Eui(6)],
        Rtype::EUI64 => &[Eui(8)],
        Rtype::URI => &[U16, U16, Text],
        Rtype::CAA => &[U8, Str, Text],
        _ => return None,
    })
}

impl Field {
    /// Octets of a field that always has as many.
    fn octets(self) -> Option<usize> {
        match self {
            U8 | Algorithm => Some(1),
            U16 | Type | CertType => Some(2),
            U32 | Period | Time | Ip4 => Some(4),
            Locator => Some(8),
            Ip6 | Loc => Some(16),
            Eui(octets) => Some(usize::from(octets)),
            _ => None,
        }
    }

    /// Octets that the field takes at the start of `data`; `None` if it is not one.
    fn measure(self, data: &[u8]) -> Option<usize> {
        if let Some(octets) = self.octets() {
            return (data.len() >= octets).then_some(octets);
        }
        let prefixed = || {
            let octets = 1 + usize::from(*data.first()?);
            (data.len() >= octets).then_some(octets)
        };
        let rest = |is_right: bool| is_right.then_some(data.len());
        match self {
            Name | Lower => wire_len(data),
            Str | HexLen => prefixed(),
            Base32Len => prefixed().filter(|octets| *octets > 1),
            Strs => {
                let mut at = 0;
                while at < data.len() {
                    at += 1 + usize::from(*data.get(at)?);
                }
                (at == data.len() && at > 0).then_some(at)
            }
            Types => rest(odd::is_bitmap(data)),
            Apl => rest(odd::is_apl(data)),
            SvcParams => rest(odd::is_svc_params(data)),
            IpsecKey => rest(odd::ipseckey(data).is_some()),
            Hip => rest(odd::hip(data).is_some()),
            // Protocol and bitmap of services: 65,536 bits at most.
            Wks => rest((1..=1 + 8192).contains(&data.len())),
            Nsap => rest(!data.is_empty()),
            _ => rest(true),
        }
    }
}

/// Whether uncompressed data is right for its type; data of types that are not known always is.
pub fn is_right(rtype: Rtype, rdata: &[u8]) -> bool {
    if rdata.len() > usize::from(u16::MAX) {
        return false;
    }
    let Some(fields) = layout(rtype) else {
        return true;
    };
    let mut rest = rdata;
    for field in fields {
        match field.measure(rest).and_then(|octets| rest.get(octets..)) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Takes the data of a record out of a message, names uncompressed and in the case that zones keep them, if it is right for its type.
/// RFC 3597 §4: names in the data of later types are not compressed, but those that old servers do compress are read all the same.
pub fn from_message(message: &[u8], record: &RecordView, out: &mut Vec<u8>) -> bool {
    out.clear();
    let (start, end) = (record.rdata.start, record.rdata.end);
    let fields = layout(record.rtype).unwrap_or(&[]);
    let mut at = start;
    for field in fields {
        match field {
            Name | Lower => {
                let mut name = NameBuf::new();
                // A name may not go past the data it is in, but for where its pointers lead.
                match expand_name(message, at, &mut name) {
                    Ok(behind) if behind <= end => at = behind,
                    _ => return false,
                }
                if *field == Lower {
                    name.make_lowercase();
                }
                out.extend_from_slice(name.as_wire());
            }
            field => {
                let Some(data) = message.get(at..end) else {
                    return false;
                };
                let Some(octets) = field.measure(data) else {
                    return false;
                };
                out.extend_from_slice(data.get(..octets).unwrap_or_default());
                at += octets;
            }
        }
    }
    match message.get(at..end) {
        Some(rest) if fields.is_empty() || rest.is_empty() => out.extend_from_slice(rest),
        _ => return false,
    }
    is_right(record.rtype, out)
}

/// DNSSEC algorithms (IANA "DNS Security Algorithm Numbers").
const ALGORITHMS: &[(&str, u16)] = &[
    ("DELETE", 0),
    ("RSAMD5", 1),
    ("DH", 2),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("DSA-NSEC3-SHA1", 6),
    ("RSASHA1-NSEC3-SHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECC-GOST", 12),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("INDIRECT", 252),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];

/// Certificate types (RFC 4398 §2.1).
const CERT_TYPES: &[(&str, u16)] = &[
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];
