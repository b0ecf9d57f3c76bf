//! Writes records into a message, compressing names against those already written; cuts a message to size.

use super::message::{self, HEADER_OCTETS, RecordView, Section};
use super::name::{self, LABEL_OCTETS_MAX, NameBuf};
use super::types::{Class, Rtype};
use crate::kit::query::flags;

/// The longest message, in octets (RFC 1035 §4.2.2: two octets hold its length).
pub const MESSAGE_OCTETS_MAX: usize = 65_535;
/// Names remembered for compression; later ones are compressed against these and not remembered.
const NAMES_MAX: usize = 64;
/// The first offset that a pointer cannot hold (RFC 1035 §4.1.4: fourteen bits).
const POINTER_END: usize = 0x4000;

/// Appends records to a message buffer that already holds header and question.
///
/// Compression: owner names and the names in NS, CNAME, PTR, SOA, MX data (RFC 3597 §4) are compressed without
/// regard to case against the question and up to 64 suffixes written before. No allocation beyond `message`.
pub struct Writer<'m> {
    message: &'m mut Vec<u8>,
    names: &'m mut Compressor,
}

/// Where names stand in a message under construction: at most 64 offsets. Lives beside the message, so that a
/// [`Writer`] can be made again for every record at no cost.
#[derive(Clone)]
pub struct Compressor {
    // Of each name: its length, and length, first and last octet of its first label, in lower case. Most names differ without a look at
    // the message, and names of other lengths always do, which bounds what names chosen to collide cost.
    digests: [u32; NAMES_MAX],
    offsets: [u16; NAMES_MAX],
    len: u8,
    // Whether the question's name has been entered.
    question: bool,
}

impl Default for Compressor {
    fn default() -> Compressor {
        Compressor {
            digests: [0; NAMES_MAX],
            offsets: [0; NAMES_MAX],
            len: 0,
            question: false,
        }
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let offsets = self.offsets.iter().take(usize::from(self.len));
        f.debug_list().entries(offsets).finish()
    }
}

impl Compressor {
    /// Forgets everything; call it when the message starts anew.
    pub fn clear(&mut self) {
        self.len = 0;
        self.question = false;
    }

    fn enter(&mut self, digest: u32, offset: usize) {
        let at = usize::from(self.len);
        if offset < POINTER_END
            && let (Some(digests), Some(offsets)) =
                (self.digests.get_mut(at), self.offsets.get_mut(at))
        {
            *digests = digest;
            *offsets = offset as u16;
            self.len += 1;
        }
    }

    /// Where `name` stands already.
    fn find(&self, message: &[u8], digest: u32, name: &[u8]) -> Option<u16> {
        let known = self.digests.iter().zip(&self.offsets);
        known
            .take(usize::from(self.len))
            .find(|(known, offset)| **known == digest && stands_at(message, **offset, name))
            .map(|(_, offset)| *offset)
    }

    /// Enters the name of the question, which stands uncompressed behind the header.
    fn enter_question(&mut self, message: &[u8]) {
        self.question = true;
        if let Ok(question) = message::question(message)
            && let Some(qname) = message.get(HEADER_OCTETS..question.name_end)
        {
            for (offset, digest) in suffixes(qname) {
                self.enter(digest, HEADER_OCTETS + offset);
            }
        }
    }
}

/// Whether the message has `name` at `offset`, compressed or not, in any case. Written by us: pointers lead backwards.
fn stands_at(message: &[u8], offset: u16, name: &[u8]) -> bool {
    let mut at = usize::from(offset);
    let mut rest = name;
    loop {
        let Some(&len) = message.get(at) else {
            return false;
        };
        if len >= 0xc0 {
            let target =
                usize::from(len & 0x3f) << 8 | message.get(at + 1).map_or(0, |b| usize::from(*b));
            if target >= at {
                return false;
            }
            at = target;
            continue;
        }
        let octets = 1 + usize::from(len);
        match (message.get(at..at + octets), rest.split_at_checked(octets)) {
            (Some(there), Some((here, parent))) if name::eq_ignore_case(there, here) => {
                if len == 0 {
                    return true;
                }
                rest = parent;
                at += octets;
            }
            _ => return false,
        }
    }
}

