//! Walks over a DNS message without decoding it.

use std::fmt;
use std::ops::Range;

use super::name::{LABEL_OCTETS_MAX, NAME_OCTETS_MAX, NameBuf};
use super::types::{Class, Rtype};

/// Octets of the fixed header (RFC 1035 §4.1.1).
pub const HEADER_OCTETS: usize = 12;
/// Compression pointers followed for one name, at most.
pub const POINTER_HOPS_MAX: usize = 127;

/// A section that holds records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Section 2.
    Answer,
    /// Section 3.
    Authority,
    /// Section 4.
    Additional,
}

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireError {
    /// It ends inside something.
    Short,
    /// A compression pointer that does not point backwards, or too many of them.
    BadPointer,
    /// A label type that does not exist, or a name over 255 octets.
    BadName,
    /// Not exactly one question.
    QuestionCount,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WireError::Short => "message ends early",
            WireError::BadPointer => "bad compression pointer",
            WireError::BadName => "bad domain name",
            WireError::QuestionCount => "not exactly one question",
        })
    }
}

impl std::error::Error for WireError {}

/// One record, by offsets into its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView {
    /// Where the owner name starts.
    pub start: usize,
    /// Where TYPE stands, behind the owner; the TTL is at `fixed + 4`, RDLENGTH at `fixed + 8`.
    pub fixed: usize,
    /// Its section.
    pub section: Section,
    /// Its type.
    pub rtype: Rtype,
    /// Its class.
    pub class: Class,
    /// Its TTL, in seconds, as written (the top bit is not judged).
    pub ttl: u32,
    /// Where its data is; the record ends with it.
    pub rdata: Range<usize>,
}

/// The question of a message with exactly one: end offset of its name, type, class, end of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionView {
    /// Behind the name; QTYPE stands here.
    pub name_end: usize,
    /// QTYPE.
    pub qtype: Rtype,
    /// QCLASS.
    pub qclass: Class,
    /// Behind the question section.
    pub end: usize,
}

/// Reads the question of a message that has exactly one. The name may not be compressed (it is the first).
pub fn question(message: &[u8]) -> Result<QuestionView, WireError> {
    let header = message.first_chunk::<HEADER_OCTETS>();
    let header = header.ok_or(WireError::Short)?;
    if header[4..6] != [0, 1] {
        return Err(WireError::QuestionCount);
    }
    let name_end = plain_name_end(message, HEADER_OCTETS)?;
    let fixed = message.get(name_end..).and_then(<[u8]>::first_chunk::<4>);
    let fixed = fixed.ok_or(WireError::Short)?;
    Ok(QuestionView {
        name_end,
        qtype: Rtype(u16::from_be_bytes([fixed[0], fixed[1]])),
        qclass: Class(u16::from_be_bytes([fixed[2], fixed[3]])),
        end: name_end + 4,
    })
}

/// Where the uncompressed name at `at` ends.
fn plain_name_end(message: &[u8], at: usize) -> Result<usize, WireError> {
    let mut end = at;
    loop {
        match message.get(end) {
            Some(0) => break,
            Some(&len) if usize::from(len) <= LABEL_OCTETS_MAX => end += 1 + usize::from(len),
            Some(len) if len & 0xc0 == 0xc0 => return Err(WireError::BadPointer),
            Some(_) => return Err(WireError::BadName),
            None => return Err(WireError::Short),
        }
    }
    if end - at >= NAME_OCTETS_MAX {
        return Err(WireError::BadName);
    }
    Ok(end + 1)
}

/// All records behind the question, in order; ends after the first error. A message without a question may have records too.
pub fn records(message: &[u8]) -> Result<Records<'_>, WireError> {
    let header = message.first_chunk::<HEADER_OCTETS>();
    let header = header.ok_or(WireError::Short)?;
    let at = match u16::from_be_bytes([header[4], header[5]]) {
        0 => HEADER_OCTETS,
        1 => question(message)?.end,
        _ => return Err(WireError::QuestionCount),
    };
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Ok(Records {
        message,
        at,
        left: [count(6), count(8), count(10)],
    })
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: [u16; 3],
}

