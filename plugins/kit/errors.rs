//! Errors by fault: [`ServeError`] while serving, [`SetupError`] while building.

use std::fmt;
use std::time::Duration;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::dnsfile::tree::Place;
use super::dnsfile::{Sources, Span};
use super::wire::Rcode;

/// Why a query failed, sorted by whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServeError {
    /// The client asked for something it may not or cannot have.
    Client(String),
    /// An upstream did not answer, or not usefully.
    Upstream {
        /// Its address.
        which: String,
        /// What it did.
        fault: UpstreamFault,
    },
    /// A backend (etcd …) cannot be used.
    Backend {
        /// Its name and address.
        which: String,
        /// What is wrong.
        what: String,
        /// No data yet at all: EDE 14 instead of 22.
        not_ready: bool,
    },
    /// A limit was reached; which one.
    Limit(String),
    /// We are at fault.
    Internal(String),
}

/// What an upstream did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// No answer in time.
    Timeout(Duration),
    /// The network said no.
    Unreachable(String),
    /// It closed the connection.
    Closed,
    /// Its answer cannot be used.
    Malformed(String),
    /// None of the upstreams is healthy.
    NoneHealthy,
}

impl ServeError {
    /// What the client sees: the one place that maps faults to rcodes.
    pub fn rcode(&self) -> Rcode {
        match self {
            ServeError::Client(_) => Rcode::FORMERR,
            ServeError::Upstream { .. }
            | ServeError::Backend { .. }
            | ServeError::Limit(_)
            | ServeError::Internal(_) => Rcode::SERVFAIL,
        }
    }

    /// The Extended DNS Error (RFC 8914 §4) with its text.
    pub fn ede(&self) -> Option<(u16, String)> {
        match self {
            ServeError::Client(_) => None,
            ServeError::Upstream { fault, .. } => Some(match fault {
                UpstreamFault::Timeout(_) | UpstreamFault::NoneHealthy => {
                    (22, "no reachable upstream".into())
                }
                UpstreamFault::Unreachable(_) | UpstreamFault::Closed => {
                    (23, "network error".into())
                }
                UpstreamFault::Malformed(_) => (23, "upstream answer unusable".into()),
            }),
            ServeError::Backend {
                not_ready: true, ..
            } => Some((14, "not ready".into())),
            ServeError::Backend { .. } => Some((22, "backend unreachable".into())),
            ServeError::Limit(_) => Some((0, "overloaded".into())),
            ServeError::Internal(_) => Some((0, "internal error".into())),
        }
    }

    /// Whether asking again, or another one, may help.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            ServeError::Upstream { .. } | ServeError::Backend { .. }
        )
    }

    /// The fault in one word, for the metric's label.
    pub fn fault(&self) -> &'static str {
        match self {
            ServeError::Client(_) => "client",
            ServeError::Upstream { .. } => "upstream",
            ServeError::Backend { .. } => "backend",
            ServeError::Limit(_) => "limit",
            ServeError::Internal(_) => "internal",
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Client(what) | ServeError::Limit(what) | ServeError::Internal(what) => {
                f.write_str(what)
            }
            ServeError::Upstream { which, fault } => match fault {
                UpstreamFault::Timeout(after) => {
                    write!(f, "upstream {which}: no answer within {after:?}")
                }
                UpstreamFault::Unreachable(what) => write!(f, "upstream {which}: {what}"),
                UpstreamFault::Closed => write!(f, "upstream {which}: closed the connection"),
                UpstreamFault::Malformed(what) => write!(f, "upstream {which}: {what}"),
                UpstreamFault::NoneHealthy => write!(f, "no healthy upstream (tried {which})"),
            },
            ServeError::Backend { which, what, .. } => write!(f, "{which}: {what}"),
        }
    }
}

impl std::error::Error for ServeError {}

//--- Setup -----------------------------------------------------------------------------------------

/// What is wrong in a Dnsfile, and where: `Dnsfile:12:9: cache: max_ttl must lie between 1s and 7d, got 0s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupError {
    /// Where; none for what belongs to no line (a port taken).
    pub at: Option<super::dnsfile::Span>,
    /// The plugin, if it was one.
    pub plugin: Option<String>,
    /// What is wrong and what to write instead: lower-case, no full stop.
    pub what: String,
    /// A word to put in its place, shown as "did you mean `…`?".
    pub suggestion: Option<String>,
}

impl SetupError {
    /// An error at a place.
    pub fn at(span: super::dnsfile::Span, what: impl Into<String>) -> SetupError {
        SetupError {
            at: Some(span),
            plugin: None,
            what: what.into(),
            suggestion: None,
        }
    }
    /// An error of the whole, without a place.
    pub fn general(what: impl Into<String>) -> SetupError {
        SetupError {
            at: None,
            plugin: None,
            what: what.into(),
            suggestion: None,
        }
    }
    /// With a suggestion.
    pub fn suggest(mut self, word: impl Into<String>) -> SetupError {
        self.suggestion = Some(word.into());
        self
    }
}

/// One or more errors of a setup; `?` turns a single one into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetupErrors(pub Vec<SetupError>);

impl From<SetupError> for SetupErrors {
    fn from(error: SetupError) -> SetupErrors {
        SetupErrors(vec![error])
    }
}

