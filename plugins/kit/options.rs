//! Declared options: a plugin's directive as a table, which is parser, range check, error text and README alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::dnsfile::{Directive, Line, Span, Word};
use super::errors::{SetupError, SetupErrors, nearest};
use super::plugin::Plugin;
use super::wire::Rcode;
use super::zones::parse_zones;

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
    plugin: &Plugin,
    directive: &Directive,
    warnings: &mut Vec<SetupError>,
) -> Result<Checked, SetupErrors> {
    let mut errors = SetupErrors::default();
    let warned = warnings.len();
    let usage = usage(plugin.name, plugin.arguments);
    let values = fit(
        &directive.name,
        &directive.arguments,
        plugin.arguments,
        &usage,
        &mut errors,
    );
    let mut properties: Vec<(&'static str, Property)> = Vec::new();
    if let Some(lines) = &directive.block {
        if plugin.options.is_empty() && !plugin.free_block {
            let what = format!("{} takes no block", plugin.name);
            errors.0.push(SetupError::at(directive.name.span, what));
        } else {
            for line in lines {
                check_line(plugin, line, &mut properties, &mut errors, warnings);
            }
        }
    }
    for error in errors.0.iter_mut().chain(warnings.iter_mut().skip(warned)) {
        error.plugin.get_or_insert_with(|| plugin.name.to_owned());
    }
    errors.or(Checked {
        directive: directive.clone(),
        values,
        properties,
    })
}

fn check_line(
    plugin: &Plugin,
    line: &Line,
    properties: &mut Vec<(&'static str, Property)>,
    errors: &mut SetupErrors,
    warnings: &mut Vec<SetupError>,
) {
    let Some((word, arguments)) = line.words.split_first() else {
        return;
    };
    let Some(option) = plugin.options.iter().find(|opt| opt.name == word.text) else {
        if !plugin.free_block {
            errors.0.push(unknown_option(plugin, word));
        }
        return;
    };
    let is_double = properties.iter().any(|(name, _)| *name == option.name);
    match option.again {
        _ if !is_double || option.ignored => {}
        Again::Adds => {}
        Again::Last => {
            let what = format!("`{}` stands twice: the last one counts", option.name);
            warnings.push(SetupError::at(word.span, what));
        }
        Again::Error => {
            let what = format!("`{}` may stand only once", option.name);
            errors.0.push(SetupError::at(word.span, what));
        }
    }
    let values = if option.ignored {
        if !is_double {
            let what = format!("`{}` is accepted and has no effect; remove it", option.name);
            warnings.push(SetupError::at(word.span, what));
        }
        Vec::new()
    } else {
        fit(
            word,
            arguments,
            option.args,
            &usage(option.name, option.args),
            errors,
        )
    };
    let property = Property {
        word: word.clone(),
        values,
    };
    properties.push((option.name, property));
}

fn unknown_option(plugin: &Plugin, word: &Word) -> SetupError {
    let known = || {
        let options = plugin.options.iter().filter(|option| !option.ignored);
        options.map(|option| option.name)
    };
    let error = SetupError::at(word.span, format!("unknown option `{}`", word.text));
    match nearest(&word.text, known()) {
        Some(near) => error.suggest(near),
        None => SetupError {
            what: format!(
                "unknown option `{}`; {} knows {}",
                word.text,
                plugin.name,
                known().collect::<Vec<_>>().join(", ")
            ),
            ..error
        },
    }
}

/// How a line is written: `cache [TTL] [ZONES...]`.
fn usage(name: &str, args: &[Arg]) -> String {
    let mut usage = name.to_owned();
    for arg in args {
        usage.push(' ');
        usage.push_str(&arg.to_string());
    }
    usage
}

impl std::fmt::Display for Arg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            Count::One => f.write_str(self.name),
            Count::Optional => write!(f, "[{}]", self.name),
            Count::Any => write!(f, "[{}...]", self.name),
            // A name of several words is a syntax of its own.
            Count::Some if self.name.contains(' ') => f.write_str(self.name),
            Count::Some => write!(f, "{}...", self.name),
        }
    }
}

