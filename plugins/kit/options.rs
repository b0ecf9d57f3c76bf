//! Declared options: a plugin's directive as a table, which is parser, range check, error text and README alike.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::dnsfile::{Directive, Span, Word};

/// What a word may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Anything.
    Text,
    /// A whole number in this range.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Go's duration syntax (`1h20m`, `0.5s`, plain `0`), in this range; a bare number is an error.
    Duration {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// As `Duration`, but a bare number means seconds.
    Seconds {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// Octets: a number with `B`, `KiB`, `MiB`, `GiB` (`K`, `M`, `G`, `KB` … alike), in this range.
    Size {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A whole number followed by `%`, in this range.
    Percent {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// A zone or a CIDR network, which may stand for several reverse zones.
    Zone,
    /// An IP address.
    Address,
    /// `HOST:PORT` or `:PORT` to listen on.
    Listen,
    /// A file or folder; relative ones are taken from `root`.
    Path,
    /// An rcode's mnemonic.
    Rcode,
    /// A regular expression (at most 10,000 octets).
    Regex,
}

/// How many words an argument takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Exactly one.
    One,
    /// One or none; a word that is not of its kind belongs to the next argument.
    Optional,
    /// Any number, none included: `[NAME...]`.
    Any,
    /// One or more: `NAME...`.
    Some,
}

/// A positional argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arg {
    /// Its name in capitals, as the README writes it.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// How many words.
    pub count: Count,
}

impl Arg {
    /// Exactly one word.
    pub const fn one(name: &'static str, kind: Kind) -> Arg {
        Arg {
            name,
            kind,
            count: Count::One,
        }
    }
    /// One word or none.
    pub const fn optional(name: &'static str, kind: Kind) -> Arg {
        Arg {
            name,
            kind,
            count: Count::Optional,
        }
    }
    /// Any number of words.
    pub const fn any(name: &'static str, kind: Kind) -> Arg {
        Arg {
            name,
            kind,
            count: Count::Any,
        }
    }
    /// One or more words.
    pub const fn some(name: &'static str, kind: Kind) -> Arg {
        Arg {
            name,
            kind,
            count: Count::Some,
        }
    }
}

/// What happens when an option stands twice in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The last one counts, as in CoreDNS; a warning says so.
    Last,
    /// They add up.
    Adds,
    /// An error.
    Error,
}

/// An option of a directive's block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opt {
    /// Its word.
    pub name: &'static str,
    /// What stands behind it.
    pub args: &'static [Arg],
    /// Its default, as text for the README ("off", "2s").
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// A second one.
    pub again: Again,
    /// Accepted and without effect, as in CoreDNS: any words, one warning.
    pub ignored: bool,
}

impl Opt {
    /// An option; `again` is [`Again::Last`].
    pub const fn new(
        name: &'static str,
        args: &'static [Arg],
        default: &'static str,
        help: &'static str,
    ) -> Opt {
        Opt {
            name,
            args,
            default,
            help,
            again: Again::Last,
            ignored: false,
        }
    }
    /// Several of it add up.
    pub const fn adds(mut self) -> Opt {
        self.again = Again::Adds;
        self
    }
    /// A second one is an error.
    pub const fn once(mut self) -> Opt {
        self.again = Again::Error;
        self
    }
    /// A word of CoreDNS's that has no effect: accepted with one warning that names it.
    pub const fn ignored(name: &'static str, help: &'static str) -> Opt {
        Opt {
            name,
            args: &[],
            default: "",
            help,
            again: Again::Last,
            ignored: true,
        }
    }
}

/// A value that fits its argument.
#[derive(Clone, Debug)]
pub struct Value {
    /// The word it was read from.
    pub word: Word,
    /// What it is.
    pub parsed: Parsed,
}

/// What a word turned out to be.
#[derive(Clone, Debug)]
pub enum Parsed {
    /// Text, Choice (the choice's spelling), Path, Listen.
    Text(String),
    /// Integer, Percent.
    Integer(i64),
    /// Duration, Seconds.
    Duration(Duration),
    /// Size.
    Size(u64),
    /// Zone: at least one.
    Zones(Vec<super::zones::Zone>),
    /// Address.
    Address(IpAddr),
    /// Rcode.
    Rcode(super::wire::Rcode),
    /// Regex.
    Regex(regex::Regex),
}

