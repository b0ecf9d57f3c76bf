//! The Dnsfile: text in, a tree of server blocks with spans out, or every error of the file at once.
//!
//! `lexer` makes words, `expand` puts environment variables, snippets and imports in their place, `grammar` (nom) makes
//! blocks of what comes out, `tree` is what they are. What a word means is the plugin's business (`kit::options`).

mod expand;
mod grammar;
mod lexer;
pub mod tree;

use std::io;
use std::path::{Path, PathBuf};

pub use tree::{Directive, Dnsfile, Line, ServerBlock, Sources, Span, Word};

use super::errors::SetupError;

/// Octets of one file at most: a thousand times what operators write; larger ones are something else.
pub const FILE_OCTETS_MAX: usize = 16 << 20;

/// Errors that are told at most: nobody reads more, and each is shown with its line.
const TOLD_MAX: usize = 1000;

/// What parsing needs of the world.
pub trait Loader {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// A file's content; may stop behind [`FILE_OCTETS_MAX`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Names in a folder, in any order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Whether there is something at a path.
    fn exists(&self, path: &Path) -> bool;
    /// A path from the root.
    fn absolute(&self, path: &Path) -> PathBuf;
}

/// The process's environment and file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Loader for System {
    fn variable(&self, name: &str) -> Option<String> {
        // A NUL or `=` in the name is no variable; `var_os` would panic on neither, but says so in its documentation.
        if name.contains(['\0', '=']) {
            return None;
        }
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use std::io::Read;
        let file = std::fs::File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut bytes = Vec::new();
        file.take(FILE_OCTETS_MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(folder)?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect())
    }
    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }
    fn absolute(&self, path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }
}

/// A Dnsfile that cannot be used: every error, and the files they are in.
#[derive(Clone, Debug, Default)]
pub struct Rejected {
    /// Every file that was read.
    pub sources: Sources,
    /// What is wrong, in the order of the places.
    pub errors: Vec<SetupError>,
    /// What would have been accepted with a warning.
    pub warnings: Vec<SetupError>,
    /// What could be read all the same, to look for further errors in: see `program::examine`.
    pub blocks: Vec<ServerBlock>,
}

/// Reads a Dnsfile. `name` is what the operator typed: errors begin with it, and imports start from its folder.
pub fn parse(name: &str, text: &str, loader: &dyn Loader) -> Result<Dnsfile, Rejected> {
    let mut expander = expand::Expander::new(loader);
    if text.len() > FILE_OCTETS_MAX {
        let what = format!("the file is too large: at most {FILE_OCTETS_MAX} octets");
        return Err(Rejected {
            sources: Sources {
                files: vec![(name.to_owned(), String::new())],
            },
            errors: vec![SetupError::general(what)],
            ..Rejected::default()
        });
    }
    let tokens = expander.expand(name, text);
    let is_cut = expander.is_cut;
    let (mut errors, mut warnings) = (expander.errors, expander.warnings);
    let mut blocks = grammar::blocks(&tokens, is_cut, &mut errors, &mut warnings);
    if is_cut && let Some(last) = blocks.last_mut() {
        // It may lack words: no error of its own.
        last.directives.pop();
    }
    let sources = expander.sources;
    tidy(&mut errors);
    tidy(&mut warnings);
    if errors.is_empty() {
        Ok(Dnsfile {
            sources,
            blocks,
            warnings,
        })
    } else {
        Err(Rejected {
            sources,
            errors,
            warnings,
            blocks,
        })
    }
}

/// Errors in the order of their places, those without one last. A snippet that is used twice is wrong twice, and told once.
pub(super) fn tidy(errors: &mut Vec<SetupError>) {
    errors.sort_by_key(|error| error.at.map_or((u32::MAX, 0), |at| (at.file, at.start)));
    errors.dedup();
    let more = errors.len().saturating_sub(TOLD_MAX);
    if more > 0 {
        errors.truncate(TOLD_MAX);
        errors.push(SetupError::general(format!("and {more} more")));
    }
}

#[cfg(test)]
mod tests;