/// Deals the words of a line out to its arguments, first come first served; each argument leaves the words that
/// later ones cannot do without.
fn fit(
    head: &Word,
    words: &[Word],
    args: &'static [Arg],
    usage: &str,
    errors: &mut SetupErrors,
) -> Vec<(&'static str, Value)> {
    let mut values = Vec::new();
    let mut rest = words;
    // Why the next word was not taken by an argument that could do without it.
    let mut refused: Option<SetupError> = None;
    for (number, arg) in args.iter().enumerate() {
        let later = args.get(number + 1..).unwrap_or_default();
        let needed = later.iter().filter(|arg| arg.needs_one()).count();
        let most = match arg.count {
            Count::One | Count::Optional => 1,
            Count::Any | Count::Some => rest.len().saturating_sub(needed).max(1),
        };
        let mut taken = 0;
        while taken < most {
            let must = arg.needs_one() && taken == 0;
            let Some((word, behind)) = rest.split_first() else {
                break;
            };
            if !must && rest.len() <= needed {
                break;
            }
            match arg.kind.read(&word.text) {
                Ok(parsed) => {
                    let word = word.clone();
                    values.push((arg.name, Value { word, parsed }));
                    refused = None;
                }
                Err(what) => {
                    let error = SetupError::at(word.span, format!("{} {what}", arg.name));
                    if !must && !later.is_empty() {
                        refused.get_or_insert(error);
                        break;
                    }
                    if !must && arg.count == Count::Optional {
                        refused.get_or_insert(error);
                        break;
                    }
                    errors.0.push(refused.take().unwrap_or(error));
                }
            }
            rest = behind;
            taken += 1;
        }
        if taken == 0 && arg.needs_one() {
            let what = format!("{} is missing; write `{usage}`", arg.name);
            errors.0.push(SetupError::at(head.span, what));
        }
    }
    if let Some(extra) = rest.first() {
        errors.0.push(refused.unwrap_or_else(|| {
            let what = format!("unexpected word `{}`; write `{usage}`", extra.text);
            SetupError::at(extra.span, what)
        }));
    }
    values
}

impl Arg {
    fn needs_one(&self) -> bool {
        matches!(self.count, Count::One | Count::Some)
    }
}

impl Kind {
    /// Reads a word; the error goes on from the argument's name: "must lie between 1 and 5, got `7`".
    fn read(&self, text: &str) -> Result<Parsed, String> {
        Ok(match *self {
            Kind::Text | Kind::Path => Parsed::Text(text.to_owned()),
            Kind::Integer { min, max } => Parsed::Integer(read_integer(text, min, max)?),
            Kind::Duration { min, max } => {
                let read =
                    parse_duration(text).map_err(|what| format!("is no duration: {what}"))?;
                Parsed::Duration(in_range(read, min, max, Duration::MAX, show_duration)?)
            }
            Kind::Seconds { min, max } => {
                let read = parse_seconds(text).map_err(|what| format!("is no duration: {what}"))?;
                Parsed::Duration(in_range(read, min, max, Duration::MAX, show_duration)?)
            }
            Kind::Size { min, max } => {
                let read = parse_size(text).map_err(|what| format!("is no size: {what}"))?;
                Parsed::Size(in_range(read, min, max, u64::MAX, show_size)?)
            }
            Kind::Percent { min, max } => {
                let digits = text
                    .strip_suffix('%')
                    .ok_or_else(|| format!("must end with `%`, got `{text}`"))?;
                Parsed::Integer(read_integer(digits, min, max)?)
            }
            Kind::Choice(choices) => choices
                .iter()
                .find(|choice| choice.eq_ignore_ascii_case(text))
                .map(|choice| Parsed::Text((*choice).to_owned()))
                .ok_or_else(|| not_among(text, choices))?,
            Kind::Zone => {
                Parsed::Zones(parse_zones(text).map_err(|what| format!("is no zone: {what}"))?)
            }
            Kind::Address => Parsed::Address(
                text.parse()
                    .map_err(|_| format!("must be an IP address, got `{text}`"))?,
            ),
            Kind::Listen => {
                parse_listen(text).map_err(|what| format!("cannot be listened on: {what}"))?;
                Parsed::Text(text.to_owned())
            }
            Kind::Rcode => Parsed::Rcode(
                Rcode::parse(text)
                    .ok_or_else(|| format!("must be an rcode such as NXDOMAIN, got `{text}`"))?,
            ),
            Kind::Regex => Parsed::Regex(parse_regex(text)?),
        })
    }
}