impl Value {
    /// The text as written (Choice: as declared).
    pub fn text(&self) -> &str {
        match &self.parsed {
            Parsed::Text(text) => text,
            _ => &self.word.text,
        }
    }
    /// Its place.
    pub fn span(&self) -> Span {
        self.word.span
    }
    /// An Integer or Percent; 0 for other kinds.
    pub fn integer(&self) -> i64 {
        match self.parsed {
            Parsed::Integer(n) => n,
            _ => 0,
        }
    }
    /// A Duration or Seconds; zero for other kinds.
    pub fn duration(&self) -> Duration {
        match self.parsed {
            Parsed::Duration(d) => d,
            _ => Duration::ZERO,
        }
    }
    /// A Size; 0 for other kinds.
    pub fn size(&self) -> u64 {
        match self.parsed {
            Parsed::Size(n) => n,
            _ => 0,
        }
    }
    /// A Zone's zones.
    pub fn zones(&self) -> &[super::zones::Zone] {
        match &self.parsed {
            Parsed::Zones(zones) => zones,
            _ => &[],
        }
    }
    /// An Address.
    pub fn address(&self) -> Option<IpAddr> {
        match self.parsed {
            Parsed::Address(a) => Some(a),
            _ => None,
        }
    }
    /// An Rcode.
    pub fn rcode(&self) -> Option<super::wire::Rcode> {
        match self.parsed {
            Parsed::Rcode(r) => Some(r),
            _ => None,
        }
    }
    /// A Regex.
    pub fn regex(&self) -> Option<&regex::Regex> {
        match &self.parsed {
            Parsed::Regex(r) => Some(r),
            _ => None,
        }
    }
}

/// An option as it was written, checked against its [`Opt`].
#[derive(Clone, Debug)]
pub struct Property {
    /// Its word.
    pub word: Word,
    /// Argument name and value, in order.
    pub values: Vec<(&'static str, Value)>,
}

/// A directive, checked against its plugin's table.
#[derive(Clone, Debug)]
pub struct Checked {
    /// As parsed; for plugins with a syntax of their own.
    pub directive: Directive,
    /// Argument name and value, in order.
    pub values: Vec<(&'static str, Value)>,
    /// The options written, in order, with the table's spelling.
    pub properties: Vec<(&'static str, Property)>,
}

impl Property {
    /// The first value of an argument.
    pub fn arg(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
    /// All values of an argument.
    pub fn args<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> + 'a {
        self.values
            .iter()
            .filter(move |(n, _)| *n == name)
            .map(|(_, v)| v)
    }
    /// Its place.
    pub fn span(&self) -> Span {
        self.word.span
    }
}

impl Checked {
    /// The first value of an argument on the directive's line.
    pub fn arg(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
    /// All values of an argument on the directive's line.
    pub fn args<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> + 'a {
        self.values
            .iter()
            .filter(move |(n, _)| *n == name)
            .map(|(_, v)| v)
    }
    /// The option of this name that counts: the last one.
    pub fn option(&self, name: &str) -> Option<&Property> {
        self.properties
            .iter()
            .rev()
            .find(|(n, _)| *n == name)
            .map(|(_, p)| p)
    }
    /// All options of this name, in order.
    pub fn options<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Property> + 'a {
        self.properties
            .iter()
            .filter(move |(n, _)| *n == name)
            .map(|(_, p)| p)
    }
    /// Whether the option was written.
    pub fn has(&self, name: &str) -> bool {
        self.option(name).is_some()
    }
    /// The directive's place.
    pub fn span(&self) -> Span {
        self.directive.name.span
    }
}

/// Checks a directive against its plugin's table: count, kind and range of every word, unknown options with a
/// suggestion, options that stand twice. All errors, not the first; warnings (ignored words, doubles) are pushed.
pub fn check(
    _plugin: &super::plugin::Plugin,
    _directive: &Directive,
    _warnings: &mut Vec<super::errors::SetupError>,
) -> Result<Checked, super::errors::SetupErrors> {
    todo!()
}

/// Reads Go's duration syntax.
pub fn parse_duration(_text: &str) -> Result<Duration, String> {
    todo!()
}

/// An `ADDRESS:PORT` to listen on: no host is every address, `localhost` is 127.0.0.1.
pub fn parse_listen(_text: &str) -> Result<SocketAddr, String> {
    todo!()
}
