//! Domain names in wire form: reading, printing, comparing.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// The longest name, in octets of wire form (RFC 1035 §2.3.4).
pub const NAME_OCTETS_MAX: usize = 255;
/// The longest label, in octets (RFC 1035 §2.3.4).
pub const LABEL_OCTETS_MAX: usize = 63;

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

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::EmptyLabel => "empty label in a domain name",
            NameError::LabelTooLong => "a label has more than 63 octets",
            NameError::NameTooLong => "a domain name has more than 255 octets",
            NameError::BadEscape => {
                "a backslash must be followed by three digits up to 255, or by the character it protects"
            }
            NameError::BadWire => "not the wire form of a domain name",
        })
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The root.
    pub fn root() -> Name {
        Name(Box::new([0]))
    }

    /// Reads presentation format (RFC 1035 §5.1): `\.` and `\DDD` escapes, always absolute, the last dot optional; "." is the root.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        if text == "." {
            return Ok(Name::root());
        }
        let mut name = NameBuf::new();
        let mut label = NameBuf::new();
        let mut bytes = text.bytes();
        // The dot behind the last label is optional, an empty text is not a name.
        let mut open = true;
        while let Some(byte) = bytes.next() {
            open = true;
            match byte {
                b'.' => {
                    name.push_label(label.as_wire())?;
                    label.clear();
                    open = false;
                }
                b'\\' => label.push(unescape(&mut bytes)?)?,
                byte => label.push(byte)?,
            }
        }
        if open {
            name.push_label(label.as_wire())?;
        }
        name.push(0)?;
        Ok(name.to_name())
    }

    /// Takes uncompressed wire form, the whole slice.
    pub fn from_wire(wire: &[u8]) -> Result<Name, NameError> {
        match wire_len(wire) {
            Some(len) if len == wire.len() => Ok(Name(wire.into())),
            _ if wire.len() > NAME_OCTETS_MAX => Err(NameError::NameTooLong),
            _ => Err(NameError::BadWire),
        }
    }

    /// This name with one more label in front.
    pub fn child(&self, label: &[u8]) -> Result<Name, NameError> {
        let mut name = NameBuf::new();
        name.push_label(label)?;
        name.extend(&self.0)?;
        Ok(name.to_name())
    }

    /// Uncompressed wire form.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The same name in lower case.
    pub fn to_lowercase(&self) -> Name {
        // Length octets are below 64 and so never letters.
        Name(self.0.to_ascii_lowercase().into())
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        Name::parse(text)
    }
}

impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// What stands behind a backslash: three digits, or any character but a digit.
fn unescape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = bytes.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        match bytes.next() {
            Some(digit) if digit.is_ascii_digit() => {
                value = value * 10 + u32::from(digit - b'0');
            }
            _ => return Err(NameError::BadEscape),
        }
    }
    u8::try_from(value).map_err(|_| NameError::BadEscape)
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

    /// Empties it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends octets as they are.
    pub fn extend(&mut self, octets: &[u8]) -> Result<(), NameError> {
        let start = usize::from(self.len);
        let end = start + octets.len();
        self.bytes
            .get_mut(start..end)
            .ok_or(NameError::NameTooLong)?
            .copy_from_slice(octets);
        self.len = end as u8;
        Ok(())
    }

    /// Appends one octet: the root's zero, mostly.
    pub fn push(&mut self, octet: u8) -> Result<(), NameError> {
        self.extend(&[octet])
    }

    /// Appends a label with its length octet.
    pub fn push_label(&mut self, label: &[u8]) -> Result<(), NameError> {
        match label.len() {
            0 => Err(NameError::EmptyLabel),
            1..=LABEL_OCTETS_MAX => {
                self.push(label.len() as u8)?;
                self.extend(label)
            }
            _ => Err(NameError::LabelTooLong),
        }
    }

    /// Lower-cases what is in it.
    pub fn make_lowercase(&mut self) {
        self.bytes[..usize::from(self.len)].make_ascii_lowercase();
    }

    /// An owned copy; the caller has put a whole name in.
    pub fn to_name(&self) -> Name {
        debug_assert_eq!(wire_len(self.as_wire()), Some(usize::from(self.len)));
        Name(self.as_wire().into())
    }
}

impl Default for NameBuf {
    fn default() -> NameBuf {
        NameBuf::new()
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&display(self.as_wire()), f)
    }
}

/// Octets of the uncompressed name at the start of `wire`; `None` if there is none.
pub fn wire_len(wire: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*wire.get(at)?) {
            0 => break,
            len @ 1..=LABEL_OCTETS_MAX => at += 1 + len,
            _ => return None,
        }
    }
    (at < NAME_OCTETS_MAX).then_some(at + 1)
}

/// Prints a wire-form name in presentation format with its last dot: what means something in a zone file behind a backslash, octets
/// outside the space and `!`..`~` as `\DDD`; as the Go library `miekg/dns` does, so that logs look like CoreDNS's.
pub fn display(wire: &[u8]) -> Display<'_> {
    Display(wire)
}

/// See [`display`].
pub struct Display<'a>(&'a [u8]);

impl fmt::Display for Display<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut labels = labels(self.0).peekable();
        if labels.peek().is_none() {
            return f.write_char('.');
        }
        for label in labels {
            for &octet in label {
                match octet {
                    b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' => {
                        f.write_char('\\')?;
                        f.write_char(char::from(octet))?;
                    }
                    b'!'..=b'~' => f.write_char(char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_char('.')?;
        }
        Ok(())
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

/// Splits the first label off; `None` at the root and where the bytes are no name.
fn split_label(wire: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = wire.split_first()?;
    match usize::from(*len) {
        len @ 1..=LABEL_OCTETS_MAX => rest.split_at_checked(len),
        _ => None,
    }
}

/// The name itself, its parent, and so on down to the root. Never panics, whatever the bytes.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = (!wire.is_empty()).then_some(wire);
    std::iter::from_fn(move || {
        let suffix = rest?;
        rest = split_label(suffix)
            .map(|(_, parent)| parent)
            .filter(|parent| !parent.is_empty());
        Some(suffix)
    })
}

/// The labels, first to last, without the root.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (label, parent) = split_label(rest)?;
        rest = parent;
        Some(label)
    })
}