impl Records<'_> {
    /// Where the next record starts; behind the last one, where the message should end.
    pub fn position(&self) -> usize {
        self.at
    }

    fn read(&mut self, section: Section) -> Result<RecordView, WireError> {
        let start = self.at;
        let fixed = skip_name(self.message, start)?;
        let bytes = self
            .message
            .get(fixed..)
            .and_then(<[u8]>::first_chunk::<10>);
        let bytes = bytes.ok_or(WireError::Short)?;
        let data = fixed + 10;
        let end = data + usize::from(u16::from_be_bytes([bytes[8], bytes[9]]));
        if end > self.message.len() {
            return Err(WireError::Short);
        }
        self.at = end;
        Ok(RecordView {
            start,
            fixed,
            section,
            rtype: Rtype(u16::from_be_bytes([bytes[0], bytes[1]])),
            class: Class(u16::from_be_bytes([bytes[2], bytes[3]])),
            ttl: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            rdata: data..end,
        })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<RecordView, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let (left, section) = self
            .left
            .iter_mut()
            .zip(sections)
            .find(|(left, _)| **left > 0)?;
        *left -= 1;
        let record = self.read(section);
        if record.is_err() {
            self.left = [0; 3];
        }
        Some(record)
    }
}

/// Where the name at `at` ends (behind its pointer if it is compressed); checks label types and the length up to there only.
pub fn skip_name(message: &[u8], at: usize) -> Result<usize, WireError> {
    let mut end = at;
    loop {
        match message.get(end) {
            Some(0) => break,
            Some(&len) if usize::from(len) <= LABEL_OCTETS_MAX => end += 1 + usize::from(len),
            Some(len) if len & 0xc0 == 0xc0 && end + 1 < message.len() => {
                end += 1;
                break;
            }
            Some(len) if len & 0xc0 == 0xc0 => return Err(WireError::Short),
            // RFC 6891 §5: the label types 01 and 10 are gone for good.
            Some(_) => return Err(WireError::BadName),
            None => return Err(WireError::Short),
        }
    }
    if end - at > NAME_OCTETS_MAX {
        return Err(WireError::BadName);
    }
    Ok(end + 1)
}

/// Expands the name at `at` into `out`, following at most [`POINTER_HOPS_MAX`] pointers, each backwards; returns where it ends.
pub fn expand_name(message: &[u8], at: usize, out: &mut NameBuf) -> Result<usize, WireError> {
    out.clear();
    walk_name(message, at, |labels| {
        out.extend(labels).map_err(|_| WireError::BadName)
    })
}

/// Like [`expand_name`], without the copy.
pub fn check_name(message: &[u8], at: usize) -> Result<usize, WireError> {
    let mut octets = 0;
    walk_name(message, at, |labels| {
        octets += labels.len();
        if octets > NAME_OCTETS_MAX {
            return Err(WireError::BadName);
        }
        Ok(())
    })
}

/// Hands out the labels of a name with their length octets, a run between pointers at a time, the root's zero last.
fn walk_name(
    message: &[u8],
    at: usize,
    mut run: impl FnMut(&[u8]) -> Result<(), WireError>,
) -> Result<usize, WireError> {
    // The start of the run: a pointer must lead before it, so that a walk always ends.
    let mut start = at;
    let mut end = at;
    let mut behind = None;
    let mut hops = 0;
    loop {
        let len = *message.get(end).ok_or(WireError::Short)?;
        match len {
            0 => {
                run(message.get(start..=end).ok_or(WireError::Short)?)?;
                return Ok(behind.unwrap_or(end + 1));
            }
            1..=63 => {
                end += 1 + usize::from(len);
                // One run longer than any name: stop before walking the whole message.
                if end - start > NAME_OCTETS_MAX {
                    return Err(WireError::BadName);
                }
            }
            0xc0.. => {
                let low = *message.get(end + 1).ok_or(WireError::Short)?;
                run(message.get(start..end).ok_or(WireError::Short)?)?;
                behind = behind.or(Some(end + 2));
                let target = usize::from(u16::from_be_bytes([len & 0x3f, low]));
                hops += 1;
                // RFC 1035 §4.1.4: a pointer leads to a prior occurrence; the header holds no name.
                if target >= start || target < HEADER_OCTETS || hops > POINTER_HOPS_MAX {
                    return Err(WireError::BadPointer);
                }
                start = target;
                end = target;
            }
            _ => return Err(WireError::BadName),
        }
    }
}

/// Walks the whole message (all counted records) and checks that every name in it, owner or in the data of the
/// types of RFC 1035, expands, and that the data of those types and of addresses has its size. Trailing octets are allowed.
pub fn check(message: &[u8]) -> Result<(), WireError> {
    for record in records(message)? {
        check_record(message, &record?)?;
    }
    Ok(())
}

