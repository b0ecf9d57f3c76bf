//! The Dnsfile: text in, a tree of server blocks with spans out, or every error of the file at once.
//!
//! `lexer` makes words, `grammar` (nom) makes blocks of them, `expand` does environment variables, snippets and
//! imports, `tree` is what comes out. What a word means is the plugin's business (`kit::options`).

pub mod tree;

pub use tree::{Directive, Dnsfile, Line, ServerBlock, Sources, Span, Word};