impl SetupErrors {
    /// Nothing wrong so far, or these errors: how a setup that collects them ends.
    pub fn or<T>(self, value: T) -> Result<T, SetupErrors> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

/// An error as the operator reads it: `Dnsfile:12:9: cache: what is wrong`, then the line with a mark under the place. What the
/// Dnsfile is called stands in `sources`.
pub fn render(error: &SetupError, sources: &Sources, colour: bool) -> String {
    render_as(Level::ERROR, error, sources, colour)
}

/// A warning as the operator reads it: as [`render`] does an error, with `warning: ` before what it says.
pub fn render_warning(warning: &SetupError, sources: &Sources, colour: bool) -> String {
    let warning = SetupError {
        what: format!("warning: {}", warning.what),
        ..warning.clone()
    };
    render_as(Level::WARNING, &warning, sources, colour)
}

fn render_as(level: Level<'static>, error: &SetupError, sources: &Sources, colour: bool) -> String {
    let place = error.at.and_then(|at| Some((at, sources.place(at)?)));
    let mut text = match (&place, sources.files.first()) {
        (Some((_, place)), _) => format!("{}:{}:{}: ", place.file, place.line, place.column),
        (None, Some((name, _))) => format!("{name}: "),
        (None, None) => String::new(),
    };
    if let Some(plugin) = &error.plugin {
        text.push_str(&format!("{plugin}: "));
    }
    text.push_str(&error.what);
    if let Some(near) = &error.suggestion {
        text.push_str(&format!("; did you mean `{near}`?"));
    }
    text.push('\n');
    if let Some((at, place)) = place
        && !place.text.trim().is_empty()
    {
        let picture = picture(level, at, place, colour);
        text.push_str(picture.trim_end());
        text.push('\n');
    }
    text
}

/// The line, and the place marked.
fn picture(level: Level<'static>, at: Span, place: Place<'_>, colour: bool) -> String {
    let start: usize = place
        .text
        .chars()
        .take(place.column - 1)
        .map(char::len_utf8)
        .sum();
    let length = (at.end.saturating_sub(at.start) as usize).min(place.text.len() - start);
    let mut end = start + length;
    while !place.text.is_char_boundary(end) {
        end -= 1;
    }
    let snippet = Snippet::source(place.text)
        .line_start(place.line)
        .annotation(AnnotationKind::Primary.span(start..end));
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.render(&[Group::with_level(level).element(snippet)])
}

/// The candidate nearest to a misspelt word, if one is near: about a third of its letters differ, at most.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > SUGGESTED_CHARS_MAX {
        return None;
    }
    let within = ((word.chars().count() + 1) / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= within && *distance < candidate.chars().count()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Characters of a word that is compared with others; the cost grows with the square.
const SUGGESTED_CHARS_MAX: usize = 64;

/// Letters to insert, remove, replace or swap with their neighbour, to make one word of the other; in any case.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| -> Vec<char> { text.chars().map(|c| c.to_ascii_lowercase()).collect() };
    let (a, b) = (fold(a), fold(b));
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(from != to);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && b[j - 1] == *from {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested() {
        let words = ["forward", "cache", "log", "loop", "errors"];
        assert_eq!(nearest("forwrd", words), Some("forward"));
        assert_eq!(nearest("fowrard", words), Some("forward"));
        assert_eq!(nearest("Cache", words), Some("cache"));
        assert_eq!(nearest("chace", words), Some("cache"));
        assert_eq!(nearest("lop", words), Some("log"));
        assert_eq!(nearest("rewrite", words), None);
        assert_eq!(nearest("x", words), None);
        assert_eq!(nearest("", words), None);
    }

    fn sources(text: &str) -> Sources {
        Sources {
            files: vec![("Dnsfile".into(), text.into())],
        }
    }

    fn span_of(text: &str, word: &str) -> Span {
        let start = text.find(word).unwrap();
        Span {
            file: 0,
            start: start as u32,
            end: (start + word.len()) as u32,
        }
    }

    #[test]
    fn errors_are_rendered_with_their_place() {
        let text = "a {\n    # größer\n    größer cahce \"x\ny\"\n}";
        let error = SetupError {
            plugin: Some("probe".into()),
            ..SetupError::at(span_of(text, "cahce"), "unknown option `cahce`").suggest("cache")
        };
        insta::assert_snapshot!(render(&error, &sources(text), false), @r#"
        Dnsfile:3:12: probe: unknown option `cahce`; did you mean `cache`?
          |
        3 |     größer cahce "x
          |            ^^^^^
        "#);
        let several = SetupError::at(span_of(text, "\"x\ny\""), "quoted");
        insta::assert_snapshot!(render(&several, &sources(text), false), @r#"
        Dnsfile:3:18: quoted
          |
        3 |     größer cahce "x
          |                  ^^
        "#);
        let end = Span {
            file: 0,
            start: text.len() as u32,
            end: text.len() as u32,
        };
        insta::assert_snapshot!(render_warning(&SetupError::at(end, "the end"), &sources(text), false), @"
        Dnsfile:5:2: warning: the end
          |
        5 | }
          |  ^
        ");
        insta::assert_snapshot!(render(&SetupError::general("no listener"), &sources(text), false), @"Dnsfile: no listener");
    }

    proptest::proptest! {
        #[test]
        fn rendering_never_panics(text in "(?s).{0,40}", start in 0u32..60, length in 0u32..60, colour: bool) {
            let at = Span { file: 0, start, end: start + length };
            render(&SetupError::at(at, "what"), &sources(&text), colour);
        }
    }
}
