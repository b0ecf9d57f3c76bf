//! From where the Dnsfile is to a [`Program`], or everything that is wrong with it.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skein_plugins::kit::dnsfile::{self, Dnsfile, Loader, Rejected, Sources, System, Word};
use skein_plugins::kit::errors::{self, SetupError};
use skein_plugins::kit::plugin::Plugin;
use skein_plugins::kit::program::{self, Program};
use skein_plugins::kit::setup::Services;

use crate::limits::STDIN_OCTETS_MAX;

/// The file that is read where none is named.
pub(crate) const DNSFILE: &str = "Dnsfile";

/// Where the Dnsfile comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file; read again on each reload.
    File(PathBuf),
    /// Standard input, read once and kept.
    Stdin(String),
    /// A command that writes one; asked again on each reload.
    Written(Written),
    /// Nowhere: what is built in.
    BuiltIn,
}

/// A Dnsfile that a command writes, and writes anew while it runs.
#[derive(Clone)]
pub(crate) struct Written {
    // What errors call it.
    name: &'static str,
    text: Arc<Mutex<String>>,
    // A variable that it uses beside those of the process: a secret stands in no text.
    secret: Option<(&'static str, Arc<str>)>,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Written({})", self.name)
    }
}

impl Written {
    /// A text, with a variable of its own.
    pub(crate) fn new(
        name: &'static str,
        text: String,
        secret: Option<(&'static str, Arc<str>)>,
    ) -> Written {
        Written {
            name,
            text: Arc::new(Mutex::new(text)),
            secret,
        }
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text as it is now.
    pub(crate) fn text(&self) -> String {
        self.lock().clone()
    }

    /// Another text, for the next reload.
    pub(crate) fn set(&self, text: String) {
        *self.lock() = text;
    }
}

impl Loader for Written {
    fn variable(&self, name: &str) -> Option<String> {
        match &self.secret {
            Some((known, value)) if *known == name => Some(value.to_string()),
            _ => System.variable(name),
        }
    }
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        System.read(path)
    }
    fn list(&self, folder: &Path) -> std::io::Result<Vec<String>> {
        System.list(folder)
    }
    fn exists(&self, path: &Path) -> bool {
        System.exists(path)
    }
    fn absolute(&self, path: &Path) -> PathBuf {
        System.absolute(path)
    }
}

impl Source {
    /// The source that `--conf` names: a file, `-` or `stdin`, or by default ./Dnsfile if there is one.
    pub(crate) fn find(conf: Option<&Path>) -> Result<Source, String> {
        match conf {
            Some(path) if path == Path::new("-") || path == Path::new("stdin") => read_stdin(),
            Some(path) => Ok(Source::File(path.to_owned())),
            None if Path::new(DNSFILE).exists() => Ok(Source::File(DNSFILE.into())),
            None => Ok(Source::BuiltIn),
        }
    }

