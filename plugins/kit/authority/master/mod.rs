//! Master files (RFC 1035 §5): text becomes records, with `$ORIGIN`, `$TTL` (RFC 2308 §4), `$INCLUDE` and `$GENERATE`.
//!
//! A mistake is told as `file:line:column` with what to write instead. What types look like is in `rdata`.

mod generate;
pub(in super::super) mod lexer;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::builder::{BuildError, Builder, Warnings};
use super::contents::Contents;
use super::rdata;
use crate::kit::wire::{Name, NameBuf, Rtype};
use lexer::{Lexer, Token, Word};

/// Octets of one file: offsets in a zone are 32 bits.
const FILE_OCTETS_MAX: u64 = u32::MAX as u64;
/// Files that include each other.
const INCLUDE_DEPTH_MAX: usize = 8;
/// Files that one zone is read from.
const FILES_MAX: usize = 1024;

/// Where something stands in a file; both from 1, the column in octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// Why a zone cannot be read: `db.example:12:9: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Where in it; none for what is wrong with the whole.
    pub place: Option<Place>,
    /// What is wrong, and what to write instead.
    pub what: String,
    /// Whether the file is not there.
    pub not_found: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.what)
    }
}

impl std::error::Error for Fault {}

/// What a file was like when it was read, to see whether it has changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The file.
    pub file: PathBuf,
    /// Its time of modification and its size; none if it was not there.
    pub of: Option<(SystemTime, u64)>,
}

impl Stamp {
    /// What it is like now.
    pub fn of(file: &Path) -> Stamp {
        let metadata = file.metadata().ok();
        let of = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        Stamp {
            file: file.to_owned(),
            of,
        }
    }

    /// Whether it is not like that any more.
    pub fn has_changed(&self) -> bool {
        Stamp::of(&self.file) != *self
    }
}

/// A zone as it was read.
pub struct Loaded {
    /// The zone.
    pub contents: Contents,
    /// What is odd about it.
    pub warnings: Warnings,
    /// The files it came from, the first one first.
    pub stamps: Vec<Stamp>,
}

/// Reads the zone `apex` from a file and those that it includes.
pub fn load(file: &Path, apex: &Name) -> Result<Loaded, Fault> {
    let mut builder = Builder::new(apex);
    let mut warnings = Warnings::default();
    let mut sink = |record: Record<'_>| match builder.add(
        record.owner,
        record.rtype,
        record.ttl,
        record.rdata,
    ) {
        // As CoreDNS, which serves such zones; nobody could ask for the record.
        Err(BuildError::OutOfZone) => {
            let owner = crate::kit::wire::name::display(record.owner);
            warnings.push(|| format!("{} is not within {apex}: left out", owner));
            Ok(())
        }
        other => other,
    };
    let stamps = read(file, apex, &mut sink)?;
    match builder.finish() {
        Ok((contents, more)) => {
            warnings.count += more.count;
            let room = super::builder::WARNINGS_MAX.saturating_sub(warnings.texts.len());
            warnings.texts.extend(more.texts.into_iter().take(room));
            Ok(Loaded {
                contents,
                warnings,
                stamps,
            })
        }
        Err(error) => Err(Fault {
            file: file.to_owned(),
            place: None,
            what: error.to_string(),
            not_found: false,
        }),
    }
}

/// Reads a zone from text, as if it stood in `file`.
pub fn parse(text: &[u8], file: &Path, apex: &Name) -> Result<(Contents, Warnings), Fault> {
    let mut builder = Builder::new(apex);
    let mut sink = |record: Record<'_>| match builder.add(
        record.owner,
        record.rtype,
        record.ttl,
        record.rdata,
    ) {
        Err(BuildError::OutOfZone) => Ok(()),
        other => other,
    };
    let mut reader = Reader::new(apex, &mut sink);
    reader.text(text, file)?;
    builder.finish().map_err(|error| Fault {
        file: file.to_owned(),
        place: None,
        what: error.to_string(),
        not_found: false,
    })
}

/// A record as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'r> {
    /// Its owner, wire form, as spelled.
    pub owner: &'r [u8],
    /// Its type.
    pub rtype: Rtype,
    /// Its TTL, in seconds.
    pub ttl: u32,
    /// Its data.
    pub rdata: &'r [u8],
}

