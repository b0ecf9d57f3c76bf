//! What stands in place of what: environment variables, snippets, imports.
//!
//! Runs between lexer and grammar: `import` lines are replaced by the words of what they name, snippets are taken out
//! and remembered, and each word has its variables put in. A word never becomes several.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nom::bytes::complete::{tag, take_until};
use nom::{IResult, Parser};

use super::lexer::{self, Kind, Token};
use super::tree::{Sources, Word};
use super::{FILE_OCTETS_MAX, Loader};
use crate::kit::errors::{SetupError, nearest};

/// Words of a Dnsfile with all its imports at most; each takes about 100 octets of memory.
const WORDS_MAX: usize = 1_000_000;
/// Imports that are carried out at most: snippets within snippets double quickly, and each may be empty.
const IMPORTS_MAX: usize = 10_000;
/// Octets of all files together at most.
const OCTETS_MAX: usize = 4 * FILE_OCTETS_MAX;
/// Files that one glob pattern may mean at most.
const MATCHES_MAX: usize = 10_000;
/// Files and snippets inside each other at most.
const DEPTH_MAX: usize = 100;
/// Octets that a word may have once its variables are put in.
const WORD_OCTETS_MAX: usize = 65_536;
/// Variables that are put into one word at most; more are a variable that names itself.
const REPLACEMENTS_MAX: usize = 100;

/// What is being read: the main file, an imported one, or a snippet.
struct Frame {
    tokens: Rc<[Token]>,
    at: usize,
    origin: Origin,
    // Files and snippets that this one is inside of.
    depth: usize,
}

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    File(PathBuf),
    Snippet(String),
}

/// The reader of one Dnsfile with everything it imports.
pub(super) struct Expander<'l> {
    loader: &'l dyn Loader,
    pub(super) sources: Sources,
    // Of each file: where it is, for the imports in it.
    folders: Vec<PathBuf>,
    read: HashMap<PathBuf, Rc<[Token]>>,
    snippets: HashMap<String, Rc<[Token]>>,
    octets: usize,
    imports: usize,
    pub(super) is_cut: bool,
    pub(super) errors: Vec<SetupError>,
    pub(super) warnings: Vec<SetupError>,
}

