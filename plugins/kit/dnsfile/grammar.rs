//! Words to blocks.
//!
//! ```text
//! file      = { block }
//! block     = keys ( "{" { directive } "}" | { directive } END )
//! keys      = KEY { [ "," ] KEY }           on one line; a comma at its end goes on in the next
//! directive = NAME { ARGUMENT } [ "{" { line } "}" ]
//! line      = WORD { WORD }
//! ```
//! What is wrong is noted, and parsing goes on behind it, so that one run names every mistake.

use std::cell::RefCell;

use nom::error::{Error, ErrorKind, ParseError};
use nom::multi::many0;
use nom::{IResult, Input, Needed, Parser};

use super::lexer::{Kind, Token};
use super::tree::{Directive, Line, ServerBlock, Word};
use crate::kit::errors::SetupError;

/// What is left of the tokens; the input of our nom parsers.
#[derive(Clone, Copy, Debug)]
struct Tokens<'t>(&'t [Token]);

impl<'t> Input for Tokens<'t> {
    type Item = &'t Token;
    type Iter = std::slice::Iter<'t, Token>;
    type IterIndices = std::iter::Enumerate<std::slice::Iter<'t, Token>>;

    fn input_len(&self) -> usize {
        self.0.len()
    }
    fn take(&self, count: usize) -> Self {
        Tokens(self.0.get(..count).unwrap_or(self.0))
    }
    fn take_from(&self, count: usize) -> Self {
        Tokens(self.0.get(count..).unwrap_or_default())
    }
    fn take_split(&self, count: usize) -> (Self, Self) {
        (self.take_from(count), self.take(count))
    }
    fn position<P: Fn(&'t Token) -> bool>(&self, predicate: P) -> Option<usize> {
        self.0.iter().position(predicate)
    }
    fn iter_elements(&self) -> Self::Iter {
        self.0.iter()
    }
    fn iter_indices(&self) -> Self::IterIndices {
        self.0.iter().enumerate()
    }
    fn slice_index(&self, count: usize) -> Result<usize, Needed> {
        let missing = count.saturating_sub(self.0.len());
        if missing == 0 {
            Ok(count)
        } else {
            Err(Needed::new(missing))
        }
    }
}

type Parsed<'t, T> = IResult<Tokens<'t>, T>;

/// One token that the condition holds for.
fn one<'t>(
    holds: impl Fn(&Token) -> bool,
) -> impl Parser<Tokens<'t>, Output = &'t Token, Error = Error<Tokens<'t>>> {
    move |tokens: Tokens<'t>| match tokens.0.split_first() {
        Some((token, rest)) if holds(token) => Ok((Tokens(rest), token)),
        _ => Err(nom::Err::Error(Error::from_error_kind(
            tokens,
            ErrorKind::Satisfy,
        ))),
    }
}

fn open<'t>(tokens: Tokens<'t>) -> Parsed<'t, &'t Token> {
    one(|token| token.kind == Kind::Open).parse(tokens)
}

fn close<'t>(tokens: Tokens<'t>) -> Parsed<'t, &'t Token> {
    one(|token| token.kind == Kind::Close).parse(tokens)
}

fn word<'t>(tokens: Tokens<'t>) -> Parsed<'t, Word> {
    one(|token| token.kind == Kind::Word)
        .map(|token| token.word.clone())
        .parse(tokens)
}

/// A word on the line that is being read.
fn more<'t>(tokens: Tokens<'t>) -> Parsed<'t, Word> {
    one(|token| token.kind == Kind::Word && !token.starts_line)
        .map(|token| token.word.clone())
        .parse(tokens)
}

