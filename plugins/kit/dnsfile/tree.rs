//! What a Dnsfile says, with the place of every word.

use std::fmt;

/// A place in one of the files read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Index into [`Sources`].
    pub file: u32,
    /// First octet.
    pub start: u32,
    /// Behind the last octet.
    pub end: u32,
}

/// One word: quotes removed, environment variables replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// Its text.
    pub text: String,
    /// Where it stands.
    pub span: Span,
    /// Whether it was quoted: a quoted brace is text.
    pub quoted: bool,
}

/// A line inside a directive's block: its property and the words behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// At least one word.
    pub words: Vec<Word>,
}

/// A directive of a server block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directive {
    /// The plugin's name as written (may be an alias).
    pub name: Word,
    /// The words on its line.
    pub arguments: Vec<Word>,
    /// The lines of its block, if there is one (`{ }` with nothing in it is `Some` of nothing).
    pub block: Option<Vec<Line>>,
}

/// A server block: keys and directives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerBlock {
    /// Its keys, as written.
    pub keys: Vec<Word>,
    /// Its directives, in the order of the file, imports expanded.
    pub directives: Vec<Directive>,
}

/// The files that were read, for error messages: name as typed (the Dnsfile) or absolute path (imports), and text.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// Name and text.
    pub files: Vec<(String, String)>,
}

/// A [`Span`]'s start as a reader counts: lines and columns from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'s> {
    /// The file's name.
    pub file: &'s str,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The whole line, without its end.
    pub text: &'s str,
}

impl Sources {
    /// Where a span starts.
    pub fn place(&self, span: Span) -> Option<Place<'_>> {
        let (file, text) = self.files.get(span.file as usize)?;
        let mut at = (span.start as usize).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let (before, behind) = text.split_at(at);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = behind.find('\n').map_or(text.len(), |newline| at + newline);
        Some(Place {
            file,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            text: text[line_start..line_end].trim_end_matches('\r'),
        })
    }
}

impl fmt::Display for Word {
    /// As a Dnsfile writes it: quoted where it must be, or was.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs_quotes = self.quoted
            || matches!(self.text.as_str(), "" | "{" | "}" | "{}")
            || self.text.starts_with(['"', '\u{feff}'])
            || self.text.contains(|c: char| c.is_whitespace() || c == '#');
        if needs_quotes {
            write!(f, "\"{}\"", self.text.replace('"', "\\\""))
        } else {
            f.write_str(&self.text)
        }
    }
}

fn write_words(f: &mut fmt::Formatter<'_>, words: &[Word]) -> fmt::Result {
    words.iter().try_for_each(|word| write!(f, " {word}"))
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "    {}", self.name)?;
        write_words(f, &self.arguments)?;
        if let Some(lines) = &self.block {
            f.write_str(" {\n")?;
            for line in lines {
                f.write_str("       ")?;
                write_words(f, &line.words)?;
                f.write_str("\n")?;
            }
            f.write_str("    }")?;
        }
        f.write_str("\n")
    }
}

impl fmt::Display for ServerBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in &self.keys {
            write!(f, "{key} ")?;
        }
        f.write_str("{\n")?;
        self.directives
            .iter()
            .try_for_each(|directive| write!(f, "{directive}"))?;
        f.write_str("}\n")
    }
}

impl fmt::Display for Dnsfile {
    /// What it comes to: imports and variables in place, comments gone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.blocks
            .iter()
            .try_for_each(|block| write!(f, "{block}"))
    }
}

/// A whole Dnsfile with its imports.
#[derive(Clone, Default, Debug)]
pub struct Dnsfile {
    /// Every file it came from.
    pub sources: Sources,
    /// Its server blocks.
    pub blocks: Vec<ServerBlock>,
    /// What is accepted with a warning (a glob without match …).
    pub warnings: Vec<crate::kit::errors::SetupError>,
}