/// Takes records.
pub type Sink<'s> = &'s mut dyn FnMut(Record<'_>) -> Result<(), BuildError>;

/// Reads a file and those that it includes, record by record.
pub fn read(file: &Path, origin: &Name, sink: Sink<'_>) -> Result<Vec<Stamp>, Fault> {
    let mut reader = Reader::new(origin, sink);
    reader.file(file, None)?;
    Ok(reader.stamps)
}

/// A word and why it will not do, or only where.
type Wrong = (Place, String);

struct Reader<'s> {
    sink: Sink<'s>,
    origin: NameBuf,
    owner: NameBuf,
    // From `$TTL`, and the last one written.
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
    rdata: Vec<u8>,
    stamps: Vec<Stamp>,
    // Files that are being read, the including one first.
    path: Vec<PathBuf>,
}

impl<'s> Reader<'s> {
    fn new(origin: &Name, sink: Sink<'s>) -> Reader<'s> {
        Reader {
            sink,
            origin: buffer(origin),
            owner: NameBuf::new(),
            default_ttl: None,
            last_ttl: None,
            rdata: Vec::new(),
            stamps: Vec::new(),
            path: Vec::new(),
        }
    }

    fn file(&mut self, file: &Path, included_at: Option<(&Path, Place)>) -> Result<(), Fault> {
        let fault = |what: String, not_found| match included_at {
            None => Fault {
                file: file.to_owned(),
                place: None,
                what,
                not_found,
            },
            Some((including, place)) => Fault {
                file: including.to_owned(),
                place: Some(place),
                what: format!("cannot include {}: {what}", file.display()),
                not_found: false,
            },
        };
        if self.stamps.len() >= FILES_MAX {
            return Err(fault(format!("more than {FILES_MAX} files"), false));
        }
        // Before it is read: a change while we read shows as one.
        self.stamps.push(Stamp::of(file));
        let text = match whole(file) {
            Ok(text) => text,
            Err(error) => {
                let not_found = error.kind() == std::io::ErrorKind::NotFound;
                return Err(fault(error.to_string(), not_found));
            }
        };
        self.path.push(file.to_owned());
        self.text(&text, file)?;
        self.path.pop();
        Ok(())
    }

    fn text(&mut self, text: &[u8], file: &Path) -> Result<(), Fault> {
        let mut lexer = Lexer::new(text);
        while !lexer.is_at_end() {
            let directive = self.entry(&mut lexer).map_err(|wrong| at(file, wrong))?;
            match directive {
                None => {}
                Some(Directive::Include {
                    place,
                    file: name,
                    origin,
                }) => self.include(file, place, &name, origin)?,
                Some(Directive::Generate(generate)) => {
                    self.generate(&generate).map_err(|wrong| at(file, wrong))?;
                }
            }
        }
        Ok(())
    }

    fn include(
        &mut self,
        including: &Path,
        place: Place,
        name: &str,
        origin: Option<Name>,
    ) -> Result<(), Fault> {
        let folder = including.parent().unwrap_or(Path::new(""));
        let file = folder.join(name);
        let wrong = |what: String| Err(at(including, (place, what)));
        if self.path.contains(&file) {
            return wrong(format!("{} includes itself", file.display()));
        }
        if self.path.len() > INCLUDE_DEPTH_MAX {
            return wrong(format!(
                "files are included more than {INCLUDE_DEPTH_MAX} deep"
            ));
        }
        let before = (self.origin.clone(), self.owner.clone());
        if let Some(origin) = origin {
            self.origin = buffer(&origin);
        }
        self.file(&file, Some((including, place)))?;
        // RFC 1035 §5.1: the origin of the including file stays what it was.
        (self.origin, self.owner) = before;
        Ok(())
    }

    /// One entry: a record, or a directive that the caller sees to.
    fn entry(&mut self, lexer: &mut Lexer<'_>) -> Result<Option<Directive>, Wrong> {
        let has_blank = lexer.starts_blank();
        let Token::Word(first) = lexer.token()? else {
            return Ok(None);
        };
        if !has_blank && !first.quoted && first.text.first() == Some(&b'$') {
            return self.directive(first, lexer);
        }
        let mut next = first;
        if has_blank {
            if self.owner.as_wire().is_empty() {
                let what = "a line that starts with a blank has the owner of the line before, and there is none";
                return Err((first.place, what.into()));
            }
        } else {
            rdata::name(&first, self.origin.as_wire(), &mut self.owner)?;
            next = need(lexer, "a type")?;
        }
        self.record(next, lexer)?;
        Ok(None)
    }

    /// What stands behind the owner.
    fn record(&mut self, first: Word<'_>, lexer: &mut Lexer<'_>) -> Result<(), Wrong> {
        let (mut ttl, mut has_class, mut word) = (None, false, first);
        // RFC 1035 §5.1: TTL and class may stand in either order, or not at all.
        let rtype = loop {
            if ttl.is_none() && word.text.first().is_some_and(u8::is_ascii_digit) {
                ttl = Some(rdata::period(&word).map_err(|(place, what)| {
                    (
                        place,
                        format!("{what} (a TTL, a class or a type stands here)"),
                    )
                })?);
            } else if !has_class && is_class(&word)? {
                has_class = true;
            } else {
                break rtype(&word)?;
            }
            word = need(lexer, "a type")?;
        };
        self.rdata.clear();
        let mut words = Words {
            lexer,
            end: None,
            before: word.place,
        };
        rdata::parse(rtype, &mut words, self.origin.as_wire(), &mut self.rdata)?;
        words.finish()?;
        if let Some(ttl) = ttl {
            self.last_ttl = Some(ttl);
        }
        let ttl = ttl.or(self.default_ttl).or(self.last_ttl);
        let ttl = match (ttl, rtype) {
            (Some(ttl), _) => ttl,
            // As BIND: an SOA without a TTL has its own minimum.
            (None, Rtype::SOA) => {
                let minimum = self.rdata.last_chunk::<4>();
                let ttl = minimum.map_or(0, |four| u32::from_be_bytes(*four));
                self.last_ttl = Some(ttl);
                ttl
            }
            (None, _) => {
                let what = "no TTL: write `$TTL 3600` above, or a TTL before the type";
                return Err((first.place, what.into()));
            }
        };
        let record = Record {
            owner: self.owner.as_wire(),
            rtype,
            ttl,
            rdata: &self.rdata,
        };
        (self.sink)(record).map_err(|error| (first.place, error.to_string()))
    }

    fn directive(
        &mut self,
        word: Word<'_>,
        lexer: &mut Lexer<'_>,
    ) -> Result<Option<Directive>, Wrong> {
        let is = |name: &str| word.text.eq_ignore_ascii_case(name.as_bytes());
        if is("$ORIGIN") {
            let name = need(lexer, "a name")?;
            let mut origin = NameBuf::new();
            rdata::name(&name, self.origin.as_wire(), &mut origin)?;
            self.origin = origin;
            ends(lexer)?;
            return Ok(None);
        }
        if is("$TTL") {
            let period = need(lexer, "a TTL, such as 3600 or 1h")?;
            self.default_ttl = Some(rdata::period(&period)?);
            ends(lexer)?;
            return Ok(None);
        }
        if is("$INCLUDE") {
            let file = need(lexer, "a file")?;
            let name = String::from_utf8(file.text.to_vec())
                .map_err(|_| (file.place, "the file's name is not UTF-8".to_owned()))?;
            let mut origin = None;
            if let Token::Word(word) = lexer.token()? {
                let mut name = NameBuf::new();
                rdata::name(&word, self.origin.as_wire(), &mut name)?;
                origin = Some(name.to_name());
                ends(lexer)?;
            }
            return Ok(Some(Directive::Include {
                place: file.place,
                file: name,
                origin,
            }));
        }
        if is("$GENERATE") {
            return generate::Generate::read(word.place, lexer)
                .map(|generate| Some(Directive::Generate(generate)));
        }
        let what = format!(
            "unknown directive {}; there are $ORIGIN, $TTL, $INCLUDE and $GENERATE",
            word.show()
        );
        Err((word.place, what))
    }

    fn generate(&mut self, generate: &generate::Generate) -> Result<(), Wrong> {
        for number in generate.numbers() {
            let line = generate.line(number)?;
            let mut lexer = Lexer::new(line.as_bytes());
            let made = self.entry(&mut lexer);
            // A place in a line that nobody wrote helps nobody.
            made.map_err(|(_, what)| (generate.place, format!("{what}, in `{line}`")))?;
        }
        Ok(())
    }
}

/// A directive that concerns more than the reader's own state.
enum Directive {
    Include {
        place: Place,
        file: String,
        origin: Option<Name>,
    },
    Generate(generate::Generate),
}

fn buffer(name: &Name) -> NameBuf {
    let mut buffer = NameBuf::new();
    // A name fits a name's buffer.
    let fits = buffer.extend(name.as_wire());
    debug_assert!(fits.is_ok());
    buffer
}

fn at(file: &Path, (place, what): Wrong) -> Fault {
    Fault {
        file: file.to_owned(),
        place: Some(place),
        what,
        not_found: false,
    }
}

/// A regular file as a whole.
fn whole(path: &Path) -> std::io::Result<Vec<u8>> {
    // Before it is opened: opening a pipe waits for somebody who writes.
    if !path.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    if metadata.len() > FILE_OCTETS_MAX {
        return Err(std::io::Error::other("more than 4 GiB"));
    }
    let mut text = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(FILE_OCTETS_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// The words of a record's data.
pub(super) struct Words<'l, 't> {
    lexer: &'l mut Lexer<'t>,
    // Where the entry ended, once it has.
    end: Option<Place>,
    // The word before, for what is missing behind it.
    before: Place,
}

impl<'t> Words<'_, 't> {
    /// The next word, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Word<'t>>, Wrong> {
        if self.end.is_some() {
            return Ok(None);
        }
        match self.lexer.token()? {
            Token::Word(word) => {
                self.before = word.place;
                Ok(Some(word))
            }
            Token::End => {
                self.end = Some(self.before);
                Ok(None)
            }
        }
    }

    /// The next word.
    pub(super) fn need(&mut self, what: &str) -> Result<Word<'t>, Wrong> {
        let missing = self.before;
        self.next()?
            .ok_or_else(|| (missing, format!("{what} is missing behind this")))
    }

