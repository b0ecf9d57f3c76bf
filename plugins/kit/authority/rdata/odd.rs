//! Fields that are small languages of their own: type bitmaps, APL, SVCB's parameters, LOC, IPSECKEY, HIP, WKS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::text::{Wrong, base64_rest, hex, name, number, set_length, take, unescape, wrong};
use crate::kit::authority::master::Words;
use crate::kit::authority::master::lexer::Word;
use crate::kit::wire::name::wire_len;
use crate::kit::wire::{NameBuf, Rtype};

type Maybe<'t> = Option<Word<'t>>;

//--- Type bitmaps (RFC 4034 §4.1.2) ------------------------------------------------------------------

/// Writes types as a bitmap; they are sorted.
pub(in super::super) fn write_types(types: &[u16], out: &mut Vec<u8>) {
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0_u8; 32];
        let mut octets = 0;
        for rtype in window {
            let bit = usize::from(rtype & 0xff);
            if let Some(octet) = bits.get_mut(bit / 8) {
                *octet |= 0x80 >> (bit % 8);
            }
            octets = octets.max(bit / 8 + 1);
        }
        let number = window.first().map_or(0, |rtype| rtype >> 8);
        out.extend_from_slice(&[number as u8, octets as u8]);
        out.extend_from_slice(bits.get(..octets).unwrap_or_default());
    }
}

/// The types in a bitmap.
pub(in super::super) fn types(data: &[u8]) -> impl Iterator<Item = Rtype> {
    let mut rest = data;
    let windows = std::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<2>()?;
        let (bits, behind) = behind.split_at_checked(usize::from(head[1]))?;
        rest = behind;
        Some((u16::from(head[0]) << 8, bits))
    });
    windows.flat_map(|(window, bits)| {
        (0..bits.len() * 8)
            .filter(|bit| {
                bits.get(bit / 8)
                    .is_some_and(|octet| octet & 0x80 >> (bit % 8) != 0)
            })
            .map(move |bit| Rtype(window | bit as u16))
    })
}