/// Passes over whatever ends before the next line or brace that closes.
fn rest_of_line(tokens: Tokens<'_>) -> Tokens<'_> {
    let end = tokens
        .position(|token| token.starts_line || token.kind == Kind::Close)
        .unwrap_or(tokens.input_len());
    tokens.take_from(end)
}

/// Passes over a brace group, if there is one on this line.
fn group(tokens: Tokens<'_>) -> Tokens<'_> {
    let mut depth = 0usize;
    for (number, token) in tokens.iter_indices() {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Word if depth == 0 => return tokens.take_from(number),
            Kind::Word => {}
        }
        if depth == 0 {
            return tokens.take_from(number + usize::from(token.kind == Kind::Close && number > 0));
        }
    }
    tokens.take_from(tokens.input_len())
}

/// Collects the mistakes; the parsers borrow it.
struct Grammar<'e> {
    errors: RefCell<&'e mut Vec<SetupError>>,
    warnings: RefCell<&'e mut Vec<SetupError>>,
    /// The text was cut short by an error already told: what is missing at its end is no second one.
    is_cut: bool,
}

/// The server blocks of a file, imports in place. Blocks without a key are left out.
pub(super) fn blocks(
    tokens: &[Token],
    is_cut: bool,
    errors: &mut Vec<SetupError>,
    warnings: &mut Vec<SetupError>,
) -> Vec<ServerBlock> {
    let grammar = Grammar {
        errors: RefCell::new(errors),
        warnings: RefCell::new(warnings),
        is_cut,
    };
    let mut blocks = Vec::new();
    let mut rest = Tokens(tokens);
    while let Some(first) = rest.0.first() {
        if first.kind == Kind::Close {
            grammar.error(&first.word, "unexpected `}`: no block is open here");
            rest = rest.take_from(1);
            continue;
        }
        let (behind, block) = grammar.block(rest);
        blocks.extend(block);
        // A block takes one token at least, its first.
        rest = behind;
    }
    blocks
}

