//! errors: logs every query that failed, one line each, alike ones summed up if asked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use regex::Regex;

use crate::kit::clock::{self, Instant};
use crate::kit::dnsfile::Word;
use crate::kit::errors::{ServeError, SetupError, SetupErrors};
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::options::{self, Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::Response;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Opcode, name};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "errors",
    aliases: &[],
    summary: "logs the queries that failed, and why",
    arguments: &[Arg::optional("stdout", Kind::Choice(&["stdout"]))],
    options: &[
        Opt::new("stacktrace", &[], "off", "accepted as in CoreDNS; a panic's place is always logged"),
        Opt::new(
            "consolidate",
            &[Arg::some("DURATION REGEX [LEVEL] [show_first]", Kind::Text)],
            "none",
            "sums up errors whose text matches REGEX: one line per DURATION, at LEVEL (error, warning, info or debug)",
        )
        .adds(),
    ],
    free_block: false,
    repeat: Repeat::Once,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let mut errors = SetupErrors::default();
    let mut patterns = Vec::new();
    for line in directives
        .iter()
        .flat_map(|directive| directive.options("consolidate"))
    {
        let words: Vec<&Word> = line.values.iter().map(|(_, value)| &value.word).collect();
        match Pattern::read(&line.word, &words) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => errors.0.push(error),
        }
    }
    if !errors.0.is_empty() {
        return Err(errors);
    }
    let patterns: std::sync::Arc<[Pattern]> = patterns.into();
    if !patterns.is_empty() {
        let summed = std::sync::Arc::clone(&patterns);
        server.background("errors: summaries", async move {
            loop {
                tokio::time::sleep(TICK).await;
                summed
                    .iter()
                    .for_each(|pattern| pattern.report(Report::IfDue));
            }
        });
        let last = std::sync::Arc::clone(&patterns);
        server.at_stop(async move { last.iter().for_each(|pattern| pattern.report(Report::Now)) });
    }
    server.chain(Errors {
        patterns,
        limit_told_at: AtomicU64::new(0),
    });
    Ok(())
}

/// How often summaries are looked after; a summary is at most this late.
const TICK: Duration = Duration::from_secs(1);

struct Errors {
    patterns: std::sync::Arc<[Pattern]>,
    // The second in which a limit was told last.
    limit_told_at: AtomicU64,
}

impl Handler for Errors {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        next.serve(query).then(self)
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}

impl Edit for Errors {
    #[inline]
    fn edit(&self, response: Response) -> Response {
        if response.error().is_some() {
            self.report(&response);
        }
        response
    }
}

impl Errors {
    /// A limit that was reached is told once a second: a flood of queries must not become a flood of lines.
    fn is_due(&self, error: &ServeError) -> bool {
        if !matches!(error, ServeError::Limit(_)) {
            return true;
        }
        let second = clock::unix_now().as_secs();
        self.limit_told_at.swap(second, Relaxed) != second
    }

    #[cold]
    fn report(&self, response: &Response) {
        let Some(error) = response.error() else {
            return;
        };
        let text = error.to_string();
        let level = match self
            .patterns
            .iter()
            .find(|pattern| pattern.regex.is_match(&text))
        {
            Some(pattern) if pattern.count() => pattern.level,
            Some(_) => return,
            None if !self.is_due(error) => return,
            None => Level::Error,
        };
        let query = response.query();
        let line = format!(
            "{} {} {}: {text}",
            response.rcode().0,
            name::display(query.qname()),
            query.qtype()
        );
        level.log(&line);
    }
}

/// A `consolidate` line at work.
struct Pattern {
    every: Duration,
    regex: Regex,
    level: Level,
    show_first: bool,
    hits: AtomicU64,
    since: Mutex<Option<Instant>>,
}

enum Report {
    IfDue,
    Now,
}

impl Pattern {
    fn read(option: &Word, words: &[&Word]) -> Result<Pattern, SetupError> {
        let [every, regex, more @ ..] = words else {
            return Err(SetupError::at(
                option.span,
                "consolidate takes DURATION REGEX [LEVEL] [show_first]",
            ));
        };
        if more.len() > 2 {
            return Err(SetupError::at(
                more[2].span,
                "consolidate takes DURATION REGEX [LEVEL] [show_first], this word is too many",
            ));
        }
        let duration = options::parse_duration(&every.text)
            .map_err(|what| SetupError::at(every.span, what))?;
        if regex.text.len() > REGEX_OCTETS_MAX {
            return Err(SetupError::at(
                regex.span,
                format!("regex pattern too long: at most {REGEX_OCTETS_MAX} octets"),
            ));
        }
        let compiled = Regex::new(&regex.text).map_err(|error| {
            SetupError::at(
                regex.span,
                format!(
                    "not a regular expression: {}",
                    last_line(&error.to_string())
                ),
            )
        })?;
        let mut level = None;
        let mut show_first = false;
        for word in more {
            match (Level::read(&word.text), word.text.as_str()) {
                (Some(_), _) if show_first => {
                    return Err(SetupError::at(
                        word.span,
                        "log level must come before show_first in consolidate",
                    ));
                }
                (Some(_), _) if level.is_some() => {
                    return Err(SetupError::at(
                        word.span,
                        "multiple log levels specified in consolidate",
                    ));
                }
                (Some(found), _) => level = Some(found),
                (None, "show_first") => show_first = true,
                (None, _) => {
                    let what = format!(
                        "unknown option in consolidate: `{}`; write error, warning, info, debug or show_first",
                        word.text
                    );
                    return Err(SetupError::at(word.span, what));
                }
            }
        }
        Ok(Pattern {
            every: duration,
            regex: compiled,
            level: level.unwrap_or(Level::Error),
            show_first,
            hits: AtomicU64::new(0),
            since: Mutex::new(None),
        })
    }

    /// Counts a hit; true if its line is to be logged as well.
    fn count(&self) -> bool {
        let first = self.hits.fetch_add(1, Relaxed) == 0;
        if first {
            *self
                .since
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(clock::now());
        }
        first && self.show_first
    }

    fn report(&self, when: Report) {
        let mut since = self
            .since
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let due = since.is_some_and(|since| {
            matches!(when, Report::Now) || clock::now().duration_since(since) >= self.every
        });
        if !due {
            return;
        }
        *since = None;
        let hits = self.hits.swap(0, Relaxed);
        if hits > 1 || hits == 1 && !self.show_first {
            self.level.log(&format!(
                "{hits} errors like '{}' occurred in last {:?}",
                self.regex, self.every
            ));
        }
    }
}

/// Octets of a pattern, as in CoreDNS: a longer one is a mistake.
const REGEX_OCTETS_MAX: usize = 10_000;

fn last_line(text: &str) -> &str {
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
}

#[derive(Clone, Copy)]
enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    fn read(text: &str) -> Option<Level> {
        Some(match text {
            "error" => Level::Error,
            "warning" => Level::Warning,
            "info" => Level::Info,
            "debug" => Level::Debug,
            _ => return None,
        })
    }

    fn log(self, line: &str) {
        match self {
            Level::Error => tracing::error!("plugin/errors: {line}"),
            Level::Warning => tracing::warn!("plugin/errors: {line}"),
            Level::Info => tracing::info!("plugin/errors: {line}"),
            Level::Debug => tracing::debug!("plugin/errors: {line}"),
        }
    }
}
