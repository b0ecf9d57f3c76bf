//! Data as text, so that it reads again as what it was.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXUPPER};

use super::Field::{self, *};
use super::text::days_before;
use super::{ALGORITHMS, CERT_TYPES, is_right, layout, odd};
use crate::kit::wire::{Rtype, name};

/// Prints data as a master file has it; what is not right for its type in the generic form (RFC 3597 §5).
pub fn display(rtype: Rtype, rdata: &[u8]) -> Display<'_> {
    Display { rtype, rdata }
}

/// See [`display`].
pub struct Display<'a> {
    rtype: Rtype,
    rdata: &'a [u8],
}

impl fmt::Display for Display<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = layout(self.rtype).filter(|_| is_right(self.rtype, self.rdata));
        let Some(fields) = fields.filter(|fields| fields.iter().all(|field| has_text(*field)))
        else {
            write!(f, "\\# {}", self.rdata.len())?;
            return match self.rdata {
                [] => Ok(()),
                rdata => write!(f, " {}", HEXUPPER.encode(rdata)),
            };
        };
        let mut rest = self.rdata;
        for (number, field) in fields.iter().enumerate() {
            let octets = field.measure(rest).unwrap_or(rest.len());
            let (data, behind) = rest.split_at_checked(octets).unwrap_or((rest, &[]));
            rest = behind;
            let mut text = String::new();
            print(*field, data, &mut text)?;
            if number > 0 && !text.is_empty() {
                f.write_char(' ')?;
            }
            f.write_str(&text)?;
        }
        Ok(())
    }
}

/// Types whose text is not worth its code: they print in the generic form.
fn has_text(field: Field) -> bool {
    !matches!(field, Loc | Apl | IpsecKey | Hip | Wks | Nsap)
}

fn print(field: Field, data: &[u8], f: &mut String) -> fmt::Result {
    let number = data
        .iter()
        .take(8)
        .fold(0_u64, |number, octet| number << 8 | u64::from(*octet));
    match field {
        U8 | U16 | U32 | Period | Algorithm | CertType => {
            let table = match field {
                CertType => CERT_TYPES,
                _ => ALGORITHMS,
            };
            // Algorithms are printed as numbers, as everybody does; certificate types by name.
            let known = table.iter().find(|(_, known)| u64::from(*known) == number);
            match known {
                Some((name, _)) if field == CertType => f.write_str(name),
                _ => write!(f, "{number}"),
            }
        }
        Time => time(number as i64, f),
        Ip4 => write!(f, "{}", Ipv4Addr::from_bits(number as u32)),
        Ip6 => {
            let octets: [u8; 16] = data.try_into().unwrap_or_default();
            write!(f, "{}", Ipv6Addr::from(octets))
        }
        Name | Lower => write!(f, "{}", name::display(data)),
        Str => quoted(data.get(1..).unwrap_or_default(), f),
        Strs => {
            let mut rest = data;
            while let Some((len, behind)) = rest.split_first() {
                let (string, behind) = behind
                    .split_at_checked(usize::from(*len))
                    .unwrap_or((behind, &[]));
                quoted(string, f)?;
                rest = behind;
                if !rest.is_empty() {
                    f.write_char(' ')?;
                }
            }
            Ok(())
        }
        Text => quoted(data, f),
        Hex => f.write_str(&HEXUPPER.encode(data)),
        HexLen => match data.get(1..) {
            None | Some([]) => f.write_char('-'),
            Some(octets) => f.write_str(&HEXUPPER.encode(octets)),
        },
        Base32Len => f.write_str(&BASE32HEX_NOPAD.encode(data.get(1..).unwrap_or_default())),
        Base64 => f.write_str(&BASE64.encode(data)),
        Type => write!(f, "{}", Rtype(number as u16)),
        Types => {
            for (at, rtype) in odd::types(data).enumerate() {
                if at > 0 {
                    f.write_char(' ')?;
                }
                write!(f, "{rtype}")?;
            }
            Ok(())
        }
        Eui(_) => {
            for (at, octet) in data.iter().enumerate() {
                let hyphen = if at > 0 { "-" } else { "" };
                write!(f, "{hyphen}{octet:02x}")?;
            }
            Ok(())
        }
        Locator => {
            for (at, group) in data.chunks(2).enumerate() {
                let colon = if at > 0 { ":" } else { "" };
                let group = group
                    .iter()
                    .fold(0_u16, |number, octet| number << 8 | u16::from(*octet));
                write!(f, "{colon}{group:x}")?;
            }
            Ok(())
        }
        SvcParams => svc_params(data, f),
        Loc | Apl | IpsecKey | Hip | Wks | Nsap => Ok(()),
    }
}