impl Grammar<'_> {
    fn error(&self, at: &Word, what: impl Into<String>) {
        self.errors.borrow_mut().push(SetupError::at(at.span, what));
    }

    /// Something is missing at the end of the text.
    fn missing(&self, at: &Word, what: impl Into<String>) {
        if !self.is_cut {
            self.error(at, what);
        }
    }

    fn warning(&self, at: &Word, what: impl Into<String>) {
        self.warnings
            .borrow_mut()
            .push(SetupError::at(at.span, what));
    }

    fn block<'t>(&self, tokens: Tokens<'t>) -> (Tokens<'t>, Option<ServerBlock>) {
        let (rest, keys) = self.keys(tokens);
        let (rest, directives) = match open(rest) {
            Ok((inside, brace)) => {
                let (rest, directives) = self.directives(inside);
                match close(rest) {
                    Ok((rest, _)) => (rest, directives),
                    Err(_) => {
                        self.missing(&brace.word, "this `{` is never closed: a `}` is missing");
                        (rest, directives)
                    }
                }
            }
            // Without braces the block goes on to the end of the file, or to a `}` too many.
            Err(_) => {
                let (rest, directives) = self.directives(rest);
                match close(rest) {
                    Ok((rest, brace)) => {
                        let what = "this `}` ends a server block that no `{` opened; write the `{` behind its keys";
                        self.warning(&brace.word, what);
                        (rest, directives)
                    }
                    Err(_) => (rest, directives),
                }
            }
        };
        if keys.is_empty() {
            if let Some(first) = tokens.0.first() {
                let what = "this server block has no key and is left out; write `.` for every name";
                self.warning(&first.word, what);
            }
            return (rest, None);
        }
        (rest, Some(ServerBlock { keys, directives }))
    }

    /// Keys up to `{` or the end of the line; behind a comma they go on in the next.
    fn keys<'t>(&self, tokens: Tokens<'t>) -> (Tokens<'t>, Vec<Word>) {
        let mut keys = Vec::new();
        let mut rest = tokens;
        let mut comma: Option<Word> = None;
        let mut first = true;
        loop {
            let found = if first || comma.is_some() {
                word(rest)
            } else {
                more(rest)
            };
            let Ok((behind, mut key)) = found else {
                break;
            };
            first = false;
            rest = behind;
            // A quoted comma is text, as a quoted brace is.
            let text = if key.quoted {
                key.text.as_str()
            } else {
                key.text.trim_end_matches(',')
            };
            comma = (text.len() < key.text.len()).then(|| key.clone());
            if text.is_empty() {
                if comma.is_none() {
                    self.warning(&key, "this key is empty and left out");
                }
                continue;
            }
            if !key.quoted && text.starts_with('(') && text.ends_with(')') {
                let what =
                    format!("a snippet's name stands alone in front of its `{{`, like `{text} {{`");
                self.error(&key, what);
            }
            key.text.truncate(text.len());
            keys.push(key);
        }
        if let Some(comma) = comma {
            match rest.0.first() {
                None => self.missing(&comma, "another key is missing behind this comma"),
                Some(_) => self.error(
                    &comma,
                    "another key is missing behind this comma; remove it",
                ),
            }
        }
        (rest, keys)
    }

    fn directives<'t>(&self, tokens: Tokens<'t>) -> (Tokens<'t>, Vec<Directive>) {
        let mut directives = Vec::new();
        let mut rest = tokens;
        loop {
            match rest.0.first().map(|token| token.kind) {
                None | Some(Kind::Close) => return (rest, directives),
                Some(Kind::Open) => {
                    if let Some(brace) = rest.0.first() {
                        let what = "unexpected `{`: it stands behind the words of its directive, on the same line";
                        self.error(&brace.word, what);
                    }
                    rest = group(rest);
                }
                Some(Kind::Word) => match self.directive(rest) {
                    Ok((behind, directive)) => {
                        directives.push(directive);
                        rest = behind;
                    }
                    Err(_) => rest = rest.take_from(1),
                },
            }
        }
    }

    fn directive<'t>(&self, tokens: Tokens<'t>) -> Parsed<'t, Directive> {
        let (mut rest, (name, arguments)) = (word, many0(more)).parse(tokens)?;
        let mut block = None;
        if let Ok((inside, brace)) =
            one(|token| token.kind == Kind::Open && !token.starts_line).parse(rest)
        {
            let lines;
            (rest, lines) = self.lines(inside);
            block = Some(lines);
            match close(rest) {
                Ok((behind, _)) => rest = behind,
                Err(_) => self.missing(&brace.word, "this `{` is never closed: a `}` is missing"),
            }
            if let Some(extra) = rest.0.first()
                && !extra.starts_line
                && extra.kind != Kind::Close
            {
                let what = format!(
                    "unexpected `{}` behind the block; start a new line",
                    extra.word.text
                );
                self.error(&extra.word, what);
                rest = group(rest_of_words(rest));
            }
        }
        let directive = Directive {
            name,
            arguments,
            block,
        };
        Ok((rest, directive))
    }

    /// The lines of a directive's block, up to the `}` that closes it.
    fn lines<'t>(&self, tokens: Tokens<'t>) -> (Tokens<'t>, Vec<Line>) {
        let mut lines = Vec::new();
        let mut rest = tokens;
        loop {
            match rest.0.first().map(|token| token.kind) {
                None | Some(Kind::Close) => return (rest, lines),
                Some(Kind::Open) => {
                    if let Some(brace) = rest.0.first() {
                        self.error(&brace.word, "a directive's block can hold no further block; quote the `{` if it is text");
                    }
                    rest = rest_of_line(group(rest));
                }
                Some(Kind::Word) => match (word, many0(more)).parse(rest) {
                    Ok((behind, (head, tail))) => {
                        lines.push(Line {
                            words: std::iter::once(head).chain(tail).collect(),
                        });
                        rest = behind;
                    }
                    Err(_) => rest = rest.take_from(1),
                },
            }
        }
    }
}

/// Passes over the words that are left on a line.
fn rest_of_words(tokens: Tokens<'_>) -> Tokens<'_> {
    let end = tokens
        .position(|token| token.starts_line || token.kind != Kind::Word)
        .unwrap_or(tokens.input_len());
    tokens.take_from(end)
}