    /// Where the last word stood.
    pub(super) fn place(&self) -> Place {
        self.before
    }

    fn finish(mut self) -> Result<(), Wrong> {
        match self.next()? {
            None => Ok(()),
            Some(word) => Err((word.place, format!("{} is one word too many", word.show()))),
        }
    }
}

fn need<'t>(lexer: &mut Lexer<'t>, what: &str) -> Result<Word<'t>, Wrong> {
    let before = lexer.place();
    match lexer.token()? {
        Token::Word(word) => Ok(word),
        Token::End => Err((before, format!("{what} is missing here"))),
    }
}

fn ends(lexer: &mut Lexer<'_>) -> Result<(), Wrong> {
    match lexer.token()? {
        Token::End => Ok(()),
        Token::Word(word) => Err((word.place, format!("{} is one word too many", word.show()))),
    }
}

/// Whether a word is the class; only IN is served.
fn is_class(word: &Word<'_>) -> Result<bool, Wrong> {
    let is = |text: &str| word.text.eq_ignore_ascii_case(text.as_bytes());
    if word.quoted {
        return Ok(false);
    }
    if is("IN") || is("CLASS1") {
        return Ok(true);
    }
    let is_other = ["CH", "HS", "CS", "NONE", "ANY"]
        .iter()
        .any(|name| is(name))
        || word.text.split_at_checked(5).is_some_and(|(head, digits)| {
            head.eq_ignore_ascii_case(b"CLASS") && digits.iter().all(u8::is_ascii_digit)
        });
    match is_other {
        true => {
            let what = format!(
                "class {} is not served; write IN, or leave the class out",
                word.show()
            );
            Err((word.place, what))
        }
        false => Ok(false),
    }
}

