//! The table, the picture, and what the kernel says about a process.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A server under a workload.
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) server: &'static str,
    pub(crate) cpu_us: f64,
    pub(crate) qps: f64,
    /// At half of that rate.
    pub(crate) p50: Duration,
    /// The same.
    pub(crate) p99: Duration,
    /// Half of the answers when one query is asked at a time.
    pub(crate) alone: Duration,
    pub(crate) lost: u64,
    /// Before the first query.
    pub(crate) idle_mib: f64,
    /// After the last.
    pub(crate) memory_mib: f64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:10} {:9} {:7.2} us CPU/query {:9.0} qps  p50 {:5.0} us  p99 {:6.0} us  alone {:4.0} us  {:7.1} MiB  lost {}",
            self.workload,
            self.server,
            self.cpu_us,
            self.qps,
            micros(self.p50),
            micros(self.p99),
            micros(self.alone),
            self.memory_mib,
            self.lost
        )
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// What was measured side by side.
#[derive(Default)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    /// Prints it and keeps it.
    pub(crate) fn push(&mut self, row: Row) {
        println!("{row}");
        self.0.push(row);
    }

    /// A server under a workload.
    pub(crate) fn find(&self, workload: &str, server: &str) -> Option<&Row> {
        let mut rows = self.0.iter();
        rows.find(|row| row.workload == workload && row.server == server)
    }

    /// CPU per query of the floor.
    pub(crate) fn floor(&self) -> Option<f64> {
        self.find("floor", "echo").map(|row| row.cpu_us)
    }

    /// Rows of ours.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(|row| row.server == "skeindns")
    }

    /// Rows of other servers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Row> {
        let rows = self.0.iter();
        rows.filter(|row| !matches!(row.server, "skeindns" | "echo"))
    }

    /// As a Markdown table, with the ratio to the floor and ours to each peer.
    pub(crate) fn table(&self) -> String {
        let floor = self.floor().unwrap_or(f64::NAN);
        let mut out = String::from(
            "| workload | server | CPU us/query | to the floor | ours to it | queries/s | p50 us | p99 us | alone us | idle MiB | MiB | lost |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.0 {
            let ours = self.find(row.workload, "skeindns");
            let ours = ours.filter(|_| row.server != "skeindns");
            let ratio = ours.map(|ours| format!("{:.2}", ours.cpu_us / row.cpu_us));
            // Writing to a String cannot fail.
            writeln!(
                out,
                "| {} | {} | {:.2} | {:.2} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {} |",
                row.workload,
                row.server,
                row.cpu_us,
                row.cpu_us / floor,
                ratio.unwrap_or_default(),
                row.qps,
                micros(row.p50),
                micros(row.p99),
                micros(row.alone),
                row.idle_mib,
                row.memory_mib,
                row.lost
            )
            .ok();
        }
        out
    }
}

/// One figure that has no peer beside it.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Figure {
    /// A figure in its unit.
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure {
            what: what.into(),
            value,
            unit,
        }
    }

    /// A time.
    pub(crate) fn micros(what: impl Into<String>, value: Duration) -> Figure {
        Figure::new(what, micros(value), "us")
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2} {}", self.what, self.value, self.unit)
    }
}

/// As a Markdown table.
pub(crate) fn figures(figures: &[Figure]) -> String {
    let mut out = String::from("| measured | value | unit |\n|---|---|---|\n");
    for figure in figures {
        writeln!(
            out,
            "| {} | {:.2} | {} |",
            figure.what, figure.value, figure.unit
        )
        .ok();
    }
    out
}

/// The one in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Writes `performance-table.md` and `performance.svg`.
pub(crate) fn write(dir: &Path, rows: &Rows, tables: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let date = output("date", &["-u", "+%Y-%m-%d"]);
    let kernel = output("uname", &["-sr"]);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let text = format!(
        "Measured on {date} ({kernel}, {cpu}), each server on one core, the generator on another.\n\n{tables}"
    );
    fs::write(dir.join("performance-table.md"), text)?;
    fs::write(dir.join("performance.svg"), picture(&rows.0))
}

/// Bars of CPU time per query.
fn picture(rows: &[Row]) -> String {
    let longest = rows.iter().map(|row| row.cpu_us).fold(0.1, f64::max);
    let height = 40 + rows.len() * 24;
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="13"><rect width="760" height="{height}" fill="#fff"/><text x="10" y="22" font-weight="bold">CPU time per query, microseconds (less is better)</text>"##
    );
    for (i, row) in rows.iter().enumerate() {
        let y = 38 + i * 24;
        let width = (row.cpu_us / longest * 480.0).max(1.0);
        let colour = match row.server {
            "skeindns" => "#2a7a4f",
            "echo" => "#b9b9b9",
            _ => "#6b8fb5",
        };
        write!(
            out,
            r##"<text x="170" y="{}" text-anchor="end">{} {}</text><rect x="180" y="{y}" width="{width:.1}" height="16" fill="{colour}"/><text x="{:.1}" y="{}">{:.2}</text>"##,
            y + 13,
            row.workload,
            row.server,
            186.0 + width,
            y + 13,
            row.cpu_us
        )
        .ok();
    }
    out.push_str("</svg>\n");
    out
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// Binds this process to a core.
pub(crate) fn pin(core: &str) -> io::Result<()> {
    let status = Command::new("taskset")
        .args(["-cp", core, &std::process::id().to_string()])
        .output()?
        .status;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("taskset failed: this needs two cores"))
    }
}

/// User and system time of a process and those it started, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    // The kernel counts in hundredths of a second.
    let own = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks
            .filter_map(|text| text.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0
    };
    family(pid).into_iter().map(own).sum()
}

/// Resident memory of a process and those it started.
pub(crate) fn memory_mib(pid: u32) -> f64 {
    let own = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap_or_default();
        line.trim()
            .trim_end_matches(" kB")
            .parse::<f64>()
            .unwrap_or_default()
            / 1024.0
    };
    family(pid).into_iter().map(own).sum()
}

/// A process and all that it started.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let list = fs::read_to_string(path).unwrap_or_default();
        all.extend(
            list.split_whitespace()
                .filter_map(|text| text.parse::<u32>().ok()),
        );
        at += 1;
    }
    all
}