impl<'l> Expander<'l> {
    pub(super) fn new(loader: &'l dyn Loader) -> Expander<'l> {
        Expander {
            loader,
            sources: Sources::default(),
            folders: Vec::new(),
            read: HashMap::new(),
            snippets: HashMap::new(),
            octets: 0,
            imports: 0,
            is_cut: false,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// All words of the main file, with everything put in place.
    pub(super) fn expand(&mut self, name: &str, text: &str) -> Vec<Token> {
        let path = clean(&self.loader.absolute(Path::new(name)));
        let tokens = self.lex(name.to_owned(), &path, text.to_owned());
        let mut frames = vec![Frame {
            tokens,
            at: 0,
            origin: Origin::File(path),
            depth: 0,
        }];
        let mut words: Vec<Token> = Vec::new();
        let mut depth = 0usize;
        // The first word of what is put in, and the one behind it, start a line wherever they stand.
        let mut seam = true;
        while let Some(frame) = frames.last_mut() {
            let Some(token) = frame.tokens.get(frame.at) else {
                frames.pop();
                seam = true;
                continue;
            };
            let mut token = token.clone();
            frame.at += 1;
            token.starts_line |= std::mem::take(&mut seam);
            // Behind a brace as well, so that blocks of one line can hold what others hold.
            let is_first =
                token.starts_line || words.last().is_some_and(|last| last.kind != Kind::Word);
            if is_first && is_import(&token) {
                if let Some(pattern) = self.pattern(frame, &token) {
                    self.import(&pattern, &mut frames);
                }
                seam = true;
                continue;
            }
            if depth == 0 && is_first && self.snippet(frame, &mut token) {
                seam = true;
                continue;
            }
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.saturating_sub(1),
                Kind::Word => self.put_variables(&mut token.word),
            }
            if words.len() >= WORDS_MAX {
                let what = format!("too many words with all imports: at most {WORDS_MAX}");
                self.error(&token.word, what);
                self.is_cut = true;
                break;
            }
            words.push(token);
        }
        words
    }

    fn error(&mut self, at: &Word, what: impl Into<String>) {
        self.errors.push(SetupError::at(at.span, what));
    }

    fn lex(&mut self, name: String, path: &Path, text: String) -> Rc<[Token]> {
        let number = u32::try_from(self.sources.files.len()).unwrap_or(u32::MAX);
        let errors = self.errors.len();
        let tokens: Rc<[Token]> = lexer::words(number, &text, &mut self.errors).into();
        self.is_cut |= self.errors.len() > errors;
        self.octets += text.len();
        self.sources.files.push((name, text));
        self.folders.push(folder(path));
        self.read.insert(path.to_owned(), Rc::clone(&tokens));
        tokens
    }

    /// The word behind `import`; the rest of the line is an error.
    fn pattern(&mut self, frame: &mut Frame, import: &Token) -> Option<Word> {
        let on_line = |token: &&Token| !token.starts_line && token.kind == Kind::Word;
        let Some(pattern) = frame.tokens.get(frame.at).filter(on_line) else {
            self.error(
                &import.word,
                "import requires a file, a glob pattern or the name of a snippet",
            );
            return None;
        };
        let mut pattern = pattern.word.clone();
        frame.at += 1;
        let mut is_alone = true;
        while let Some(extra) = frame.tokens.get(frame.at).filter(on_line) {
            if std::mem::take(&mut is_alone) {
                self.error(&extra.word, "import takes only one argument (a file, a glob pattern or a snippet); write one import a line");
            }
            frame.at += 1;
        }
        self.put_variables(&mut pattern);
        if pattern.text.is_empty() {
            self.error(&pattern, "import requires a non-empty file name");
            return None;
        }
        is_alone.then_some(pattern)
    }

    /// Puts what the pattern names on top of what is being read.
    fn import(&mut self, pattern: &Word, frames: &mut Vec<Frame>) {
        self.imports += 1;
        if self.imports > IMPORTS_MAX {
            if self.imports == IMPORTS_MAX + 1 {
                let what = format!("maximum number of imports ({IMPORTS_MAX}) exceeded");
                self.error(pattern, what);
            }
            return;
        }
        let depth = frames.last().map_or(0, |frame| frame.depth) + 1;
        if depth > DEPTH_MAX {
            let what = format!("maximum import depth ({DEPTH_MAX}) exceeded");
            self.error(pattern, what);
            return;
        }
        if let Some(tokens) = self.snippets.get(&pattern.text).cloned() {
            let origin = Origin::Snippet(pattern.text.clone());
            self.enter(
                pattern,
                Frame {
                    tokens,
                    at: 0,
                    origin,
                    depth,
                },
                frames,
            );
            return;
        }
        // The last frame is read first, so the last file goes in first.
        for path in self.files(pattern).into_iter().rev() {
            let origin = Origin::File(path.clone());
            if let Some(tokens) = self.load(pattern, &path) {
                self.enter(
                    pattern,
                    Frame {
                        tokens,
                        at: 0,
                        origin,
                        depth,
                    },
                    frames,
                );
            }
        }
    }

    fn enter(&mut self, at: &Word, new: Frame, frames: &mut Vec<Frame>) {
        // Frames beside each other (the matches of one glob) do not contain each other, but have not begun either.
        let is_open = |frame: &Frame| frame.at > 0 && frame.origin == new.origin;
        if frames.iter().any(is_open) {
            let what = match &new.origin {
                Origin::File(path) => format!("file `{}` imports itself", path.display()),
                Origin::Snippet(name) => format!("snippet `{name}` imports itself"),
            };
            self.error(at, what);
            return;
        }
        frames.push(new);
    }

    fn load(&mut self, at: &Word, path: &Path) -> Option<Rc<[Token]>> {
        if let Some(tokens) = self.read.get(path) {
            return Some(Rc::clone(tokens));
        }
        let bytes = match self.loader.read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let what = match error.kind() {
                    io::ErrorKind::NotFound => {
                        format!("file to import not found: {}", path.display())
                    }
                    io::ErrorKind::IsADirectory => format!(
                        "could not import {}: is a directory; write `{}/*`",
                        path.display(),
                        at.text.trim_end_matches('/')
                    ),
                    _ => format!("could not import {}: {error}", path.display()),
                };
                self.error(at, what);
                return None;
            }
        };
        if bytes.len() > FILE_OCTETS_MAX || self.octets + bytes.len() > OCTETS_MAX {
            let what = format!(
                "could not import {}: too large, at most {FILE_OCTETS_MAX} octets in a file and {OCTETS_MAX} in all",
                path.display()
            );
            self.error(at, what);
            return None;
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let what = format!(
                    "{} is not UTF-8 throughout; what is not reads as U+FFFD",
                    path.display()
                );
                self.warnings.push(SetupError::at(at.span, what));
                String::from_utf8_lossy(error.as_bytes()).into_owned()
            }
        };
        Some(self.lex(path.to_string_lossy().into_owned(), path, text))
    }

    /// The files that a pattern means, in lexical order.
    fn files(&mut self, pattern: &Word) -> Vec<PathBuf> {
        let folder = self
            .folders
            .get(pattern.span.file as usize)
            .cloned()
            .unwrap_or_default();
        let path = clean(&folder.join(&pattern.text));
        if pattern.text.contains('[') && pattern.text.contains(']') {
            let what = format!(
                "a glob pattern knows `*` and `?` alone, but has others: {}",
                pattern.text
            );
            self.error(pattern, what);
            return Vec::new();
        }
        if !pattern.text.contains(['*', '?']) {
            if !self.read.contains_key(&path) && !self.loader.exists(&path) {
                self.not_found(pattern);
                return Vec::new();
            }
            return vec![path];
        }
        let found = glob(self.loader, &path);
        if found.is_empty() {
            let what = format!("no files matching import glob pattern: {}", pattern.text);
            self.warnings.push(SetupError::at(pattern.span, what));
        }
        if found.len() > MATCHES_MAX {
            let what = format!(
                "too many files match {}: at most {MATCHES_MAX}, got {}",
                pattern.text,
                found.len()
            );
            self.error(pattern, what);
            return Vec::new();
        }
        found
    }

    fn not_found(&mut self, pattern: &Word) {
        let what = format!("file to import not found: {}", pattern.text);
        let error = SetupError::at(pattern.span, what);
        let known = self.snippets.keys().map(String::as_str);
        let error = match nearest(&pattern.text, known) {
            Some(near) => error.suggest(near),
            None => error,
        };
        self.errors.push(error);
    }

    /// Takes a snippet's definition out; false if this token starts none.
    fn snippet(&mut self, frame: &mut Frame, name: &mut Token) -> bool {
        if name.kind != Kind::Word || name.word.quoted {
            return false;
        }
        let mut word = name.word.clone();
        let errors = self.errors.len();
        self.put_variables(&mut word);
        let inner = word
            .text
            .strip_prefix('(')
            .and_then(|text| text.strip_suffix(')'))
            .map(str::to_owned);
        let Some(inner) = inner else {
            // It will be put in once more.
            self.errors.truncate(errors);
            return false;
        };
        let Some(brace) = frame
            .tokens
            .get(frame.at)
            .filter(|token| token.kind == Kind::Open)
        else {
            let what =
                format!("a snippet needs its body: write `({inner}) {{`, its lines and `}}`");
            self.error(&word, what);
            return true;
        };
        let brace = brace.word.clone();
        let (body, end) = body(&frame.tokens, frame.at + 1);
        frame.at = end;
        let Some(body) = body else {
            self.error(&brace, "this `{` is never closed: a `}` is missing");
            return true;
        };
        if inner.is_empty() {
            self.error(&word, "a snippet needs a name: write `(NAME) {`");
        } else if self.snippets.contains_key(&inner) {
            let what = format!("redeclaration of previously declared snippet {inner}");
            self.error(&word, what);
        } else {
            self.refuse_self_import(&inner, &body);
            self.snippets.insert(inner, body);
        }
        true
    }

    fn refuse_self_import(&mut self, name: &str, body: &[Token]) {
        for pair in body.windows(2) {
            if let [import, pattern] = pair
                && import.starts_line
                && is_import(import)
                && pattern.word.text == name
            {
                let what = format!("snippet `{name}` imports itself");
                self.error(&pattern.word, what);
            }
        }
    }

    /// Puts the environment's variables into a word: `{%NAME%}` first, then `{$NAME}`; what a value holds is looked at again.
    fn put_variables(&mut self, word: &mut Word) {
        let mut budget = REPLACEMENTS_MAX;
        for (opening, closing) in [("{%", "%}"), ("{$", "}")] {
            while let Some(name) = reference(&word.text, opening, closing) {
                let value = self.loader.variable(&name).unwrap_or_default();
                let reference = format!("{opening}{name}{closing}");
                let count = word.text.matches(&reference).count();
                let octets = word.text.len() + count * value.len();
                budget = budget.saturating_sub(1);
                if budget == 0 || octets > WORD_OCTETS_MAX {
                    let what = format!(
                        "environment variable `{name}` grows without end: its value names itself, or is longer than {WORD_OCTETS_MAX} octets"
                    );
                    self.error(word, what);
                    return;
                }
                word.text = word.text.replace(&reference, &value);
            }
        }
    }
}