/// The suffixes of a name, without the root: where each starts, and its digest. Ends early where the bytes are no name.
fn suffixes(wire: &[u8]) -> impl Iterator<Item = (usize, u32)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let at = start;
        let suffix = wire.get(at..)?;
        let label_len = *suffix.first()?;
        let first = suffix.get(1)?;
        let last = suffix.get(usize::from(label_len))?;
        if label_len == 0 || usize::from(label_len) > LABEL_OCTETS_MAX {
            return None;
        }
        start = at + 1 + usize::from(label_len);
        let octets = [
            suffix.len() as u8,
            label_len,
            first.to_ascii_lowercase(),
            last.to_ascii_lowercase(),
        ];
        Some((at, u32::from_be_bytes(octets)))
    })
}

/// Record data to write.
#[derive(Clone, Copy, Debug)]
pub enum Rdata<'a> {
    /// Bytes without a name that may be compressed.
    Raw(&'a [u8]),
    /// One name: NS, CNAME, PTR, DNAME (DNAME is never compressed).
    Name(&'a [u8]),
    /// MX: preference and exchange.
    Mx(u16, &'a [u8]),
    /// SRV: priority, weight, port, target (never compressed, RFC 2782).
    Srv(u16, u16, u16, &'a [u8]),
    /// SOA.
    Soa {
        /// Primary server.
        mname: &'a [u8],
        /// Mailbox.
        rname: &'a [u8],
        /// Serial, refresh, retry, expire, minimum.
        numbers: [u32; 5],
    },
    /// TXT from one text, cut into strings of 255 octets.
    Txt(&'a [u8]),
}

impl<'m> Writer<'m> {
    /// `message` holds header and question; with a cleared `names` the question's name is entered first.
    pub fn new(message: &'m mut Vec<u8>, names: &'m mut Compressor) -> Writer<'m> {
        Writer { message, names }
    }

    /// Appends one record and counts it in the header. Sections must come in order. False, and nothing written, if the
    /// message would pass 65,535 octets or a name is not one.
    pub fn record(
        &mut self,
        section: Section,
        owner: &[u8],
        rtype: Rtype,
        class: Class,
        ttl: u32,
        rdata: Rdata<'_>,
    ) -> bool {
        let (start, known) = (self.message.len(), self.names.len);
        let written = start >= HEADER_OCTETS
            && self
                .append(owner, rtype, class, ttl, rdata)
                .and_then(|()| self.count(section))
                .is_some();
        if !written {
            self.message.truncate(start);
            // What was entered since leads nowhere now. The question's suffixes are entered again when they are needed.
            self.names.len = known;
            self.names.question &= known > 0;
        }
        written
    }

    fn append(
        &mut self,
        owner: &[u8],
        rtype: Rtype,
        class: Class,
        ttl: u32,
        rdata: Rdata<'_>,
    ) -> Option<()> {
        self.compressed(owner)?;
        let [t0, t1] = rtype.0.to_be_bytes();
        let [c0, c1] = class.0.to_be_bytes();
        let [l0, l1, l2, l3] = ttl.to_be_bytes();
        self.message
            .extend_from_slice(&[t0, t1, c0, c1, l0, l1, l2, l3, 0, 0]);
        let data = self.message.len();
        self.rdata(rtype, rdata)?;
        if self.message.len() > MESSAGE_OCTETS_MAX {
            return None;
        }
        let octets = (self.message.len() - data) as u16;
        let length = self.message.get_mut(data - 2..data)?;
        length.copy_from_slice(&octets.to_be_bytes());
        Some(())
    }

    fn rdata(&mut self, rtype: Rtype, rdata: Rdata<'_>) -> Option<()> {
        match rdata {
            Rdata::Raw(bytes) => self.message.extend_from_slice(bytes),
            // RFC 3597 §4: only names in the data of RFC 1035's types may be compressed.
            Rdata::Name(name) if message::names_in(rtype).is_some() => self.compressed(name)?,
            Rdata::Name(name) => self.plain(name)?,
            Rdata::Mx(preference, exchange) => {
                self.numbers(&[preference]);
                self.compressed(exchange)?;
            }
            Rdata::Srv(priority, weight, port, target) => {
                self.numbers(&[priority, weight, port]);
                self.plain(target)?;
            }
            Rdata::Soa {
                mname,
                rname,
                numbers,
            } => {
                self.compressed(mname)?;
                self.compressed(rname)?;
                for number in numbers {
                    self.message.extend_from_slice(&number.to_be_bytes());
                }
            }
            // RFC 1035 §3.3.14: one or more strings; an empty text is one empty string.
            Rdata::Txt([]) => self.message.push(0),
            Rdata::Txt(text) => {
                for string in text.chunks(255) {
                    self.message.push(string.len() as u8);
                    self.message.extend_from_slice(string);
                }
            }
        }
        Some(())
    }

    fn numbers(&mut self, numbers: &[u16]) {
        for number in numbers {
            self.message.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn plain(&mut self, name: &[u8]) -> Option<()> {
        if name::wire_len(name) != Some(name.len()) {
            return None;
        }
        self.message.extend_from_slice(name);
        Some(())
    }

    /// Appends a name, as a pointer from the first label on that stands in the message already.
    fn compressed(&mut self, name: &[u8]) -> Option<()> {
        if name == [0] {
            self.message.push(0);
            return Some(());
        }
        if name::wire_len(name) != Some(name.len()) {
            return None;
        }
        // Mostly it is the question's name, octet for octet: no need to look for it. The root's octet is in `name`, so that what
        // starts with it is it.
        let behind_header = self.message.get(HEADER_OCTETS..);
        if behind_header.is_some_and(|bytes| bytes.starts_with(name)) && self.has_question() {
            self.message.extend_from_slice(&[0xc0, HEADER_OCTETS as u8]);
            return Some(());
        }
        if !self.names.question {
            self.names.enter_question(self.message);
        }
        let start = self.message.len();
        let known = suffixes(name).find_map(|(offset, digest)| {
            let suffix = name.get(offset..)?;
            let pointer = self.names.find(self.message, digest, suffix)?;
            Some((offset, pointer))
        });
        let end = match known {
            Some((offset, pointer)) => {
                self.message.extend_from_slice(name.get(..offset)?);
                self.message
                    .extend_from_slice(&(0xc000 | pointer).to_be_bytes());
                offset
            }
            None => {
                self.message.extend_from_slice(name);
                name.len()
            }
        };
        for (offset, digest) in suffixes(name).take_while(|(offset, _)| *offset < end) {
            self.names.enter(digest, start + offset);
        }
        Some(())
    }

    fn has_question(&self) -> bool {
        self.message.get(4..6) == Some(&[0, 1])
    }

    fn count(&mut self, section: Section) -> Option<()> {
        let at = count_at(section);
        debug_assert!(
            self.message[at + 2..HEADER_OCTETS].iter().all(|b| *b == 0),
            "sections come in order"
        );
        let count = self.message.get_mut(at..)?.first_chunk_mut::<2>()?;
        *count = u16::from_be_bytes(*count).checked_add(1)?.to_be_bytes();
        Some(())
    }
}

/// Where the header counts a section.
fn count_at(section: Section) -> usize {
    match section {
        Section::Answer => 6,
        Section::Authority => 8,
        Section::Additional => 10,
    }
}

/// Cuts records from the end (additional, then authority, then answer) until `message` has at most `size` octets. Returns whether it cut.
///
/// Answer and authority are cut record by record with TC set, as CoreDNS does and RFC 2181 §9 allows; the additional section loses whole
/// RRsets and needs no TC for it, unless they are the addresses of a referral (RFC 9471 §3).
pub fn truncate(message: &mut Vec<u8>, size: usize) -> bool {
    if message.len() <= size {
        return false;
    }
    let Ok(mut records) = message::records(message) else {
        return cut(message, size.min(HEADER_OCTETS), [0; 3], true);
    };
    let mut end = records.position();
    let mut counts = [0_u16; 3];
    let mut lost = None;
    let mut rrset: Option<(RecordView, usize, u16)> = None;
    let mut is_referral = false;
    for record in &mut records {
        let Ok(record) = record else {
            lost = lost.or(Some(Section::Answer));
            break;
        };
        is_referral |= record.section == Section::Authority && record.rtype == Rtype::NS;
        if record.section == Section::Additional {
            let starts = rrset
                .as_ref()
                .is_none_or(|(first, _, _)| !is_same_rrset(message, first, &record));
            if starts {
                rrset = Some((record.clone(), end, counts[2]));
            }
        }
        if record.rdata.end > size {
            lost = Some(record.section);
            if let (Section::Additional, Some((_, before, count))) = (record.section, rrset) {
                end = before;
                counts[2] = count;
            }
            break;
        }
        end = record.rdata.end;
        counts[record.section as usize] += 1;
    }
    let is_referral = is_referral && message.get(6..8) == Some(&[0, 0]);
    let needs_tc = match lost {
        // Only octets behind the last record.
        None => false,
        Some(Section::Additional) => is_referral,
        Some(_) => true,
    };
    cut(message, end, counts, needs_tc)
}

/// Whether two records stand for one RRset: the same owner, type and class.
fn is_same_rrset(message: &[u8], a: &RecordView, b: &RecordView) -> bool {
    let (mut one, mut other) = (NameBuf::new(), NameBuf::new());
    a.rtype == b.rtype
        && a.class == b.class
        && message::expand_name(message, a.start, &mut one).is_ok()
        && message::expand_name(message, b.start, &mut other).is_ok()
        && name::eq_ignore_case(one.as_wire(), other.as_wire())
}

fn cut(message: &mut Vec<u8>, end: usize, counts: [u16; 3], tc: bool) -> bool {
    message.truncate(end);
    if let Some(header) = message.first_chunk_mut::<HEADER_OCTETS>() {
        for (bytes, count) in header[6..].chunks_exact_mut(2).zip(counts) {
            bytes.copy_from_slice(&count.to_be_bytes());
        }
        if tc {
            header[2] |= (flags::TC >> 8) as u8;
        }
    }
    true
}

/// Removes every OPT record from the additional section; of the first one, the extended rcode bits, the flags and the options are
/// copied out. Records behind it keep their names: pointers over the gap are put right.
pub fn take_opt(message: &mut Vec<u8>) -> Option<(u8, u16, Vec<u8>)> {
    let mut taken = None;
    while let Some(opt) = find_opt(message) {
        if taken.is_none() {
            let options = message.get(opt.rdata.clone()).unwrap_or_default();
            taken = Some(((opt.ttl >> 24) as u8, opt.ttl as u16, options.to_vec()));
        }
        if opt.rdata.end < message.len() {
            close_gap(message, opt.start, opt.rdata.end);
        } else {
            message.truncate(opt.start);
        }
        let count = message
            .get_mut(10..)
            .and_then(<[u8]>::first_chunk_mut::<2>)?;
        *count = u16::from_be_bytes(*count).saturating_sub(1).to_be_bytes();
    }
    taken
}

fn find_opt(message: &[u8]) -> Option<RecordView> {
    message::records(message)
        .ok()?
        .map_while(Result::ok)
        .find(|record| record.section == Section::Additional && record.rtype == Rtype::OPT)
}

/// Removes `start..end` and moves the pointers behind it that lead behind it.
fn close_gap(message: &mut Vec<u8>, start: usize, end: usize) {
    let gap = end - start;
    let mut at = end;
    while let Ok(fixed) = message::skip_name(message, at) {
        shift_pointer(message, at, fixed, end, gap);
        let Some(head) = message.get(fixed..).and_then(<[u8]>::first_chunk::<10>) else {
            break;
        };
        let rtype = Rtype(u16::from_be_bytes([head[0], head[1]]));
        let data_end = fixed + 10 + usize::from(u16::from_be_bytes([head[8], head[9]]));
        if let Some((before, names, _)) = message::names_in(rtype) {
            let mut name_at = fixed + 10 + before;
            for _ in 0..names {
                let Ok(name_end) = message::skip_name(message, name_at) else {
                    break;
                };
                shift_pointer(message, name_at, name_end, end, gap);
                name_at = name_end;
            }
        }
        at = data_end;
    }
    message.drain(start..end.min(message.len()));
}

/// Moves the pointer that ends the name in `start..end`, if one does and it leads behind the gap.
fn shift_pointer(message: &mut [u8], start: usize, end: usize, gap_end: usize, gap: usize) {
    let mut at = start;
    while let Some(&len) = message.get(at)
        && (1..0xc0).contains(&len)
    {
        at += 1 + usize::from(len);
    }
    if at + 2 != end {
        return;
    }
    if let Some(pointer) = message
        .get_mut(at..end)
        .and_then(<[u8]>::first_chunk_mut::<2>)
    {
        let word = u16::from_be_bytes(*pointer);
        if word >= 0xc000 && usize::from(word & 0x3fff) >= gap_end {
            *pointer = (word - gap as u16).to_be_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::wire::Name;
    use hickory_proto::op::Message;
    use hickory_proto::serialize::binary::BinDecodable;

    fn wire(text: &str) -> Vec<u8> {
        Name::parse(text).expect("a name").as_wire().to_vec()
    }

    fn question(qname: &str) -> Vec<u8> {
        let mut message = vec![0, 7, 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&wire(qname));
        message.extend_from_slice(&[0, 1, 0, 1]);
        message
    }

    struct Built {
        message: Vec<u8>,
        names: Compressor,
    }

    impl Built {
        fn new(qname: &str) -> Built {
            Built {
                message: question(qname),
                names: Compressor::default(),
            }
        }

        fn put(&mut self, section: Section, owner: &str, rtype: Rtype, rdata: Rdata<'_>) -> usize {
            let before = self.message.len();
            let mut writer = Writer::new(&mut self.message, &mut self.names);
            assert!(writer.record(section, &wire(owner), rtype, Class::IN, 60, rdata));
            self.message.len() - before
        }

        /// The records as hickory-proto reads them.
        fn text(&self) -> Vec<String> {
            message::check(&self.message).expect("well-formed");
            let message = Message::from_bytes(&self.message).expect("hickory reads it");
            let all = message.answers.iter().chain(&message.authorities);
            all.chain(&message.additionals)
                .map(|record| record.to_string())
                .collect()
        }
    }

    #[test]
    fn names_are_compressed_against_the_question_in_any_case() {
        let mut built = Built::new("www.Example.org");
        let a = Rdata::Raw(&[192, 0, 2, 1]);
        assert_eq!(
            built.put(Section::Answer, "www.Example.org", Rtype::A, a),
            16
        );
        assert_eq!(
            built.put(Section::Answer, "WWW.example.org", Rtype::A, a),
            16
        );
        // One label and a pointer.
        assert_eq!(
            built.put(Section::Answer, "ftp.example.ORG", Rtype::A, a),
            20
        );
        assert_eq!(
            built.put(Section::Answer, "ftp.example.org", Rtype::A, a),
            16
        );
        assert_eq!(built.put(Section::Answer, "org", Rtype::A, a), 16);
        assert_eq!(built.put(Section::Answer, ".", Rtype::A, a), 15);
        assert_eq!(built.text()[2], "ftp.Example.org. 60 IN A 192.0.2.1");
    }

    #[test]
    fn data_is_compressed_where_rfc_3597_allows_it() {
        let mut built = Built::new("example.org");
        let owner = "example.org";
        let target = wire("a.example.org");
        let name = Rdata::Name(&target);
        assert_eq!(
            built.put(Section::Answer, owner, Rtype::DNAME, name),
            12 + 15
        );
        assert_eq!(built.put(Section::Answer, owner, Rtype::NS, name), 12 + 4);
        assert_eq!(
            built.put(Section::Answer, owner, Rtype::CNAME, name),
            12 + 2
        );
        assert_eq!(
            built.put(Section::Answer, owner, Rtype::MX, Rdata::Mx(10, &target)),
            12 + 4
        );
        let srv = Rdata::Srv(1, 2, 3, &target);
        assert_eq!(
            built.put(Section::Answer, owner, Rtype::SRV, srv),
            12 + 6 + 15
        );
        let soa = Rdata::Soa {
            mname: &target,
            rname: &wire("hostmaster.example.org"),
            numbers: [1, 2, 3, 4, 5],
        };
        assert_eq!(
            built.put(Section::Authority, owner, Rtype::SOA, soa),
            12 + 2 + 13 + 20
        );
        assert_eq!(
            built.text(),
            [
                "example.org. 60 IN DNAME AWEHZXhhbXBsZQNvcmcA",
                "example.org. 60 IN NS a.example.org.",
                "example.org. 60 IN CNAME a.example.org.",
                "example.org. 60 IN MX 10 a.example.org.",
                "example.org. 60 IN SRV 1 2 3 a.example.org.",
                "example.org. 60 IN SOA a.example.org. hostmaster.example.org. 1 2 3 4 5",
            ]
        );
    }

    #[test]
    fn long_texts_become_strings_of_255() {
        let mut built = Built::new("t");
        assert_eq!(
            built.put(Section::Answer, "t", Rtype::TXT, Rdata::Txt(b"")),
            13
        );
        let text = [b'x'; 600];
        assert_eq!(
            built.put(Section::Answer, "t", Rtype::TXT, Rdata::Txt(&text)),
            12 + 603
        );
        message::check(&built.message).expect("well-formed");
    }

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        let mut built = Built::new("t");
        let text = vec![b'x'; 32_000];
        built.put(Section::Answer, "a", Rtype::TXT, Rdata::Txt(&text));
        built.put(Section::Answer, "b", Rtype::TXT, Rdata::Txt(&text));
        let before = built.message.clone();
        let mut writer = Writer::new(&mut built.message, &mut built.names);
        let mut put = |owner: &[u8], rdata: Rdata<'_>| {
            writer.record(Section::Answer, owner, Rtype::TXT, Class::IN, 60, rdata)
        };
        assert!(!put(b"\x01c\x00", Rdata::Txt(&text)));
        assert!(!put(b"", Rdata::Raw(&[])));
        assert!(!put(b"\x03ab", Rdata::Raw(&[])));
        assert!(!put(b"\x01a\x00\x00", Rdata::Raw(&[])));
        assert!(!put(b"\x01d\x00", Rdata::Srv(0, 0, 0, b"\x04no")));
        assert_eq!(built.message, before);
        // `c` was entered and forgotten again; out here no pointer reaches.
        let a = Rdata::Raw(&[0; 4]);
        assert_eq!(built.put(Section::Answer, "c", Rtype::A, a), 3 + 14);
        assert_eq!(built.put(Section::Answer, "c", Rtype::A, a), 3 + 14);
        assert_eq!(built.put(Section::Answer, "b", Rtype::A, a), 3 + 14);
        assert_eq!(built.put(Section::Answer, "a", Rtype::A, a), 2 + 14);
    }

    #[test]
    fn more_names_than_it_remembers_are_still_right() {
        let mut built = Built::new("example.org");
        for n in 0..200 {
            built.put(
                Section::Answer,
                &format!("n{n}.example.org"),
                Rtype::A,
                Rdata::Raw(&[0; 4]),
            );
        }
        let text = built.text();
        assert_eq!(text.len(), 200);
        assert_eq!(text[199], "n199.example.org. 60 IN A 0.0.0.0");
    }

    #[test]
    fn answers_are_cut_record_by_record_with_tc() {
        let mut built = Built::new("t");
        for n in 0..10 {
            built.put(Section::Answer, "t", Rtype::A, Rdata::Raw(&[192, 0, 2, n]));
        }
        built.put(Section::Additional, "u", Rtype::A, Rdata::Raw(&[0; 4]));
        let whole = built.message.clone();
        assert!(!truncate(&mut built.message, whole.len()));
        assert_eq!(built.message, whole);
        assert!(truncate(&mut built.message, 19 + 3 * 16 + 15));
        assert_eq!(built.message.len(), 19 + 3 * 16);
        assert_eq!(built.text().len(), 3);
        assert_ne!(built.message[2] & 2, 0);
    }

    #[test]
    fn an_incomplete_additional_section_needs_no_tc() {
        let mut built = Built::new("t");
        built.put(Section::Answer, "t", Rtype::A, Rdata::Raw(&[0; 4]));
        for owner in ["u", "v", "v"] {
            built.put(Section::Additional, owner, Rtype::A, Rdata::Raw(&[0; 4]));
        }
        let len = built.message.len();
        assert!(truncate(&mut built.message, len - 1));
        assert_eq!(built.message[2] & 2, 0);
        // Of the two for `v` none is left: an RRset is whole or absent.
        assert_eq!(built.text().len(), 2);
    }

    #[test]
    fn a_referral_without_its_addresses_has_tc() {
        let mut built = Built::new("t");
        built.put(
            Section::Authority,
            "t",
            Rtype::NS,
            Rdata::Name(b"\x01n\x01t\x00"),
        );
        built.put(Section::Additional, "n.t", Rtype::A, Rdata::Raw(&[0; 4]));
        let len = built.message.len();
        assert!(truncate(&mut built.message, len - 1));
        assert_ne!(built.message[2] & 2, 0);
        assert_eq!(built.text().len(), 1);
    }

    #[test]
    fn truncating_nonsense_leaves_a_header() {
        for bytes in [vec![0xff; 600], vec![0; 600], vec![1; 5]] {
            let mut message = bytes;
            truncate(&mut message, 3);
            assert!(message.len() <= 12);
        }
    }

    #[test]
    fn an_opt_is_taken_from_the_end() {
        let mut built = Built::new("t");
        built.put(Section::Answer, "t", Rtype::A, Rdata::Raw(&[0; 4]));
        let without = built.message.clone();
        built.put(
            Section::Additional,
            ".",
            Rtype::OPT,
            Rdata::Raw(&[0, 3, 0, 1, 9]),
        );
        let ttl = built.message.len() - 5 - 6;
        built.message[ttl..ttl + 4].copy_from_slice(&[1, 0, 0x80, 0]);
        let taken = take_opt(&mut built.message);
        assert_eq!(taken, Some((1, 0x8000, vec![0, 3, 0, 1, 9])));
        assert_eq!(built.message, without);
        assert_eq!(take_opt(&mut built.message), None);
    }

    #[test]
    fn an_opt_is_taken_out_of_the_middle() {
        let mut built = Built::new("t");
        built.put(
            Section::Additional,
            ".",
            Rtype::OPT,
            Rdata::Raw(&[0, 3, 0, 0]),
        );
        built.put(
            Section::Additional,
            "a.t",
            Rtype::NS,
            Rdata::Name(b"\x01b\x01t\x00"),
        );
        built.put(Section::Additional, ".", Rtype::OPT, Rdata::Raw(&[]));
        built.put(
            Section::Additional,
            "b.t",
            Rtype::CNAME,
            Rdata::Name(b"\x01a\x01t\x00"),
        );
        assert!(take_opt(&mut built.message).is_some());
        assert_eq!(
            built.text(),
            ["a.t. 60 IN NS b.t.", "b.t. 60 IN CNAME a.t."]
        );
    }
}