/// The type that a word stands for.
fn rtype(word: &Word<'_>) -> Result<Rtype, Wrong> {
    // The usual ones without going through the table.
    let rtype = match word.text {
        _ if word.quoted => None,
        b"A" => Some(Rtype::A),
        b"AAAA" => Some(Rtype::AAAA),
        b"NS" => Some(Rtype::NS),
        b"CNAME" => Some(Rtype::CNAME),
        b"MX" => Some(Rtype::MX),
        b"TXT" => Some(Rtype::TXT),
        b"PTR" => Some(Rtype::PTR),
        b"SRV" => Some(Rtype::SRV),
        b"RRSIG" => Some(Rtype::RRSIG),
        b"NSEC3" => Some(Rtype::NSEC3),
        text => std::str::from_utf8(text).ok().and_then(Rtype::parse),
    };
    let Some(rtype) = rtype else {
        let what = format!(
            "{} is no type; a type such as A or TYPE65280 stands here",
            word.show()
        );
        return Err((word.place, what));
    };
    // RFC 6895 §3.1: questions and what belongs to messages are no data.
    if matches!(rtype.0, 0 | 41 | 128..=255) {
        let what = format!("{rtype} is no type that a zone has; leave the record out");
        return Err((word.place, what));
    }
    Ok(rtype)
}