pub(super) fn is_bitmap(data: &[u8]) -> bool {
    let (mut rest, mut last) = (data, None);
    while let Some((head, behind)) = rest.split_first_chunk::<2>() {
        let (window, octets) = (head[0], usize::from(head[1]));
        if !(1..=32).contains(&octets) || last.is_some_and(|last| last >= window) {
            return false;
        }
        last = Some(window);
        match behind.get(octets..) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

pub(super) fn read_types<'t>(
    first: Maybe<'t>,
    words: &mut Words<'_, 't>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let (mut types, mut next) = (Vec::new(), first);
    while let Some(word) = take(&mut next, words)? {
        let rtype = std::str::from_utf8(word.text).ok().and_then(Rtype::parse);
        types.push(rtype.ok_or_else(|| wrong(&word, "a type"))?.0);
    }
    types.sort_unstable();
    types.dedup();
    write_types(&types, out);
    Ok(())
}

//--- APL (RFC 3123) ----------------------------------------------------------------------------------

pub(super) fn is_apl(data: &[u8]) -> bool {
    let mut rest = data;
    while let Some((head, behind)) = rest.split_first_chunk::<4>() {
        let (prefix, octets) = (head[2], usize::from(head[3] & 0x7f));
        let (prefix_max, octets_max) = match [head[0], head[1]] {
            [0, 1] => (32, 4),
            [0, 2] => (128, 16),
            _ => (255, 127),
        };
        if prefix > prefix_max || octets > octets_max {
            return false;
        }
        match behind.get(octets..) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

pub(super) fn read_apl<'t>(
    first: Maybe<'t>,
    words: &mut Words<'_, 't>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let mut next = first;
    while let Some(word) = take(&mut next, words)? {
        let not_one = || {
            wrong(
                &word,
                "a network such as 1:192.0.2.0/24 or !2:2001:db8::/32",
            )
        };
        let text = std::str::from_utf8(word.text).map_err(|_| not_one())?;
        let (is_negated, text) = match text.strip_prefix('!') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (family, network) = text.split_once(':').ok_or_else(not_one)?;
        let (address, prefix) = network.split_once('/').ok_or_else(not_one)?;
        let prefix: u8 = prefix.parse().map_err(|_| not_one())?;
        let address: IpAddr = address.parse().map_err(|_| not_one())?;
        let (number, prefix_max, octets) = match address {
            IpAddr::V4(ip) => (1, 32, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, 128, ip.octets().to_vec()),
        };
        if family != number.to_string() || prefix > prefix_max {
            return Err(not_one());
        }
        // RFC 3123 §4: zeros at the end are left out.
        let used = octets
            .iter()
            .rposition(|octet| *octet != 0)
            .map_or(0, |at| at + 1);
        out.extend_from_slice(&[0, number, prefix, used as u8 | u8::from(is_negated) << 7]);
        out.extend_from_slice(octets.get(..used).unwrap_or_default());
    }
    Ok(())
}

//--- SVCB's parameters (RFC 9460 §2) -----------------------------------------------------------------

/// Keys with their names (RFC 9460 §14.3.2, RFC 9461, RFC 9540).
pub(super) const KEYS: &[(&str, u16)] = &[
    ("mandatory", 0),
    ("alpn", 1),
    ("no-default-alpn", 2),
    ("port", 3),
    ("ipv4hint", 4),
    ("ech", 5),
    ("ipv6hint", 6),
    ("dohpath", 7),
    ("ohttp", 8),
];

pub(super) fn is_svc_params(data: &[u8]) -> bool {
    let (mut rest, mut last) = (data, None);
    while let Some((head, behind)) = rest.split_first_chunk::<4>() {
        let key = u16::from_be_bytes([head[0], head[1]]);
        let octets = usize::from(u16::from_be_bytes([head[2], head[3]]));
        // RFC 9460 §2.2: in order, each once.
        if last.is_some_and(|last| last >= key) {
            return false;
        }
        last = Some(key);
        match behind.split_at_checked(octets) {
            Some((value, behind)) if is_svc_value(key, value) => rest = behind,
            _ => return false,
        }
    }
    rest.is_empty()
}

fn is_svc_value(key: u16, value: &[u8]) -> bool {
    match key {
        0 => !value.is_empty() && value.len().is_multiple_of(2),
        1 => {
            let mut at = 0;
            while let Some(len) = value.get(at) {
                if *len == 0 {
                    return false;
                }
                at += 1 + usize::from(*len);
            }
            at == value.len() && at > 0
        }
        2 | 8 => value.is_empty(),
        3 => value.len() == 2,
        4 => !value.is_empty() && value.len().is_multiple_of(4),
        6 => !value.is_empty() && value.len().is_multiple_of(16),
        _ => true,
    }
}

/// The number of a parameter's name.
fn svc_key(name: &[u8]) -> Option<u16> {
    let known = KEYS.iter().find(|(known, _)| known.as_bytes() == name);
    known.map(|(_, key)| *key).or_else(|| {
        let digits = std::str::from_utf8(name.strip_prefix(b"key")?).ok()?;
        let is_plain = digits.bytes().all(|octet| octet.is_ascii_digit());
        digits.parse().ok().filter(|_| is_plain)
    })
}

pub(super) fn read_svc_params<'t>(
    first: Maybe<'t>,
    words: &mut Words<'_, 't>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let (mut params, mut next): (Vec<(u16, Vec<u8>)>, _) = (Vec::new(), first);
    while let Some(word) = take(&mut next, words)? {
        let (name, value) = match word.text.iter().position(|octet| *octet == b'=') {
            Some(at) => word.text.split_at(at),
            None => (word.text, &b""[..]),
        };
        let key = svc_key(name)
            .ok_or_else(|| wrong(&word, "a parameter such as alpn=h2 or key65333=\"…\""))?;
        if params.iter().any(|(other, _)| *other == key) {
            return Err((word.place, format!("{} stands here twice", word.show())));
        }
        // `alpn="h2,h3"` comes as two words: the quoted one follows at once.
        let value = match value {
            b"=" => words.next()?.filter(|next| next.quoted).ok_or_else(|| {
                (
                    word.place,
                    format!("a value is missing behind {}", word.show()),
                )
            })?,
            value => Word {
                text: value.get(1..).unwrap_or_default(),
                ..word
            },
        };
        let mut octets = Vec::new();
        svc_value(key, &value, &mut octets)?;
        if !is_svc_value(key, &octets) || octets.len() > usize::from(u16::MAX) {
            return Err(wrong(&word, "a parameter with a value that suits it"));
        }
        params.push((key, octets));
    }
    params.sort();
    for (key, value) in params {
        out.extend_from_slice(&key.to_be_bytes());
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        out.extend_from_slice(&value);
    }
    Ok(())
}

fn svc_value(key: u16, word: &Word<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut plain = Vec::new();
    unescape(word, &mut plain)?;
    let not_one = |what: &str| wrong(word, what);
    let items = |what: &'static str| -> Result<Vec<&str>, Wrong> {
        let text = std::str::from_utf8(&plain).map_err(|_| not_one(what))?;
        Ok(text.split(',').collect())
    };
    match key {
        0 => {
            let mut keys = Vec::new();
            for item in items("keys")? {
                keys.push(svc_key(item.as_bytes()).ok_or_else(|| not_one("keys"))?);
            }
            keys.sort_unstable();
            for key in keys {
                out.extend_from_slice(&key.to_be_bytes());
            }
        }
        1 => {
            // RFC 9460 §A.1: a comma in an item has a backslash of its own.
            let (mut item, mut octets) = (Vec::new(), plain.iter().copied());
            loop {
                match octets.next() {
                    Some(b'\\') => item.extend(octets.next()),
                    Some(octet) if octet != b',' => item.push(octet),
                    end => {
                        let start = out.len();
                        out.push(0);
                        out.extend_from_slice(&item);
                        set_length(start, word, out)?;
                        item.clear();
                        if end.is_none() {
                            break;
                        }
                    }
                }
            }
        }
        3 => {
            let port = Word {
                text: &plain,
                ..*word
            };
            out.extend_from_slice(&number::<u16>(&port, "a port")?.to_be_bytes());
        }
        4 => {
            for item in items("IPv4 addresses")? {
                let ip: Ipv4Addr = item.parse().map_err(|_| not_one("IPv4 addresses"))?;
                out.extend_from_slice(&ip.octets());
            }
        }
        5 => {
            let octets = data_encoding::BASE64.decode(&plain);
            out.extend_from_slice(&octets.map_err(|_| not_one("base64"))?);
        }
        6 => {
            for item in items("IPv6 addresses")? {
                let ip: Ipv6Addr = item.parse().map_err(|_| not_one("IPv6 addresses"))?;
                out.extend_from_slice(&ip.octets());
            }
        }
        _ => out.extend_from_slice(&plain),
    }
    Ok(())
}