/// The first variable that a text refers to. A reference that is not closed, or has no name, stays as it is, and what is behind it.
fn reference(text: &str, opening: &str, closing: &str) -> Option<String> {
    let mut parser = (take_until(opening), tag(opening), take_until(closing));
    let parsed: IResult<&str, (&str, &str, &str)> = parser.parse(text);
    let (_, (_, _, name)) = parsed.ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn is_import(token: &Token) -> bool {
    token.kind == Kind::Word && !token.word.quoted && token.word.text == "import"
}

/// The words up to the `}` that closes a group, and where to go on; none if it is not closed.
fn body(tokens: &[Token], start: usize) -> (Option<Rc<[Token]>>, usize) {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close if depth == 0 => {
                return (tokens.get(start..at).map(Rc::from), at + 1);
            }
            Kind::Close => depth -= 1,
            Kind::Word => {}
        }
    }
    (None, tokens.len())
}

fn folder(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Takes `.` and `..` out of a path by its text alone.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // Above the root there is nothing: `pop` leaves it.
            Component::ParentDir => {
                cleaned.pop();
            }
            other => cleaned.push(other),
        }
    }
    cleaned
}

/// The paths that match a pattern with `*` and `?` in any of its parts, in lexical order.
fn glob(loader: &dyn Loader, pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut next = Vec::new();
        for folder in found {
            let mut names = loader.list(&folder).unwrap_or_default();
            names.retain(|name| matches(&text, name));
            names.sort_unstable();
            next.extend(names.into_iter().map(|name| folder.join(name)));
        }
        found = next;
    }
    // Behind the last pattern stand names that need not be there.
    found.retain(|path| loader.exists(path));
    found
}

/// Whether a name matches a pattern: `*` is any run of characters, `?` is one. Linear in their product.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on if what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some('?') => (p, n) = (p + 1, n + 1),
            Some(c) if name.get(n) == Some(c) => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, n) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match() {
        for (pattern, name, fits) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", true),
            ("*.conf", "a.conf~", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xbxxa", false),
            ("*", "", true),
            ("é?", "éa", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn paths_are_cleaned_by_their_text() {
        assert_eq!(clean(Path::new("/a/./b/../c//d")), Path::new("/a/c/d"));
        assert_eq!(clean(Path::new("/../a")), Path::new("/a"));
    }
}
