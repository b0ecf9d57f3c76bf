//! [`Finding`]: what a check found, and what to do about it; and how they are printed.

use std::io::{self, Write};

use serde_json::json;

use super::super::verify::report::Format;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    /// `D01` and so on.
    pub(super) id: &'static str,
    pub(super) level: Level,
    pub(super) what: String,
    /// Empty if nothing is to be done.
    pub(super) fix: String,
}

/// Findings of one check.
pub(super) struct Findings {
    id: &'static str,
    pub(super) all: Vec<Finding>,
}

impl Findings {
    pub(super) fn of(id: &'static str) -> Findings {
        Findings {
            id,
            all: Vec::new(),
        }
    }

    pub(super) fn ok(&mut self, what: impl Into<String>) {
        self.add(Level::Ok, what.into(), String::new());
    }

    pub(super) fn warn(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Level::Warn, what.into(), fix.into());
    }

    pub(super) fn fail(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Level::Fail, what.into(), fix.into());
    }

    fn add(&mut self, level: Level, what: String, fix: String) {
        self.all.push(Finding {
            id: self.id,
            level,
            what,
            fix,
        });
    }
}

/// The title of a check.
pub(super) fn title(id: &str) -> &'static str {
    TITLES
        .iter()
        .find(|(known, _)| *known == id)
        .map_or("", |(_, title)| title)
}

/// The checks, in the order in which they are made.
pub(super) const TITLES: [(&str, &str); 15] = [
    ("D01", "listen"),
    ("D02", "privilege"),
    ("D03", "endpoints"),
    ("D04", "api"),
    ("D05", "auth"),
    ("D06", "data"),
    ("D07", "config"),
    ("D08", "records"),
    ("D09", "zone"),
    ("D10", "forward"),
    ("D11", "clients"),
    ("D12", "firewall"),
    ("D13", "time"),
    ("D14", "dnssec"),
    ("D15", "watch"),
];

/// Prints them.
pub(super) fn print(findings: &[Finding], format: Format) -> io::Result<()> {
    let count = |level| findings.iter().filter(|found| found.level == level).count();
    let (ok, warn, fail) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
    let text = match format {
        Format::Text => {
            let lines: String = findings.iter().map(line).collect();
            format!("{lines}{ok} ok, {warn} warnings, {fail} failures\n")
        }
        Format::Json => {
            let findings = findings.iter().map(|found| {
                json!({
                    "id": found.id,
                    "check": title(found.id),
                    "level": word(found.level).to_ascii_lowercase(),
                    "what": found.what,
                    "fix": found.fix,
                })
            });
            let findings: Vec<_> = findings.collect();
            let object =
                json!({"findings": findings, "ok": ok, "warnings": warn, "failures": fail});
            format!("{object}\n")
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads may stop reading.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "FAIL",
    }
}

fn line(found: &Finding) -> String {
    let (word, title) = (word(found.level), title(found.id));
    let fix = match found.fix.as_str() {
        "" => String::new(),
        fix => format!("      fix: {fix}\n"),
    };
    format!("{word:<4}  {} {title}: {}\n{fix}", found.id, found.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_its_fix_below() {
        let mut findings = Findings::of("D01");
        findings.ok("all is well");
        findings.fail("nothing is well", "make it well");
        let lines: String = findings.all.iter().map(line).collect();
        assert_eq!(
            lines,
            "ok    D01 listen: all is well\nFAIL  D01 listen: nothing is well\n      fix: make it well\n"
        );
    }
}