//--- LOC (RFC 1876) ----------------------------------------------------------------------------------

pub(super) fn read_loc<'t>(
    first: Maybe<'t>,
    words: &mut Words<'_, 't>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let mut next = first;
    let mut angle = |sides: [&str; 2], degrees_max: u64, words: &mut Words<'_, 't>| {
        let mut milliseconds = 0;
        for (unit, max) in [(3_600_000, degrees_max), (60_000, 59), (1000, 59)] {
            let Some(word) = take(&mut next, words)? else {
                return Err((words.place(), "degrees are missing behind this".into()));
            };
            let side = sides
                .iter()
                .position(|side| word.text.eq_ignore_ascii_case(side.as_bytes()));
            if let Some(side) = side {
                return Ok((milliseconds, side));
            }
            let value = thousandths(word.text).filter(|value| *value / 1000 <= max);
            let value = value.filter(|value| unit == 1000 || value % 1000 == 0);
            let what = "degrees, minutes and seconds";
            milliseconds += value.ok_or_else(|| wrong(&word, what))? * unit / 1000;
        }
        let Some(word) = take(&mut next, words)? else {
            return Err((
                words.place(),
                format!("{} or {} is missing behind this", sides[0], sides[1]),
            ));
        };
        let side = sides
            .iter()
            .position(|side| word.text.eq_ignore_ascii_case(side.as_bytes()));
        let side = side.ok_or_else(|| wrong(&word, &format!("{} or {}", sides[0], sides[1])))?;
        Ok((milliseconds, side))
    };
    let latitude = angle(["N", "S"], 90, words)?;
    let longitude = angle(["E", "W"], 180, words)?;
    let altitude = words.need("an altitude such as 10m")?;
    let centimetres = metres(&altitude)?;
    // RFC 1876 §2: from 100,000 m below the reference on.
    let above = centimetres + 10_000_000;
    let above = u32::try_from(above).map_err(|_| wrong(&altitude, "an altitude"))?;
    let mut sizes = [0x12, 0x16, 0x13];
    for size in &mut sizes {
        match words.next()? {
            Some(word) => {
                *size = precision(metres(&word)?).ok_or_else(|| wrong(&word, "a size"))?
            }
            None => break,
        }
    }
    let coordinate = |(milliseconds, side): (u64, usize)| {
        let middle = 1_u32 << 31;
        match side {
            0 => middle.wrapping_add(milliseconds as u32),
            _ => middle.wrapping_sub(milliseconds as u32),
        }
    };
    out.push(0);
    out.extend_from_slice(&sizes);
    out.extend_from_slice(&coordinate(latitude).to_be_bytes());
    out.extend_from_slice(&coordinate(longitude).to_be_bytes());
    out.extend_from_slice(&above.to_be_bytes());
    Ok(())
}