fn not_among(text: &str, choices: &[&str]) -> String {
    match choices {
        [one] => format!("can only be `{one}`, got `{text}`"),
        _ => format!("must be one of {}, got `{text}`", choices.join(", ")),
    }
}

fn read_integer(text: &str, min: i64, max: i64) -> Result<i64, String> {
    let read = text
        .parse()
        .map_err(|_| format!("must be a whole number, got `{text}`"))?;
    in_range(read, min, max, i64::MAX, |n| n.to_string())
}

/// The value, if it lies in the range; `unlimited` is an upper end that nobody wants to read.
fn in_range<T: PartialOrd + Copy>(
    value: T,
    min: T,
    max: T,
    unlimited: T,
    show: fn(T) -> String,
) -> Result<T, String> {
    if value >= min && value <= max {
        return Ok(value);
    }
    let (least, got) = (show(min), show(value));
    Err(if max >= unlimited {
        format!("must be at least {least}, got {got}")
    } else {
        format!("must lie between {least} and {}, got {got}", show(max))
    })
}

/// Octets of a regular expression, as in CoreDNS: a longer one is a mistake.
const REGEX_OCTETS_MAX: usize = 10_000;

/// Reads a regular expression.
fn parse_regex(text: &str) -> Result<regex::Regex, String> {
    if text.len() > REGEX_OCTETS_MAX {
        return Err(format!(
            "is too long: at most {REGEX_OCTETS_MAX} octets, got {}",
            text.len()
        ));
    }
    regex::Regex::new(text).map_err(|error| {
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default().trim();
        let why = why.trim_start_matches("error: ");
        format!("is no regular expression: {why}")
    })
}

/// Reads Go's duration syntax.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (negative, unsigned) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(format!(
            "write a number with its unit, like `30s`, got `{text}`"
        ));
    }
    let mut rest = unsigned;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (nanoseconds, behind) = duration_part(rest, text)?;
        total += nanoseconds;
        if total > DURATION_NANOSECONDS_MAX {
            return Err(format!("it is longer than 292 years: `{text}`"));
        }
        rest = behind;
    }
    if negative && total > 0 {
        return Err(format!("it is negative: `{text}`"));
    }
    Ok(Duration::from_nanos(
        u64::try_from(total).unwrap_or(u64::MAX),
    ))
}

/// Nanoseconds of the longest duration, as in Go: a signed number of 64 bits.
const DURATION_NANOSECONDS_MAX: u128 = i64::MAX as u128;

/// A number and its unit at the start of `rest`: nanoseconds, and what is behind.
fn duration_part<'t>(rest: &'t str, whole: &str) -> Result<(u128, &'t str), String> {
    let digits = |text: &'t str| {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        text.split_at(end)
    };
    let (integer, behind) = digits(rest);
    let (fraction, behind) = match behind.strip_prefix('.') {
        Some(behind) => digits(behind),
        None => ("", behind),
    };
    if integer.is_empty() && fraction.is_empty() {
        return Err(format!(
            "write a number with its unit, like `30s`, got `{whole}`"
        ));
    }
    let unit_end = behind
        .find(|c: char| c.is_ascii_digit() || c == '.')
        .unwrap_or(behind.len());
    let (unit, behind) = behind.split_at(unit_end);
    let unit: u128 = match unit {
        "ns" => 1,
        // The micro sign, and the Greek letter that looks like it.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        "" => return Err(format!("it has no unit; write `{whole}s` for seconds")),
        _ => {
            return Err(format!(
                "unknown unit `{unit}` in `{whole}`; units are ns, us, ms, s, m, h"
            ));
        }
    };
    // More digits than these are too many before, and below a nanosecond behind the point.
    let too_long = || format!("it is longer than 292 years: `{whole}`");
    let integer: u128 = match integer.trim_start_matches('0') {
        "" => 0,
        digits if digits.len() > 19 => return Err(too_long()),
        digits => digits.parse().map_err(|_| too_long())?,
    };
    let fraction = fraction.get(..fraction.len().min(18)).unwrap_or_default();
    let part = match fraction.parse::<u128>() {
        Ok(number) => number * unit / 10u128.pow(u32::try_from(fraction.len()).unwrap_or(0)),
        Err(_) => 0,
    };
    Ok((integer * unit + part, behind))
}