/// Whether `name` is `zone` or below it. Both lower-cased wire form.
pub fn is_within(name: &[u8], zone: &[u8]) -> bool {
    let mut rest = name;
    while rest.len() > zone.len() {
        match split_label(rest) {
            Some((_, parent)) => rest = parent,
            None => return false,
        }
    }
    rest == zone
}

/// Equality without regard to ASCII case (RFC 4343).
pub fn eq_ignore_case(a: &[u8], b: &[u8]) -> bool {
    // Length octets are below 64, so that folding case never changes one.
    a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn presentation_format_is_read() {
        assert_eq!(
            name("www.Example.org").as_wire(),
            b"\x03www\x07Example\x03org\x00"
        );
        assert_eq!(name("www.example.org."), name("www.example.org"));
        assert_eq!(name(".").as_wire(), [0]);
        assert_eq!(
            name(r"a\.b\032\\.c").as_wire(),
            [5, b'a', b'.', b'b', b' ', b'\\', 1, b'c', 0]
        );
        assert_eq!(Name::parse(""), Err(NameError::EmptyLabel));
        assert_eq!(Name::parse("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(Name::parse(".a"), Err(NameError::EmptyLabel));
        assert_eq!(Name::parse(".."), Err(NameError::EmptyLabel));
        assert_eq!(Name::parse(r"a\25"), Err(NameError::BadEscape));
        assert_eq!(Name::parse(r"a\256"), Err(NameError::BadEscape));
        assert_eq!(Name::parse("a\\"), Err(NameError::BadEscape));
        assert_eq!(Name::parse(r"a\").err(), Some(NameError::BadEscape));
    }

    #[test]
    fn lengths_have_their_limits() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(name(&longest).as_wire().len(), 255);
        assert_eq!(
            Name::parse(&format!("{longest}a")),
            Err(NameError::NameTooLong)
        );
        assert_eq!(Name::parse(&"a".repeat(64)), Err(NameError::LabelTooLong));
        assert_eq!(Name::parse(&"a".repeat(300)), Err(NameError::NameTooLong));
    }

    #[test]
    fn wire_form_is_taken_whole_or_not_at_all() {
        assert_eq!(Name::from_wire(b"\x01a\x00"), Ok(name("a")));
        for bad in [&b""[..], b"\x01a", b"\x01a\x00\x00", b"\x40", b"\xc0\x0c"] {
            assert_eq!(Name::from_wire(bad), Err(NameError::BadWire), "{bad:?}");
        }
        assert_eq!(Name::from_wire(&[0; 256]), Err(NameError::NameTooLong));
    }

    #[test]
    fn names_print_like_zone_files() {
        assert_eq!(name("WWW.example.org").to_string(), "WWW.example.org.");
        assert_eq!(Name::root().to_string(), ".");
        assert_eq!(display(b"").to_string(), ".");
        let odd = Name::from_wire(b"\x0c\x00\xff.\\ '@;()\"$\x03mal\x00");
        assert_eq!(
            odd.map(|odd| odd.to_string()),
            Ok(r#"\000\255\.\\\ \'\@\;\(\)\"$.mal."#.to_owned())
        );
    }

    #[test]
    fn suffixes_go_down_to_the_root() {
        let www = name("www.example.org");
        let texts: Vec<String> = suffixes(www.as_wire())
            .map(|suffix| display(suffix).to_string())
            .collect();
        assert_eq!(texts, ["www.example.org.", "example.org.", "org.", "."]);
        assert_eq!(suffixes(&[0]).count(), 1);
        assert_eq!(suffixes(&[]).count(), 0);
        assert_eq!(labels(www.as_wire()).count(), 3);
        assert_eq!(labels(&[0]).count(), 0);
    }

    #[test]
    fn within_counts_labels_not_octets() {
        let within = |a: &str, b: &str| is_within(name(a).as_wire(), name(b).as_wire());
        assert!(within("www.example.org", "example.org"));
        assert!(within("example.org", "example.org"));
        assert!(within("example.org", "."));
        assert!(within(".", "."));
        assert!(!within("badexample.org", "example.org"));
        assert!(!within("org", "example.org"));
        assert!(!within("example.com", "example.org"));
    }

    #[test]
    fn a_child_has_one_more_label() {
        assert_eq!(name("b").child(b"a"), Ok(name("a.b")));
        assert_eq!(name("b").child(b""), Err(NameError::EmptyLabel));
    }

    proptest! {
        #[test]
        fn printed_and_read_again_is_itself(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..10)) {
            let mut buf = NameBuf::new();
            for label in &labels {
                buf.push_label(label)?;
            }
            buf.push(0)?;
            let name = buf.to_name();
            prop_assert_eq!(Name::parse(&name.to_string()), Ok(name.clone()));
            prop_assert_eq!(Name::from_wire(name.as_wire()), Ok(name));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), zone in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = Name::from_wire(&bytes);
            let _ = display(&bytes).to_string();
            prop_assert!(suffixes(&bytes).count() <= bytes.len());
            prop_assert!(labels(&bytes).count() <= bytes.len());
            let _ = is_within(&bytes, &zone);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*|[a-z0-9.\\\\]*") {
            let _ = Name::parse(&text);
        }
    }
}