/// A decimal number in thousandths.
fn thousandths(text: &[u8]) -> Option<u64> {
    decimal(text, 3)
}

/// A decimal number with at most `places` behind its point, in units of the last one.
fn decimal(text: &[u8], places: usize) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 12
        || part.len() > places
        || !is_digits(whole)
        || !is_digits(part)
    {
        return None;
    }
    format!("{whole}{part:0<places$}").parse().ok()
}

/// Metres with an `m` or without, in centimetres.
fn metres(word: &Word<'_>) -> Result<i64, Wrong> {
    let text = word
        .text
        .strip_suffix(b"m")
        .or(word.text.strip_suffix(b"M"));
    let text = text.unwrap_or(word.text);
    let (sign, text) = match text.strip_prefix(b"-") {
        Some(text) => (-1, text),
        None => (1, text),
    };
    let value = decimal(text, 2).filter(|value| *value <= 9_000_000_000);
    value
        .map(|value| sign * value as i64)
        .ok_or_else(|| wrong(word, "metres such as 10m"))
}

/// A size in centimetres as digit and power of ten.
fn precision(centimetres: i64) -> Option<u8> {
    let (mut value, mut power) = (centimetres, 0);
    while value > 9 {
        value /= 10;
        power += 1;
    }
    (value >= 0 && power <= 9).then_some((value as u8) << 4 | power)
}

//--- IPSECKEY (RFC 4025), HIP (RFC 8005), WKS (RFC 1035) -----------------------------------------------

/// Octets of the gateway behind IPSECKEY's gateway type and algorithm.
pub(super) fn ipseckey(data: &[u8]) -> Option<usize> {
    let (head, rest) = data.split_first_chunk::<2>()?;
    let octets = match head[0] {
        0 => 0,
        1 => 4,
        2 => 16,
        3 => wire_len(rest)?,
        _ => return None,
    };
    (rest.len() >= octets).then_some(octets)
}

