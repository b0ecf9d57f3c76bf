//! The checks as text or JSON.

use std::io::{self, Write};

use serde_json::json;

use super::check::{Check, Verdict};

/// How to print.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// Prints the checks, all of them or those that are not simply right, and the sum.
pub(crate) fn report(
    checks: &[Check],
    notes: &[String],
    format: Format,
    all: bool,
) -> io::Result<()> {
    let shown = || {
        let checks = checks.iter();
        checks.filter(move |check| all || check.verdict != Verdict::Ok)
    };
    let text = match format {
        Format::Text => {
            let mut text: String = shown().map(line).collect();
            for note in notes {
                text.push_str(&format!("note  {note}\n"));
            }
            text + &sum(checks) + "\n"
        }
        Format::Json => {
            let count = |verdict: fn(&Verdict) -> bool| {
                checks
                    .iter()
                    .filter(|check| verdict(&check.verdict))
                    .count()
            };
            let object = json!({
                "checks": shown().map(object).collect::<Vec<_>>(),
                "notes": notes,
                "total": checks.len(),
                "ok": count(|verdict| *verdict == Verdict::Ok),
                "failed": count(|verdict| matches!(verdict, Verdict::Failed(_))),
                "skipped": count(|verdict| matches!(verdict, Verdict::Skipped(_))),
                "unresolved": count(|verdict| *verdict == Verdict::Unresolved),
                "changing": count(|verdict| *verdict == Verdict::Changing),
            });
            format!("{object}\n")
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads may stop reading.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn word(verdict: &Verdict) -> (&'static str, &str) {
    match verdict {
        Verdict::Ok => ("ok", ""),
        Verdict::Unresolved => (
            "warn",
            "the server could not resolve a name outside the zone",
        ),
        Verdict::Changing => ("warn", "etcd kept changing; run it again"),
        Verdict::Skipped(why) => ("skip", why),
        Verdict::Failed(what) => ("FAIL", what),
    }
}

fn line(check: &Check) -> String {
    let (word, what) = word(&check.verdict);
    let Check {
        name,
        rtype,
        expected,
        got,
        took,
        ..
    } = check;
    let ms = took.as_secs_f64() * 1e3;
    let mut line =
        format!("{word:<4}  {name} {rtype}  expected {expected}  got {got}  {ms:.1} ms\n");
    if !what.is_empty() {
        line.push_str(&format!("      {what}\n"));
    }
    line
}

fn object(check: &Check) -> serde_json::Value {
    let (word, what) = word(&check.verdict);
    json!({
        "name": check.name,
        "type": check.rtype,
        "expected": check.expected,
        "got": check.got,
        "ms": (check.took.as_secs_f64() * 1e6).round() / 1e3,
        "verdict": word.to_ascii_lowercase(),
        "what": what,
    })
}

fn sum(checks: &[Check]) -> String {
    let count = |verdict: fn(&Verdict) -> bool| {
        let checks = checks.iter();
        checks.filter(|check| verdict(&check.verdict)).count()
    };
    let mut text = format!(
        "{} checks, {} ok, {} failed",
        checks.len(),
        count(|verdict| *verdict == Verdict::Ok),
        count(|verdict| matches!(verdict, Verdict::Failed(_)))
    );
    for (number, word) in [
        (
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
            "skipped",
        ),
        (
            count(|verdict| *verdict == Verdict::Unresolved),
            "unresolved",
        ),
        (count(|verdict| *verdict == Verdict::Changing), "changing"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {number} {word}"));
        }
    }
    text
}