/// As [`parse_duration`], but a bare number means seconds.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
        parse_duration(&format!("{text}s"))
    } else {
        parse_duration(text)
    }
}

/// A duration as the Dnsfile writes it: `1h30m`, `1.5s`, `100ms`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.is_zero() {
        return "0s".to_owned();
    }
    if seconds == 0 {
        return format!("{duration:?}").replace('\u{b5}', "u");
    }
    let mut shown = String::new();
    for (unit, count) in [("h", seconds / 3600), ("m", seconds % 3600 / 60)] {
        if count > 0 {
            shown.push_str(&format!("{count}{unit}"));
        }
    }
    let below_minute = Duration::new(seconds % 60, duration.subsec_nanos());
    if !below_minute.is_zero() {
        let fraction = format!(".{:09}", below_minute.subsec_nanos());
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        shown.push_str(&format!("{}{fraction}s", below_minute.as_secs()));
    }
    shown
}

/// Reads a number of octets with its unit: `512B`, `64KiB`, `256MiB`, `1G`. Units are powers of 1024, with or without `i` and `B`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    if digits.is_empty() {
        return Err(format!(
            "write a number with its unit, like `256MiB`, got `{text}`"
        ));
    }
    let shift = match unit.to_ascii_uppercase().as_str() {
        "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        "" => return Err(format!("it has no unit; write `{text}MiB` or `{text}B`")),
        _ => {
            return Err(format!(
                "unknown unit `{unit}` in `{text}`; units are B, KiB, MiB, GiB, TiB"
            ));
        }
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("it is too large: `{text}`"))
}

/// A size as the Dnsfile writes it, in the largest unit that leaves nothing over.
pub fn show_size(octets: u64) -> String {
    [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| octets > 0 && octets.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{octets}B"),
            |(unit, shift)| format!("{}{unit}", octets >> shift),
        )
}