fn svc_params(data: &[u8], f: &mut String) -> fmt::Result {
    let mut rest = data;
    let mut first = true;
    while let Some((head, behind)) = rest.split_first_chunk::<4>() {
        let key = u16::from_be_bytes([head[0], head[1]]);
        let octets = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, behind) = behind.split_at_checked(octets).unwrap_or((behind, &[]));
        rest = behind;
        if !first {
            f.write_char(' ')?;
        }
        first = false;
        // By number and as octets: always right, whatever the key.
        match odd::KEYS.iter().find(|(_, known)| *known == key) {
            Some((name, 1 | 3 | 4 | 6)) => {
                write!(f, "{name}=")?;
                svc_value(key, value, f)?;
            }
            Some((name, 2 | 8)) => f.write_str(name)?,
            Some((name, 0)) => {
                let keys = value.chunks(2).map(|two| {
                    let key = two
                        .iter()
                        .fold(0_u16, |number, octet| number << 8 | u16::from(*octet));
                    let known = odd::KEYS.iter().find(|(_, known)| *known == key);
                    known.map_or_else(|| format!("key{key}"), |(name, _)| (*name).to_owned())
                });
                write!(f, "{name}={}", keys.collect::<Vec<_>>().join(","))?;
            }
            Some((name, 5)) => write!(f, "{name}={}", BASE64.encode(value))?,
            _ if value.is_empty() => write!(f, "key{key}")?,
            _ => {
                write!(f, "key{key}=")?;
                quoted(value, f)?;
            }
        }
    }
    Ok(())
}

fn svc_value(key: u16, value: &[u8], f: &mut String) -> fmt::Result {
    match key {
        1 => {
            let (mut rest, mut plain) = (value, Vec::new());
            while let Some((len, behind)) = rest.split_first() {
                let (item, behind) = behind
                    .split_at_checked(usize::from(*len))
                    .unwrap_or((behind, &[]));
                rest = behind;
                if !plain.is_empty() {
                    plain.push(b',');
                }
                for octet in item {
                    if matches!(octet, b',' | b'\\') {
                        plain.push(b'\\');
                    }
                    plain.push(*octet);
                }
            }
            quoted(&plain, f)
        }
        3 => write!(
            f,
            "{}",
            value
                .iter()
                .fold(0_u16, |number, octet| number << 8 | u16::from(*octet))
        ),
        4 => {
            let ips = value.chunks(4).map(|octets| {
                let octets: [u8; 4] = octets.try_into().unwrap_or_default();
                Ipv4Addr::from(octets).to_string()
            });
            f.write_str(&ips.collect::<Vec<_>>().join(","))
        }
        _ => {
            let ips = value.chunks(16).map(|octets| {
                let octets: [u8; 16] = octets.try_into().unwrap_or_default();
                Ipv6Addr::from(octets).to_string()
            });
            f.write_str(&ips.collect::<Vec<_>>().join(","))
        }
    }
}

/// Text in quotes.
fn quoted(text: &[u8], f: &mut String) -> fmt::Result {
    f.write_char('"')?;
    for octet in text {
        match octet {
            b'"' | b'\\' => write!(f, "\\{}", char::from(*octet))?,
            b' '..=b'~' => f.write_char(char::from(*octet))?,
            _ => write!(f, "\\{octet:03}")?,
        }
    }
    f.write_char('"')
}

/// `YYYYMMDDHHmmSS` in UTC.
fn time(seconds: i64, f: &mut String) -> fmt::Result {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970 + days / 366;
    while days_before(year + 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_before(year, month + 1) <= days {
        month += 1;
    }
    let day = days - days_before(year, month) + 1;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    write!(
        f,
        "{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}"
    )
}