/// Checks one record of a message; see [`check`].
pub(crate) fn check_record(message: &[u8], record: &RecordView) -> Result<(), WireError> {
    check_name(message, record.start)?;
    let data = &record.rdata;
    let end = match record.rtype {
        Rtype::A if record.class == Class::IN => data.start + 4,
        Rtype::AAAA if record.class == Class::IN => data.start + 16,
        rtype => match names_in(rtype) {
            None => data.end,
            Some((before, names, behind)) => {
                let mut at = data.start + before;
                for _ in 0..names {
                    at = check_name(message, at)?;
                }
                at + behind
            }
        },
    };
    match end.cmp(&data.end) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(WireError::Short),
        std::cmp::Ordering::Less => Err(WireError::BadName),
    }
}

/// Where names that may be compressed stand in the data of a type (RFC 3597 §4: those of RFC 1035 alone): octets before them, names, octets behind.
pub fn names_in(rtype: Rtype) -> Option<(usize, usize, usize)> {
    match rtype {
        Rtype::NS
        | Rtype::MD
        | Rtype::MF
        | Rtype::CNAME
        | Rtype::MB
        | Rtype::MG
        | Rtype::MR
        | Rtype::PTR => Some((0, 1, 0)),
        Rtype::SOA => Some((0, 2, 20)),
        Rtype::MINFO => Some((0, 2, 0)),
        Rtype::MX => Some((2, 1, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with these counts, and what stands behind it.
    fn message(counts: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 1, 0x81, 0];
        message.extend(counts.iter().flat_map(|count| [0, *count]));
        message.extend_from_slice(body);
        message
    }

    fn expanded(message: &[u8], at: usize) -> Result<(usize, Vec<u8>), WireError> {
        let mut name = NameBuf::new();
        let end = expand_name(message, at, &mut name)?;
        assert_eq!(check_name(message, at), Ok(end));
        Ok((end, name.as_wire().to_vec()))
    }

    #[test]
    fn a_question_is_read() {
        let found = question(&message([1, 0, 0, 0], b"\x01a\x00\x00\x1c\x00\x03rest"));
        assert_eq!(
            found,
            Ok(QuestionView {
                name_end: 15,
                qtype: Rtype::AAAA,
                qclass: Class::CH,
                end: 19
            })
        );
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let ask = |count, body: &[u8]| question(&message([count, 0, 0, 0], body));
        assert_eq!(question(&[0; 11]), Err(WireError::Short));
        assert_eq!(ask(0, b""), Err(WireError::QuestionCount));
        assert_eq!(ask(2, b"\0\0\x01\0\x01"), Err(WireError::QuestionCount));
        assert_eq!(ask(1, b""), Err(WireError::Short));
        assert_eq!(ask(1, b"\x03ww"), Err(WireError::Short));
        assert_eq!(ask(1, b"\x00\x00\x01\x00"), Err(WireError::Short));
        assert_eq!(ask(1, b"\xc0\x0c\0\x01\0\x01"), Err(WireError::BadPointer));
        assert_eq!(ask(1, b"\x43www\0\0\x01\0\x01"), Err(WireError::BadName));
        assert_eq!(ask(1, b"\x83www\0\0\x01\0\x01"), Err(WireError::BadName));
        let long = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4);
        assert_eq!(
            ask(1, &[&long[..], b"\0\0\x01\0\x01"].concat()),
            Err(WireError::BadName)
        );
    }

    #[test]
    fn records_come_in_their_sections() {
        let message = message(
            [1, 1, 0, 1],
            b"\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04\
              \x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00",
        );
        let found: Result<Vec<_>, _> = records(&message).expect("a question").collect();
        let found = found.expect("two records");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].section, found[0].ttl), (Section::Answer, 60));
        assert_eq!(message[found[0].rdata.clone()], [1, 2, 3, 4]);
        assert_eq!(
            (found[1].section, found[1].rtype),
            (Section::Additional, Rtype::OPT)
        );
        assert_eq!(found[1].rdata, message.len()..message.len());
        assert_eq!(check(&message), Ok(()));
        // One octet less: the walk ends with the error, once.
        let short = &message[..message.len() - 1];
        let found: Vec<_> = records(short).expect("a question").collect();
        assert_eq!(found[1..], [Err(WireError::Short)]);
        assert_eq!(check(short), Err(WireError::Short));
    }

    #[test]
    fn a_name_expands_over_pointers() {
        // 12: b.c  17: a -> 12
        let message = message([0; 4], b"\x01b\x01c\x00\x01a\xc0\x0c");
        assert_eq!(
            expanded(&message, 17),
            Ok((21, b"\x01a\x01b\x01c\x00".to_vec()))
        );
        assert_eq!(skip_name(&message, 17), Ok(21));
        assert_eq!(expanded(&message, 19), Ok((21, b"\x01b\x01c\x00".to_vec())));
    }

    #[test]
    fn pointers_lead_back_or_nowhere() {
        let at = |body: &[u8], offset: usize| expanded(&message([0; 4], body), 12 + offset);
        assert_eq!(at(b"\xc0\x0c", 0), Err(WireError::BadPointer));
        assert_eq!(at(b"\xc0\x0e\x00", 0), Err(WireError::BadPointer));
        assert_eq!(at(b"\x01a\xc0\x0c", 0), Err(WireError::BadPointer));
        assert_eq!(at(b"\x01a\xc0\x0e", 2), Err(WireError::BadPointer));
        assert_eq!(at(b"\xc0\x00", 0), Err(WireError::BadPointer));
        assert_eq!(at(b"\x00\xc0", 1), Err(WireError::Short));
        assert_eq!(at(b"\x01", 0), Err(WireError::Short));
        // 12 -> 14 -> 12: the second is a pointer before its start, the first is not.
        assert_eq!(at(b"\xc0\x0e\xc0\x0c", 2), Err(WireError::BadPointer));
    }

    #[test]
    fn pointers_are_followed_127_times() {
        // A root, then pointers, each to the one before.
        let mut body = vec![0];
        for i in 0..200_u16 {
            let before = if i == 0 { 12 } else { 13 + 2 * (i - 1) };
            body.extend_from_slice(&(0xc000 | before).to_be_bytes());
        }
        let message = message([0; 4], &body);
        assert_eq!(
            expanded(&message, 13 + 2 * 126),
            Ok((13 + 2 * 127, vec![0]))
        );
        assert_eq!(expanded(&message, 13 + 2 * 127), Err(WireError::BadPointer));
    }

    #[test]
    fn a_name_over_255_octets_is_bad_however_compressed() {
        let label = [b"\x3f".as_slice(), &[b'a'; 63]].concat();
        let mut body = label.repeat(3);
        body.push(0);
        let at = body.len();
        body.extend_from_slice(&label);
        body.extend_from_slice(b"\xc0\x0c");
        let message = message([0; 4], &body);
        assert_eq!(expanded(&message, 12).map(|(_, name)| name.len()), Ok(193));
        assert_eq!(expanded(&message, 12 + at), Err(WireError::BadName));
        assert_eq!(check_name(&message, 12 + at), Err(WireError::BadName));
    }

    #[test]
    fn data_must_fill_its_length() {
        let with = |rtype: u8, data: &[u8]| {
            let mut body = vec![0, 0, rtype, 0, 1, 0, 0, 0, 60, 0, data.len() as u8];
            body.extend_from_slice(data);
            check(&message([0, 1, 0, 0], &body))
        };
        assert_eq!(with(1, &[1, 2, 3, 4]), Ok(()));
        assert_eq!(with(1, &[1, 2, 3]), Err(WireError::Short));
        assert_eq!(with(28, &[0; 17]), Err(WireError::BadName));
        assert_eq!(with(2, b"\x01a\x00"), Ok(()));
        assert_eq!(with(2, b"\x01a\x00\x00"), Err(WireError::BadName));
        assert_eq!(with(2, b""), Err(WireError::Short));
        assert_eq!(with(15, b"\x00\x01\x01a\x00"), Ok(()));
        assert_eq!(with(6, &[0; 22]), Ok(()));
        assert_eq!(with(6, &[0; 21]), Err(WireError::Short));
        assert_eq!(with(33, b"anything"), Ok(()));
    }

    #[test]
    fn a_staircase_of_pointers_is_walked_in_bounded_time() {
        // 64 KiB of records whose owners are pointers to the pointer before: each walk ends after 127 hops.
        let mut body = Vec::new();
        let mut before = 12_u16;
        body.extend_from_slice(&[0, 0, 1, 0, 1]);
        let mut count = 0_u16;
        while body.len() + 12 + 12 <= 65_535 {
            let at = 12 + body.len() as u16;
            body.extend_from_slice(&(0xc000 | before).to_be_bytes());
            body.extend_from_slice(&[0, 16, 0, 1, 0, 0, 0, 0, 0, 0]);
            before = if at < 0x4000 { at } else { before };
            count += 1;
        }
        let mut staircase = vec![0, 1, 0x81, 0, 0, 1];
        staircase.extend_from_slice(&count.to_be_bytes());
        staircase.extend_from_slice(&[0; 4]);
        staircase.extend_from_slice(&body);
        assert_eq!(check(&staircase), Err(WireError::BadPointer));
        let mut hops = 0;
        let mut at = 17;
        while at + 12 <= staircase.len() {
            let _ = walk_name(&staircase, at, |_| {
                hops += 1;
                Ok(())
            });
            at += 12;
        }
        assert!(hops <= 128 * usize::from(count), "{hops}");
    }
}
