//! Data from text: each field of a type reads its words.

use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXUPPER_PERMISSIVE};

use super::Field::{self, *};
use super::{ALGORITHMS, CERT_TYPES, is_right, layout, odd};
use crate::kit::authority::master::lexer::Word;
use crate::kit::authority::master::{Place, Words};
use crate::kit::wire::{NameBuf, Rtype};

/// Where and why a word will not do.
pub(super) type Wrong = (Place, String);

/// Octets of a character string (RFC 1035 §3.3).
const STRING_OCTETS_MAX: usize = 255;
/// The longest TTL (RFC 2181 §8), in seconds; also what SOA's periods may have.
const PERIOD_MAX: u64 = i32::MAX as u64;

/// Reads the data of a record of this type; `out` is empty.
pub(in super::super) fn parse(
    rtype: Rtype,
    words: &mut Words<'_, '_>,
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let mut first = words.next()?;
    if let Some(word) = first
        && !word.quoted
        && word.text == b"\\#"
    {
        return generic(rtype, words, out);
    }
    let Some(fields) = layout(rtype) else {
        let what = format!("the data of {rtype} is written `\\# LENGTH HEX` (RFC 3597)");
        return Err((words.place(), what));
    };
    for field in fields {
        read(*field, &mut first, words, origin, out)?;
    }
    if let Some(word) = first {
        let what = format!("{} is one word too many", word.show());
        return Err((word.place, what));
    }
    Ok(())
}

/// RFC 3597 §5: `\# 4 C0000201`.
fn generic(rtype: Rtype, words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let length = words.need("the length of the data")?;
    let octets: u16 = number(&length, "a length in octets")?;
    hex_rest(None, words, out)?;
    if out.len() != usize::from(octets) {
        let what = format!("{octets} octets are said to come, {} do", out.len());
        return Err((length.place, what));
    }
    if !is_right(rtype, out) {
        return Err((
            length.place,
            format!("this is not what the data of {rtype} looks like"),
        ));
    }
    Ok(())
}

/// One field. `first` is a word that has been read already.
fn read<'t>(
    field: Field,
    first: &mut Option<Word<'t>>,
    words: &mut Words<'_, 't>,
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    match field {
        Strs => {
            let mut any = false;
            while let Some(word) = take(first, words)? {
                string(&word, out)?;
                any = true;
            }
            if !any {
                return Err((
                    words.place(),
                    "a text is missing behind this; an empty one is `\"\"`".into(),
                ));
            }
            return Ok(());
        }
        Hex => return hex_rest(first.take(), words, out),
        Base64 => return base64_rest(first.take(), words, out),
        Types => return odd::read_types(first.take(), words, out),
        Apl => return odd::read_apl(first.take(), words, out),
        SvcParams => return odd::read_svc_params(first.take(), words, out),
        Loc => return odd::read_loc(first.take(), words, out),
        IpsecKey => return odd::read_ipseckey(first.take(), words, origin, out),
        Hip => return odd::read_hip(first.take(), words, origin, out),
        Wks => return odd::read_wks(first.take(), words, out),
        _ => {}
    }
    let word = match take(first, words)? {
        Some(word) => word,
        None => {
            return Err((
                words.place(),
                format!("{} is missing behind this", what(field)),
            ));
        }
    };
    match field {
        U8 => out.push(number(&word, what(field))?),
        U16 => out.extend_from_slice(&number::<u16>(&word, what(field))?.to_be_bytes()),
        U32 => out.extend_from_slice(&number::<u32>(&word, what(field))?.to_be_bytes()),
        Period => out.extend_from_slice(&period(&word)?.to_be_bytes()),
        Time => out.extend_from_slice(&time(&word)?.to_be_bytes()),
        Ip4 => out.extend_from_slice(&ip4(&word)?.octets()),
        Ip6 => out.extend_from_slice(&parsed::<Ipv6Addr>(&word, what(field))?.octets()),
        Name | Lower => {
            let mut name = NameBuf::new();
            self::name(&word, origin, &mut name)?;
            if field == Lower {
                name.make_lowercase();
            }
            out.extend_from_slice(name.as_wire());
        }
        Str => string(&word, out)?,
        Text => unescape(&word, out)?,
        Type => {
            let rtype = std::str::from_utf8(word.text).ok().and_then(Rtype::parse);
            let rtype = rtype.ok_or_else(|| wrong(&word, what(field)))?;
            out.extend_from_slice(&rtype.0.to_be_bytes());
        }
        Algorithm => {
            let number = mnemonic(&word, ALGORITHMS, what(field))?;
            out.push(u8::try_from(number).map_err(|_| wrong(&word, what(field)))?);
        }
        CertType => {
            let number = mnemonic(&word, CERT_TYPES, what(field))?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        field => octets(field, &word, out)?,
    }
    Ok(())
}

