//! What is aimed at, beside what this run measured.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::{Figure, Row, Rows};

/// A target: what, the most that is allowed, and what it is.
struct Target {
    what: String,
    limit: String,
    measured: String,
    met: bool,
}

/// The targets for which something was measured, as a Markdown table.
pub(crate) fn table(rows: &Rows, figures: &[Figure]) -> String {
    let mut out = String::from("| target | at most | measured | met |\n|---|---|---|---|\n");
    for target in of_rows(rows).into_iter().chain(of_figures(figures)) {
        let met = if target.met { "yes" } else { "**no**" };
        // Writing to a String cannot fail.
        writeln!(
            out,
            "| {} | {} | {} | {met} |",
            target.what, target.limit, target.measured
        )
        .ok();
    }
    out
}

/// CPU per query as a ratio to the floor, by workload.
const TO_THE_FLOOR: &[(&str, f64)] = &[
    ("cache", 1.24),
    ("full", 1.3),
    ("fulllog", 1.68),
    ("hosts", 1.19),
    ("auth", 1.21),
    ("etcd", 1.3),
    ("etcdcache", 1.3),
];

fn of_rows(rows: &Rows) -> Vec<Target> {
    let mut targets = Vec::new();
    for (workload, limit) in TO_THE_FLOOR {
        if let (Some(ours), Some(floor)) = (rows.find(workload, "skeindns"), rows.floor()) {
            targets.push(ratio(
                format!("{workload}: CPU to the floor"),
                ours.cpu_us / floor,
                *limit,
            ));
        }
    }
    for peer in rows.peers() {
        let Some(ours) = rows.find(peer.workload, "skeindns") else {
            continue;
        };
        targets.push(below(
            format!("{}: CPU below {}", peer.workload, peer.server),
            ours,
            peer,
        ));
    }
    if let (Some(ours), Some(peer)) = (
        rows.find("cache", "skeindns"),
        rows.find("cache", "dnsdist"),
    ) {
        targets.push(time(
            "cache: p50 at half load, dnsdist's",
            ours.p50,
            peer.p50,
        ));
        targets.push(time(
            "cache: p99 at half load, dnsdist's",
            ours.p99,
            peer.p99,
        ));
        targets.push(time(
            "cache: one query at a time, p50",
            ours.alone,
            Duration::from_micros(60),
        ));
    }
    if let Some(ours) = rows.find("cache-many", "skeindns") {
        targets.push(figure(
            "cache, many names: memory",
            ours.memory_mib,
            250.0,
            "MiB",
        ));
    }
    let lost: u64 = rows.ours().map(|row| row.lost).sum();
    targets.push(figure(
        "queries lost by ours, all rows",
        lost as f64,
        0.0,
        "",
    ));
    targets
}

fn of_figures(figures: &[Figure]) -> Vec<Target> {
    const LIMITS: &[(&str, f64)] = &[
        ("idle memory, two workers", 10.0),
        ("two workers to one", 1.1),
        ("resident memory to the cache's budget", 1.1),
        ("first answer after the start", 15.0),
        ("memory of the whole process", 400.0),
        ("put to answer, p99", 5000.0),
    ];
    let targets = figures.iter().filter_map(|measured| {
        let (_, limit) = LIMITS
            .iter()
            .find(|(end, _)| measured.what.ends_with(end))?;
        Some(figure(
            &measured.what,
            measured.value,
            *limit,
            measured.unit,
        ))
    });
    targets.collect()
}

fn ratio(what: String, value: f64, limit: f64) -> Target {
    Target {
        what,
        limit: format!("{limit:.2}"),
        measured: format!("{value:.2}"),
        met: value <= limit,
    }
}

fn below(what: String, ours: &Row, peer: &Row) -> Target {
    Target {
        what,
        limit: format!("{:.2} us", peer.cpu_us),
        measured: format!("{:.2} us", ours.cpu_us),
        met: ours.cpu_us < peer.cpu_us,
    }
}

fn time(what: &str, value: Duration, limit: Duration) -> Target {
    Target {
        what: what.to_owned(),
        limit: format!("{:.0} us", limit.as_secs_f64() * 1e6),
        measured: format!("{:.0} us", value.as_secs_f64() * 1e6),
        met: value <= limit,
    }
}

fn figure(what: &str, value: f64, limit: f64, unit: &str) -> Target {
    Target {
        what: what.to_owned(),
        limit: format!("{limit:.2} {unit}").trim_end().to_owned(),
        measured: format!("{value:.2} {unit}").trim_end().to_owned(),
        met: value <= limit,
    }
}
