//! What a Dnsfile says, with the place of every word.

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