    /// What errors call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Stdin(_) => "stdin".to_owned(),
            Source::Written(written) => written.name.to_owned(),
            Source::BuiltIn => "built-in Dnsfile".to_owned(),
        }
    }

    /// Reads and parses it. What has no server block is the built-in one.
    pub(crate) fn parse(
        &self,
        table: &[&'static Plugin],
        services: &Services,
    ) -> Result<Dnsfile, Refused> {
        let name = self.name();
        let text = match self {
            Source::File(path) => {
                let read = std::fs::read(path);
                let bytes = read.map_err(|error| unreadable(&name, &error))?;
                // A comment in another encoding is no reason not to start: CoreDNS loads it, and so do imports.
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Source::Stdin(text) => text.clone(),
            Source::Written(written) => written.text(),
            Source::BuiltIn => program::DEFAULT.to_owned(),
        };
        let loader: &dyn Loader = match self {
            Source::Written(written) => written,
            _ => &System,
        };
        let mut dnsfile = dnsfile::parse(&name, &text, loader)
            .map_err(|rejected| program::examine(rejected, table, services))?;
        if text.contains(char::REPLACEMENT_CHARACTER) {
            let what = "the file is not UTF-8 throughout; what is not reads as U+FFFD";
            dnsfile.warnings.push(SetupError::general(what));
        }
        if dnsfile.blocks.iter().any(|block| !block.keys.is_empty()) {
            return Ok(dnsfile);
        }
        let mut built_in = dnsfile::parse(&name, program::DEFAULT, &System)?;
        built_in.warnings = dnsfile.warnings;
        Ok(built_in)
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Refused {
    let advice = match error.kind() {
        std::io::ErrorKind::NotFound => "; name an existing file with --conf",
        std::io::ErrorKind::PermissionDenied => "; let the user of this process read it",
        _ => "",
    };
    Refused::general(format!("cannot read {name}: {error}{advice}"))
}

fn read_stdin() -> Result<Source, String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(STDIN_OCTETS_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read standard input: {error}"))?;
    if bytes.len() as u64 > STDIN_OCTETS_MAX {
        return Err(format!(
            "standard input is longer than {STDIN_OCTETS_MAX} octets"
        ));
    }
    String::from_utf8(bytes)
        .map(Source::Stdin)
        .map_err(|_| "standard input is not UTF-8".to_owned())
}

/// A program with what it was made from.
pub(crate) struct Loaded {
    /// Ready to start.
    pub(crate) program: Program,
    /// The parsed Dnsfile.
    pub(crate) dnsfile: Dnsfile,
}

/// Parses and builds.
pub(crate) fn load(
    source: &Source,
    table: &[&'static Plugin],
    services: &Services,
) -> Result<Loaded, Refused> {
    let dnsfile = source.parse(table, services)?;
    build(dnsfile, table, services)
}

/// Builds what is parsed.
pub(crate) fn build(
    dnsfile: Dnsfile,
    table: &[&'static Plugin],
    services: &Services,
) -> Result<Loaded, Refused> {
    match program::build(&dnsfile, table, services) {
        Ok(program) => Ok(Loaded { program, dnsfile }),
        Err(errors) => Err(Refused {
            sources: dnsfile.sources,
            errors,
        }),
    }
}

/// A Dnsfile that does not start, with every reason.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    sources: Sources,
    errors: Vec<SetupError>,
}

impl Refused {
    /// One reason that stands nowhere in the Dnsfile.
    pub(crate) fn general(what: impl Into<String>) -> Refused {
        Refused {
            sources: Sources::default(),
            errors: vec![SetupError::general(what)],
        }
    }

    /// Reasons that came up after building.
    pub(crate) fn new(sources: &Sources, errors: Vec<SetupError>) -> Refused {
        Refused {
            sources: sources.clone(),
            errors,
        }
    }

    /// All of it for a terminal or a file: each with its line and a mark.
    pub(crate) fn render(&self, colour: bool) -> String {
        let render = |error| errors::render(error, &self.sources, colour);
        self.errors.iter().map(render).collect()
    }

    /// Each reason in one line, for the log.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |error| {
            let text = errors::render(error, &self.sources, false);
            text.lines().next().unwrap_or_default().to_owned()
        };
        self.errors.iter().map(line).collect()
    }
}

impl From<Rejected> for Refused {
    fn from(rejected: Rejected) -> Refused {
        Refused {
            sources: rejected.sources,
            errors: rejected.errors,
        }
    }
}

/// What a Dnsfile says, as a hash that layout and comments do not change.
pub(crate) fn fingerprint(dnsfile: &Dnsfile) -> String {
    // Lengths in front of words, so that no two files look alike.
    let mut text = String::new();
    let mut put = |mark: char, words: &[Word]| {
        write!(text, "{mark}{}", words.len()).ok();
        for word in words {
            write!(
                text,
                " {}{}:{}",
                u8::from(word.quoted),
                word.text.len(),
                word.text
            )
            .ok();
        }
    };
    for block in &dnsfile.blocks {
        put('k', &block.keys);
        for directive in &block.directives {
            put('d', std::slice::from_ref(&directive.name));
            put('a', &directive.arguments);
            for line in directive.block.iter().flatten() {
                put('l', &line.words);
            }
        }
    }
    let digest = ring::digest::digest(&ring::digest::SHA512, text.as_bytes());
    data_encoding::HEXLOWER.encode(digest.as_ref())
}