/// An `ADDRESS:PORT` to listen on: no host is every address, `localhost` is 127.0.0.1.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!(
            "missing port in address `{text}`; write `{text}:8080` or `:8080`"
        ));
    };
    let port = match port.parse::<u16>() {
        Ok(number) if port.bytes().all(|octet| octet.is_ascii_digit()) => number,
        _ => {
            return Err(format!(
                "a port lies between 0 and 65535, got `{port}` in `{text}`"
            ));
        }
    };
    let address: IpAddr = match host {
        "" => Ipv6Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(host) => host.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
            None => host.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
        }
        .ok_or_else(|| {
            if host.parse::<Ipv6Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
                format!(
                    "an IPv6 address with a port stands in brackets, like `[::1]:53`, got `{text}`"
                )
            } else {
                format!(
                    "`{host}` is not an IP address; names are not looked up for what to listen on"
                )
            }
        })?,
    };
    Ok(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::plugin::Repeat;
    use crate::kit::setup::ServerSetup;

    fn duration(text: &str) -> String {
        match parse_duration(text) {
            Ok(duration) => show_duration(duration),
            Err(what) => what,
        }
    }

    #[test]
    fn durations_are_go_s() {
        for (text, shown) in [
            ("1h20m", "1h20m"),
            ("0.5s", "500ms"),
            ("100ms", "100ms"),
            ("1.5h", "1h30m"),
            ("0", "0s"),
            ("+0", "0s"),
            ("-0s", "0s"),
            (".5m", "30s"),
            ("5.s", "5s"),
            ("1m1s1ms", "1m1.001s"),
            ("7us", "7us"),
            ("7\u{b5}s", "7us"),
            ("7ns", "7ns"),
            ("90m", "1h30m"),
            ("2562047h47m16s", "2562047h47m16s"),
            ("0.000000000000000000000000000001s", "0s"),
            ("30", "it has no unit; write `30s` for seconds"),
            ("", "write a number with its unit, like `30s`, got ``"),
            (".s", "write a number with its unit, like `30s`, got `.s`"),
            ("-", "write a number with its unit, like `30s`, got `-`"),
            ("-5s", "it is negative: `-5s`"),
            (
                "1d",
                "unknown unit `d` in `1d`; units are ns, us, ms, s, m, h",
            ),
            ("2562048h", "it is longer than 292 years: `2562048h`"),
            (
                "99999999999999999999999h",
                "it is longer than 292 years: `99999999999999999999999h`",
            ),
        ] {
            assert_eq!(duration(text), shown, "{text}");
        }
        assert_eq!(parse_seconds("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_seconds("2h30m"), Ok(Duration::from_secs(9000)));
        assert!(parse_seconds("").is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512B"), Ok(512));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1g"), Ok(1 << 30));
        assert_eq!(parse_size("2MB"), Ok(2 << 20));
        assert!(parse_size("64").is_err_and(|what| what.contains("no unit")));
        assert!(parse_size("MiB").is_err());
        assert!(parse_size("-1M").is_err());
        assert!(parse_size("99999999999T").is_err_and(|what| what.contains("too large")));
        assert_eq!(show_size(256 << 20), "256MiB");
        assert_eq!(show_size(1000), "1000B");
        assert_eq!(show_size(0), "0B");
    }

    #[test]
    fn listen_addresses() {
        let read = |text: &str| match parse_listen(text) {
            Ok(address) => address.to_string(),
            Err(what) => what,
        };
        assert_eq!(read(":9153"), "[::]:9153");
        assert_eq!(read("localhost:53"), "127.0.0.1:53");
        assert_eq!(read("[::1]:0"), "[::1]:0");
        assert_eq!(read("0.0.0.0:80"), "0.0.0.0:80");
        assert!(read("bla").starts_with("missing port in address `bla`"));
        assert!(read("bla:a").starts_with("a port lies between 0 and 65535"));
        assert!(read("1.2.3.4:+5").starts_with("a port lies between"));
        assert!(read("::1:53").contains("in brackets"));
        assert!(read("host:53").contains("is not an IP address"));
        assert!(read("/foo").starts_with("missing port"));
    }

    fn no_setup(_: &[Checked], _: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
        Ok(())
    }

    const PLUGIN: Plugin = Plugin {
        name: "probe",
        aliases: &[],
        summary: "for tests",
        arguments: &[
            Arg::optional("TTL", Kind::Integer { min: 1, max: 3600 }),
            Arg::any("WORDS", Kind::Text),
        ],
        options: &[
            Opt::new(
                "ttl",
                &[Arg::one(
                    "SECONDS",
                    Kind::Seconds {
                        min: Duration::from_secs(1),
                        max: Duration::from_secs(60),
                    },
                )],
                "30",
                "a time",
            ),
            Opt::new(
                "to",
                &[Arg::some("ADDRESS", Kind::Address)],
                "none",
                "addresses",
            )
            .adds(),
            Opt::new(
                "mode",
                &[
                    Arg::one("MODE", Kind::Choice(&["fast", "safe"])),
                    Arg::optional("SHARE", Kind::Percent { min: 10, max: 90 }),
                ],
                "fast",
                "a choice",
            )
            .once(),
            Opt::ignored("upstream", "nothing"),
        ],
        free_block: false,
        repeat: Repeat::Once,
        setup: no_setup,
    };

    const STRICT: Plugin = Plugin {
        arguments: &[
            Arg::optional(
                "TTL",
                Kind::Integer {
                    min: 1,
                    max: i64::MAX,
                },
            ),
            Arg::one("FROM", Kind::Text),
            Arg::some("TO", Kind::Address),
        ],
        options: &[],
        ..PLUGIN
    };

    fn line(text: &str) -> Line {
        let word = |text: &str| Word {
            text: text.to_owned(),
            span: Span {
                file: 0,
                start: 0,
                end: 0,
            },
            quoted: false,
        };
        Line {
            words: text.split_whitespace().map(word).collect(),
        }
    }

    /// `probe ARGUMENTS` and a block of `LINES`; what was read, or the errors, then the warnings.
    fn read(plugin: &Plugin, arguments: &str, lines: Option<&[&str]>) -> String {
        let directive = Directive {
            name: line("probe").words.remove(0),
            arguments: line(arguments).words,
            block: lines.map(|lines| lines.iter().map(|text| line(text)).collect()),
        };
        let mut warnings = Vec::new();
        let mut said = match check(plugin, &directive, &mut warnings) {
            Ok(checked) => {
                let mut said: Vec<String> = checked
                    .values
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.text()))
                    .collect();
                for (name, property) in &checked.properties {
                    let values = property.values.iter().map(|(_, value)| value.text());
                    said.push(format!("{name}({})", values.collect::<Vec<_>>().join(",")));
                }
                said
            }
            Err(errors) => errors
                .0
                .into_iter()
                .map(|error| match error.suggestion {
                    Some(near) => format!("{}; did you mean `{near}`?", error.what),
                    None => error.what,
                })
                .collect(),
        };
        said.extend(
            warnings
                .into_iter()
                .map(|warning| format!("warning: {}", warning.what)),
        );
        said.join(" | ")
    }

    #[test]
    fn arguments_are_dealt_out() {
        assert_eq!(read(&PLUGIN, "", None), "");
        assert_eq!(read(&PLUGIN, "30 a b", None), "TTL=30 | WORDS=a | WORDS=b");
        assert_eq!(read(&PLUGIN, "a 30", None), "WORDS=a | WORDS=30");
        assert_eq!(
            read(&STRICT, "5 . 192.0.2.1 2001:db8::1", None),
            "TTL=5 | FROM=. | TO=192.0.2.1 | TO=2001:db8::1"
        );
        // A word that a later argument cannot do without is left to it.
        assert_eq!(read(&STRICT, "5 192.0.2.1", None), "FROM=5 | TO=192.0.2.1");
        assert_eq!(
            read(&STRICT, ". x", None),
            "TO must be an IP address, got `x`"
        );
        assert_eq!(
            read(&STRICT, ".", None),
            "TO is missing; write `probe [TTL] FROM TO...`"
        );
        assert_eq!(
            read(&STRICT, ". 192.0.2.1 {", Some(&[])),
            "TO must be an IP address, got `{` | probe takes no block"
        );
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(
            read(&PLUGIN, "", Some(&["ttl 5", "to 192.0.2.1", "to ::1"])),
            "ttl(5) | to(192.0.2.1) | to(::1)"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["mode SAFE 20%"])),
            "mode(safe,20%)"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["mode slow"])),
            "MODE must be one of fast, safe, got `slow`"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["mode safe 20"])),
            "SHARE must end with `%`, got `20`"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["mode safe 9%"])),
            "SHARE must lie between 10 and 90, got 9"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["mode safe 10% x"])),
            "unexpected word `x`; write `mode MODE [SHARE]`"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["ttl 0", "ttls 1"])),
            "SECONDS must lie between 1s and 1m, got 0s | unknown option `ttls`; did you mean `ttl`?"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["xyzzy"])),
            "unknown option `xyzzy`; probe knows ttl, to, mode"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["ttl"])),
            "SECONDS is missing; write `ttl SECONDS`"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["mode safe", "mode fast"])),
            "`mode` may stand only once"
        );
    }

    #[test]
    fn what_has_no_effect_is_warned_about() {
        assert_eq!(
            read(&PLUGIN, "", Some(&["ttl 5", "ttl 6"])),
            "ttl(5) | ttl(6) | warning: `ttl` stands twice: the last one counts"
        );
        assert_eq!(
            read(&PLUGIN, "", Some(&["upstream a b", "upstream"])),
            "upstream() | upstream() | warning: `upstream` is accepted and has no effect; remove it"
        );
        assert_eq!(
            read(&STRICT, "5 a 192.0.2.1", Some(&[])),
            "probe takes no block"
        );
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in "[-+.0-9a-zA-Z%:\\[\\]\u{b5}]{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_seconds(&text);
            let _ = parse_size(&text);
            let _ = parse_listen(&text);
        }

        #[test]
        fn durations_read_as_they_are_shown(nanoseconds in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanoseconds);
            proptest::prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
            let duration = Duration::from_nanos(nanoseconds % 1_000_000_000);
            proptest::prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
    }
}
