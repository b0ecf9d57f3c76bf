//! Text to words: whitespace, comments, quotes. What a word means is not known here.

use nom::branch::alt;
use nom::bytes::complete::{escaped, is_not, tag, take_while, take_while1};
use nom::character::complete::{anychar, char};
use nom::combinator::{opt, recognize};
use nom::multi::many0_count;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use super::tree::{Span, Word};
use crate::kit::errors::SetupError;

/// What a word is to the grammar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Text, quoted or not.
    Word,
    /// `{`, not quoted.
    Open,
    /// `}`, not quoted.
    Close,
}

/// A word with what the grammar must know of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// No word stands before it on its line.
    pub(super) starts_line: bool,
    pub(super) word: Word,
}

/// Words of one file at most: one of the largest size with words of 16 octets. Each takes about 80 octets of memory.
const FILE_WORDS_MAX: usize = 1_000_000;

/// The words of a text. Environment variables stand as they were written.
pub(super) fn words(file: u32, text: &str, errors: &mut Vec<SetupError>) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let offset = |rest: &str| u32::try_from(text.len() - rest.len()).unwrap_or(u32::MAX);
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut starts_line = true;
    loop {
        let Ok((at, between)) = gap(rest) else {
            return tokens;
        };
        starts_line |= between.contains('\n');
        if at.is_empty() {
            return tokens;
        }
        let start = offset(at);
        if tokens.len() >= FILE_WORDS_MAX {
            let span = Span {
                file,
                start,
                end: start,
            };
            let what = format!("too many words in one file: at most {FILE_WORDS_MAX}");
            errors.push(SetupError::at(span, what));
            return tokens;
        }
        let is_quoted = at.starts_with('"');
        let Ok((behind, text)) = (if is_quoted { quoted(at) } else { bare(at) }) else {
            let span = Span {
                file,
                start,
                end: start + 1,
            };
            let what = "this quote is never closed; write `\\\"` for a quote inside a quoted text";
            errors.push(SetupError::at(span, what));
            return tokens;
        };
        let span = Span {
            file,
            start,
            end: offset(behind),
        };
        for (kind, text) in pieces(text, is_quoted) {
            let word = Word {
                text,
                span,
                quoted: is_quoted,
            };
            tokens.push(Token {
                kind,
                starts_line: std::mem::take(&mut starts_line),
                word,
            });
        }
        rest = behind;
    }
}

/// A brace is one if it stands alone; `{}` is a block with nothing in it, since nobody means a zone of that name.
fn pieces(text: String, quoted: bool) -> Vec<(Kind, String)> {
    match text.as_str() {
        _ if quoted => vec![(Kind::Word, text)],
        "{" => vec![(Kind::Open, text)],
        "}" => vec![(Kind::Close, text)],
        "{}" => vec![(Kind::Open, "{".into()), (Kind::Close, "}".into())],
        _ => vec![(Kind::Word, text)],
    }
}

/// Whitespace and comments.
fn gap(text: &str) -> IResult<&str, &str> {
    let blank = take_while1(char::is_whitespace);
    let comment = preceded(char('#'), take_while(|c| c != '\n'));
    recognize(many0_count(alt((blank, comment)))).parse(text)
}

/// A word without quotes: up to whitespace or a comment, which may start in its midst. A carriage return is no
/// whitespace here but nothing at all, so that files with CRLF read like others.
fn bare(text: &str) -> IResult<&str, String> {
    let inside = |c: char| c == '\r' || !(c.is_whitespace() || c == '#');
    take_while1(inside)
        .map(|word: &str| word.chars().filter(|c| *c != '\r').collect())
        .parse(text)
}

/// A quoted word. `\"` is a quote; every other backslash stays, with what is behind it.
fn quoted(text: &str) -> IResult<&str, String> {
    let inside = escaped(is_not("\\\""), '\\', anychar);
    delimited(tag("\""), opt(inside), tag("\""))
        .map(|inside: Option<&str>| unescape(inside.unwrap_or_default()))
        .parse(text)
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('"') => plain.push('"'),
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words with `/` before those that start a line and `"` before quoted ones; then the errors.
    fn lex(text: &str) -> String {
        let mut errors = Vec::new();
        let tokens = words(0, text, &mut errors);
        let mut shown: Vec<String> = tokens
            .iter()
            .map(|token| {
                let line = if token.starts_line { "/" } else { "" };
                let quote = if token.word.quoted { "\"" } else { "" };
                let kind = match token.kind {
                    Kind::Word => "",
                    Kind::Open => "open",
                    Kind::Close => "close",
                };
                format!("{line}{quote}{kind}{}", token.word.text)
            })
            .collect();
        shown.extend(errors.into_iter().map(|error| {
            let at = error.at.map_or(0, |span| span.start);
            format!("{at}: {}", error.what)
        }));
        shown.join(" ")
    }

    #[test]
    fn words_are_split_as_in_coredns() {
        for (text, tokens) in [
            ("host:123 { directive }", "/host:123 open{ directive close}"),
            ("# a comment\nb", "/b"),
            ("a#b c\nd", "/a /d"),
            ("\u{feff}:8080", "/:8080"),
            ("\u{feff}\u{feff}a", "/\u{feff}a"),
            ("a\rb\r\nc", "/ab /c"),
            ("a\u{a0}b\u{b}c\u{85}d", "/a b c d"),
            ("a\"b c\"", "/a\"b c\""),
            ("\"a\"b", "/\"a b"),
            (
                r#""C:\php" "don't\\escape" "say \"hi\"""#,
                r#"/"C:\php "don't\\escape "say "hi""#,
            ),
            (r#""\\" x"#, r#"/"\\ x"#),
            ("\"a # b\" c", "/\"a # b c"),
            ("\"{\" \"}\"", "/\"{ \"}"),
            ("\"\" a", "/\" a"),
            ("A \"x\ny\" {", "/A \"x\ny open{"),
            ("example.org{", "/example.org{"),
            ("a {}", "/a open{ close}"),
            ("{$X} {{ .Name }}", "/{$X} {{ .Name }}"),
            ("", ""),
            ("\r", ""),
        ] {
            assert_eq!(lex(text), tokens, "{text:?}");
        }
    }

    #[test]
    fn an_unterminated_quote_is_an_error_at_its_opening() {
        for text in ["a \"b c\nd", "a \"b\\", "a \"b\\\"", "a \""] {
            assert!(
                lex(text).starts_with("/a 2: this quote is never closed"),
                "{text:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn lexing_never_panics_and_spans_lie_within(text in "(?s)([ \n\r#\"\\\\{}a]|.){0,60}") {
            for token in words(0, &text, &mut Vec::new()) {
                let span = token.word.span;
                let there = text.get(span.start as usize..span.end as usize);
                proptest::prop_assert!(there.is_some_and(|there| !there.is_empty()));
            }
        }
    }
}