pub(super) fn read_ipseckey<'t>(
    first: Maybe<'t>,
    words: &mut Words<'_, 't>,
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let mut next = first;
    let Some(word) = take(&mut next, words)? else {
        return Err((
            words.place(),
            "a gateway type is missing behind this".into(),
        ));
    };
    let gateway_type: u8 = number(&word, "a gateway type from 0 to 3")?;
    let word = words.need("an algorithm")?;
    let algorithm: u8 = number(&word, "an algorithm")?;
    out.extend_from_slice(&[gateway_type, algorithm]);
    let gateway = words.need("a gateway")?;
    let text = std::str::from_utf8(gateway.text).unwrap_or_default();
    match gateway_type {
        0 if text == "." => {}
        1 => {
            let ip: Ipv4Addr = text
                .parse()
                .map_err(|_| wrong(&gateway, "an IPv4 address"))?;
            out.extend_from_slice(&ip.octets());
        }
        2 => {
            let ip: Ipv6Addr = text
                .parse()
                .map_err(|_| wrong(&gateway, "an IPv6 address"))?;
            out.extend_from_slice(&ip.octets());
        }
        3 => {
            let mut target = NameBuf::new();
            name(&gateway, origin, &mut target)?;
            out.extend_from_slice(target.as_wire());
        }
        _ => return Err(wrong(&gateway, "a gateway of its type")),
    }
    match words.next()? {
        None => Ok(()),
        key => base64_rest(key, words, out),
    }
}

/// Octets of HIP's tag and key.
pub(super) fn hip(data: &[u8]) -> Option<(usize, usize)> {
    let (head, rest) = data.split_first_chunk::<4>()?;
    let (tag, key) = (
        usize::from(head[0]),
        usize::from(u16::from_be_bytes([head[2], head[3]])),
    );
    let mut servers = rest.get(tag + key..)?;
    while !servers.is_empty() {
        servers = servers.get(wire_len(servers)?..)?;
    }
    Some((tag, key))
}

pub(super) fn read_hip<'t>(
    first: Maybe<'t>,
    words: &mut Words<'_, 't>,
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let mut next = first;
    let Some(word) = take(&mut next, words)? else {
        return Err((words.place(), "an algorithm is missing behind this".into()));
    };
    let algorithm: u8 = number(&word, "an algorithm")?;
    let word = words.need("a tag in hexadecimal")?;
    let mut tag = Vec::new();
    hex(&word, &mut tag)?;
    let tag_octets =
        u8::try_from(tag.len()).map_err(|_| wrong(&word, "a tag of at most 255 octets"))?;
    let word = words.need("a key in base64")?;
    let key = data_encoding::BASE64
        .decode(word.text)
        .map_err(|_| wrong(&word, "base64"))?;
    let key_octets =
        u16::try_from(key.len()).map_err(|_| wrong(&word, "a key of at most 65535 octets"))?;
    out.extend_from_slice(&[tag_octets, algorithm]);
    out.extend_from_slice(&key_octets.to_be_bytes());
    out.extend_from_slice(&tag);
    out.extend_from_slice(&key);
    while let Some(word) = words.next()? {
        let mut server = NameBuf::new();
        name(&word, origin, &mut server)?;
        out.extend_from_slice(server.as_wire());
    }
    Ok(())
}

pub(super) fn read_wks<'t>(
    first: Maybe<'t>,
    words: &mut Words<'_, 't>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let mut next = first;
    let Some(word) = take(&mut next, words)? else {
        return Err((words.place(), "a protocol is missing behind this".into()));
    };
    out.push(match word.text {
        text if text.eq_ignore_ascii_case(b"tcp") => 6,
        text if text.eq_ignore_ascii_case(b"udp") => 17,
        _ => number(&word, "a protocol, as number, TCP or UDP")?,
    });
    let mut bits = Vec::new();
    while let Some(word) = words.next()? {
        let port: u16 = number(&word, "the number of a port")?;
        let at = usize::from(port) / 8;
        if bits.len() <= at {
            bits.resize(at + 1, 0);
        }
        if let Some(octet) = bits.get_mut(at) {
            *octet |= 0x80_u8 >> (port % 8);
        }
    }
    out.extend_from_slice(&bits);
    Ok(())
}
