//! Walks over a DNS message without decoding it.

use std::fmt;
use std::ops::Range;

use super::name::NameBuf;
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
pub fn question(_message: &[u8]) -> Result<QuestionView, WireError> {
    todo!()
}

/// All records behind the question, in order; ends after the first error.
pub fn records(
    _message: &[u8],
) -> Result<impl Iterator<Item = Result<RecordView, WireError>> + '_, WireError> {
    Ok(std::iter::empty())
}

/// Where the name at `at` ends (behind its pointer if it is compressed); checks label types only.
pub fn skip_name(_message: &[u8], _at: usize) -> Result<usize, WireError> {
    todo!()
}

/// Expands the name at `at` into `out`, following at most [`POINTER_HOPS_MAX`] pointers, each backwards; returns where it ends.
pub fn expand_name(_message: &[u8], _at: usize, _out: &mut NameBuf) -> Result<usize, WireError> {
    todo!()
}

/// Walks the whole message (all counted records) and checks that every name in it, owner or in the data of the
/// types of RFC 1035, expands. Trailing octets are allowed.
pub fn check(_message: &[u8]) -> Result<(), WireError> {
    todo!()
}