/// Fields that are octets in some notation, in one word.
fn octets(field: Field, word: &Word<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    match field {
        HexLen => {
            let start = out.len();
            out.push(0);
            if word.text != b"-" {
                hex(word, out)?;
            }
            set_length(start, word, out)?;
        }
        Base32Len => {
            let start = out.len();
            out.push(0);
            let upper = word.text.to_ascii_uppercase();
            let octets = BASE32HEX_NOPAD.decode(&upper);
            out.extend_from_slice(&octets.map_err(|_| wrong(word, "base32hex"))?);
            set_length(start, word, out)?;
        }
        Eui(octets) => {
            let digits: Vec<&[u8]> = word.text.split(|octet| *octet == b'-').collect();
            if digits.len() != usize::from(octets) || digits.iter().any(|two| two.len() != 2) {
                return Err(wrong(word, what(field)));
            }
            hex_digits(word, &digits.concat(), out)?;
        }
        Locator => {
            let groups: Vec<&[u8]> = word.text.split(|octet| *octet == b':').collect();
            if groups.len() != 4 {
                return Err(wrong(word, what(field)));
            }
            for group in groups {
                let text = std::str::from_utf8(group).unwrap_or_default();
                let is_hex = (1..=4).contains(&text.len()) && !text.starts_with('+');
                let number = u16::from_str_radix(text, 16).ok().filter(|_| is_hex);
                let number = number.ok_or_else(|| wrong(word, what(field)))?;
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Nsap => {
            let digits = word.text.get(2..).unwrap_or_default();
            if !word
                .text
                .get(..2)
                .unwrap_or_default()
                .eq_ignore_ascii_case(b"0x")
            {
                return Err(wrong(word, what(field)));
            }
            let digits: Vec<u8> = digits
                .iter()
                .copied()
                .filter(|octet| *octet != b'.')
                .collect();
            hex_digits(word, &digits, out)?;
        }
        // All others have been read.
        _ => {}
    }
    Ok(())
}

/// What a field is called where it is missing or wrong.
fn what(field: Field) -> &'static str {
    match field {
        U8 => "a number from 0 to 255",
        U16 => "a number from 0 to 65535",
        U32 => "a number from 0 to 4294967295",
        Period => "a time such as 3600 or 1h",
        Time => "a time such as 20240517120000",
        Ip4 => "an IPv4 address",
        Ip6 => "an IPv6 address",
        Name | Lower => "a name",
        Str | Strs | Text => "a text",
        Hex | HexLen => "hexadecimal digits",
        Base32Len => "base32hex",
        Base64 => "base64",
        Type | Types => "a type",
        Algorithm => "an algorithm, as number or mnemonic",
        CertType => "a certificate type, as number or mnemonic",
        Eui(6) => "six octets such as 00-00-5e-00-53-2a",
        Eui(_) => "eight octets such as 00-00-5e-ef-10-00-00-2a",
        Locator => "four groups such as 2001:db8:1140:1000",
        Loc => "a place such as 52 22 23.000 N 4 53 32.000 E -2.00m",
        Apl => "a network such as 1:192.0.2.0/24",
        SvcParams => "a parameter such as alpn=h2",
        IpsecKey => "a gateway type, an algorithm, a gateway and a key",
        Hip => "an algorithm, a tag, a key and servers",
        Nsap => "hexadecimal digits with 0x before them",
        Wks => "a protocol and ports",
    }
}

pub(super) fn wrong(word: &Word<'_>, what: &str) -> Wrong {
    (
        word.place,
        format!("{what} stands here, not {}", word.show()),
    )
}

/// The word that has been read already, or the next one.
pub(super) fn take<'t>(
    first: &mut Option<Word<'t>>,
    words: &mut Words<'_, 't>,
) -> Result<Option<Word<'t>>, Wrong> {
    match first.take() {
        Some(word) => Ok(Some(word)),
        None => words.next(),
    }
}

pub(super) fn number<T: std::str::FromStr>(word: &Word<'_>, what: &str) -> Result<T, Wrong> {
    // Rust would take a plus sign.
    match word.text.iter().all(u8::is_ascii_digit) {
        true => parsed(word, what),
        false => Err(wrong(word, what)),
    }
}

