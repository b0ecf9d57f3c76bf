//! Domain names in wire form: reading, printing, comparing.

use std::fmt;

/// The longest name, in octets of wire form (RFC 1035 §2.3.4).
pub const NAME_OCTETS_MAX: usize = 255;

/// An owned name in uncompressed wire form, spelled as it was written.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Room for one name, on the stack.
#[derive(Clone)]
pub struct NameBuf {
    bytes: [u8; NAME_OCTETS_MAX],
    len: u8,
}

/// Why a name is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameError {
    /// Two dots in a row, or a leading dot.
    EmptyLabel,
    /// More than 63 octets in a label.
    LabelTooLong,
    /// More than 255 octets in all.
    NameTooLong,
    /// A backslash that starts no escape (`\.` or `\DDD`).
    BadEscape,
    /// Wire form that ends early or has octets behind the root.
    BadWire,
}

impl Name {
    /// The root.
    pub fn root() -> Name {
        Name(Box::new([0]))
    }
    /// Reads presentation format (RFC 1035 §5.1): `\.` and `\DDD` escapes, always absolute, the last dot optional; "." is the root.
    pub fn parse(_text: &str) -> Result<Name, NameError> {
        todo!()
    }
    /// Takes uncompressed wire form, the whole slice.
    pub fn from_wire(_wire: &[u8]) -> Result<Name, NameError> {
        todo!()
    }
    /// Uncompressed wire form.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }
    /// The same name in lower case.
    pub fn to_lowercase(&self) -> Name {
        todo!()
    }
}

impl NameBuf {
    /// An empty buffer; not a name until something is put in.
    pub const fn new() -> NameBuf {
        NameBuf {
            bytes: [0; NAME_OCTETS_MAX],
            len: 0,
        }
    }
    /// What is in it.
    pub fn as_wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Prints a wire-form name in presentation format with its last dot; octets outside `!`..`~` as `\DDD`.
pub fn display(wire: &[u8]) -> Display<'_> {
    Display(wire)
}

/// See [`display`].
pub struct Display<'a>(&'a [u8]);

impl fmt::Display for Display<'_> {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&display(&self.0), f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&display(&self.0), f)
    }
}

/// The name itself, its parent, and so on down to the root. Never panics, whatever the bytes.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(wire);
    std::iter::from_fn(move || rest.take())
}

/// The labels, first to last, without the root.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(wire);
    std::iter::from_fn(move || rest.take())
}

/// Whether `name` is `zone` or below it. Both lower-cased wire form.
pub fn is_within(_name: &[u8], _zone: &[u8]) -> bool {
    todo!()
}

/// Equality without regard to ASCII case (RFC 4343).
pub fn eq_ignore_case(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}