fn parsed<T: std::str::FromStr>(word: &Word<'_>, what: &str) -> Result<T, Wrong> {
    std::str::from_utf8(word.text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong(word, what))
}

/// Dotted decimal; by hand, since most records of large zones are addresses.
fn ip4(word: &Word<'_>) -> Result<Ipv4Addr, Wrong> {
    let mut octets = [0_u8; 4];
    let mut parts = word.text.split(|octet| *octet == b'.');
    for octet in &mut octets {
        let part = parts.next().unwrap_or_default();
        let digits = part.iter().all(u8::is_ascii_digit);
        let value = part.iter().take(4).fold(0_u32, |value, digit| {
            value * 10 + u32::from(digit.wrapping_sub(b'0'))
        });
        let is_right = digits && (1..=3).contains(&part.len()) && value <= 255;
        if !is_right || (part.len() > 1 && part.first() == Some(&b'0')) {
            return Err(wrong(word, "an IPv4 address"));
        }
        *octet = value as u8;
    }
    match parts.next() {
        None => Ok(Ipv4Addr::from(octets)),
        Some(_) => Err(wrong(word, "an IPv4 address")),
    }
}

fn mnemonic(word: &Word<'_>, table: &[(&str, u16)], what: &str) -> Result<u16, Wrong> {
    let known = table
        .iter()
        .find(|(name, _)| word.text.eq_ignore_ascii_case(name.as_bytes()));
    match known {
        Some((_, number)) => Ok(*number),
        None => number(word, what),
    }
}

/// Seconds: a number, or numbers with units (`1h30m`), up to 2147483647.
pub(in super::super) fn period(word: &Word<'_>) -> Result<u32, Wrong> {
    let not_one = || wrong(word, what(Period));
    let (mut total, mut value, mut has_digit, mut has_unit) = (0_u64, 0_u64, false, false);
    for octet in word.text {
        if octet.is_ascii_digit() {
            value = (value * 10 + u64::from(octet - b'0')).min(1 << 40);
            has_digit = true;
            continue;
        }
        let unit = match octet.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return Err(not_one()),
        };
        if !has_digit {
            return Err(not_one());
        }
        total = (total + value * unit).min(1 << 40);
        (value, has_digit, has_unit) = (0, false, true);
    }
    if word.quoted || !has_digit && !has_unit {
        return Err(not_one());
    }
    total += value;
    match total <= PERIOD_MAX {
        true => Ok(total as u32),
        false => Err((
            word.place,
            format!(
                "at most {PERIOD_MAX} seconds stand here, not {}",
                word.show()
            ),
        )),
    }
}

/// RFC 4034 §3.2: `YYYYMMDDHHmmSS` in UTC, or seconds since 1970, modulo 2^32.
fn time(word: &Word<'_>) -> Result<u32, Wrong> {
    if word.text.len() != 14 {
        return number(word, what(Time));
    }
    let digits: u64 = number(word, what(Time))?;
    let part = |divisor: u64, modulus: u64| digits / divisor % modulus;
    let (year, month, day) = (
        part(10_000_000_000, 10_000),
        part(100_000_000, 100),
        part(1_000_000, 100),
    );
    let (hour, minute, second) = (part(10_000, 100), part(100, 100), part(1, 100));
    let is_right = (1970..=2500).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !is_right {
        return Err(wrong(word, what(Time)));
    }
    let days = days_before(year as i64, month as i64) + day as i64 - 1;
    let seconds = days as u64 * 86_400 + hour * 3600 + minute * 60 + second;
    Ok(seconds as u32)
}

/// Days from 1970 to the first of a month (the calendar counted from March, so that leap days come last).
pub(super) fn days_before(year: i64, month: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap = year / 4 - year / 100 + year / 400;
    365 * year + leap + (153 * month + 2) / 5 - 719_468
}

//--- Octets ----------------------------------------------------------------------------------------

/// A character string with its length.
fn string(word: &Word<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let start = out.len();
    out.push(0);
    unescape(word, out)?;
    if out.len() - start - 1 > STRING_OCTETS_MAX {
        let octets = out.len() - start - 1;
        let what = format!(
            "a text has at most {STRING_OCTETS_MAX} octets, this one {octets}: write it as several, \"…\" \"…\""
        );
        return Err((word.place, what));
    }
    set_length(start, word, out)
}

pub(super) fn set_length(start: usize, word: &Word<'_>, out: &mut [u8]) -> Result<(), Wrong> {
    let octets = out.len() - start - 1;
    let length = u8::try_from(octets).map_err(|_| {
        let what = format!("at most 255 octets stand here, not {octets}");
        (word.place, what)
    })?;
    if let Some(place) = out.get_mut(start) {
        *place = length;
    }
    Ok(())
}

/// A word's octets, `\DDD` and `\X` read.
pub(super) fn unescape(word: &Word<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    if !word.text.contains(&b'\\') {
        out.extend_from_slice(word.text);
        return Ok(());
    }
    let mut rest = word.text.iter().copied();
    while let Some(octet) = rest.next() {
        match octet {
            b'\\' => out.push(escaped(word, &mut rest)?),
            octet => out.push(octet),
        }
    }
    Ok(())
}

/// What stands behind a backslash.
fn escaped(word: &Word<'_>, rest: &mut impl Iterator<Item = u8>) -> Result<u8, Wrong> {
    let bad = || {
        let what =
            "a backslash is followed by three digits up to 255, or by the character it protects";
        (word.place, what.to_owned())
    };
    let first = rest.next().ok_or_else(bad)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit).ok_or_else(bad)?;
        value = value * 10 + u32::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| bad())
}

/// A name; one without a last dot is within the origin, `@` is the origin.
pub(in super::super) fn name(
    word: &Word<'_>,
    origin: &[u8],
    out: &mut NameBuf,
) -> Result<(), Wrong> {
    let failed = |error: crate::kit::wire::name::NameError| {
        (word.place, format!("{error}, in {}", word.show()))
    };
    out.clear();
    if word.text == b"@" && !word.quoted {
        return out.extend(origin).map_err(failed);
    }
    if word.text == b"." {
        return out.push(0).map_err(failed);
    }
    if !word.text.contains(&b'\\') {
        let (text, is_absolute) = match word.text.strip_suffix(b".") {
            Some(text) => (text, true),
            None => (word.text, false),
        };
        for label in text.split(|octet| *octet == b'.') {
            out.push_label(label).map_err(failed)?;
        }
        return match is_absolute {
            true => out.push(0),
            false => out.extend(origin),
        }
        .map_err(failed);
    }
    let mut label = NameBuf::new();
    let mut rest = word.text.iter().copied();
    let mut is_open = false;
    while let Some(octet) = rest.next() {
        is_open = true;
        match octet {
            b'.' => {
                out.push_label(label.as_wire()).map_err(failed)?;
                label.clear();
                is_open = false;
            }
            b'\\' => label.push(escaped(word, &mut rest)?).map_err(failed)?,
            octet => label.push(octet).map_err(failed)?,
        }
    }
    match is_open {
        true => out
            .push_label(label.as_wire())
            .and_then(|()| out.extend(origin)),
        false => out.push(0),
    }
    .map_err(failed)
}

pub(super) fn hex(word: &Word<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    hex_digits(word, word.text, out)
}

fn hex_digits(word: &Word<'_>, digits: &[u8], out: &mut Vec<u8>) -> Result<(), Wrong> {
    let octets = HEXUPPER_PERMISSIVE.decode(digits);
    out.extend_from_slice(
        &octets.map_err(|_| wrong(word, "an even number of hexadecimal digits"))?,
    );
    Ok(())
}

/// Hexadecimal in as many words as one likes.
fn hex_rest<'t>(
    first: Option<Word<'t>>,
    words: &mut Words<'_, 't>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let (digits, word) = joined(first, words)?;
    match word {
        Some(word) => hex_digits(&word, &digits, out),
        None => Ok(()),
    }
}

pub(super) fn base64_rest<'t>(
    first: Option<Word<'t>>,
    words: &mut Words<'_, 't>,
    out: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let (digits, word) = joined(first, words)?;
    let Some(word) = word else {
        return Err((words.place(), "base64 is missing behind this".into()));
    };
    // RFC 8078 §4: a deleted key is a single zero, which some write as `0` and some as `AA==`.
    if digits == b"0" {
        out.push(0);
        return Ok(());
    }
    let octets = BASE64.decode(&digits);
    out.extend_from_slice(&octets.map_err(|_| wrong(&word, "base64"))?);
    Ok(())
}

/// The rest of the words as one, and the first of them.
fn joined<'t>(
    first: Option<Word<'t>>,
    words: &mut Words<'_, 't>,
) -> Result<(Vec<u8>, Option<Word<'t>>), Wrong> {
    let (mut digits, mut next, mut one) = (Vec::new(), first, None);
    while let Some(word) = take(&mut next, words)? {
        digits.extend_from_slice(word.text);
        one.get_or_insert(word);
    }
    Ok((digits, one))
}
