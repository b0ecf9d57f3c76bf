//! The table, the picture, and what the kernel says about a process.

use std::fmt::Write as _;
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
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) lost: u64,
    pub(crate) memory_mib: f64,
}

impl Row {
    /// For the terminal, while it runs.
    pub(crate) fn line(&self) -> String {
        format!(
            "{:8} {:9} {:7.2} us CPU/query {:9.0} qps  p50 {:5.0} us  p99 {:6.0} us  {:7.1} MiB  lost {}",
            self.workload,
            self.server,
            self.cpu_us,
            self.qps,
            self.p50.as_secs_f64() * 1e6,
            self.p99.as_secs_f64() * 1e6,
            self.memory_mib,
            self.lost
        )
    }
}

/// The rows as a Markdown table, with the ratio to the floor and ours to each peer.
pub(crate) fn table(rows: &[Row]) -> String {
    let floor = rows
        .iter()
        .find(|row| row.server == "echo")
        .map_or(f64::NAN, |row| row.cpu_us);
    let mut out = String::from(
        "| workload | server | CPU us/query | to the floor | ours to it | queries/s | p50 us | p99 us | memory MiB | lost |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let ours = rows
            .iter()
            .find(|other| other.workload == row.workload && other.server == "skeindns");
        let ratio = ours
            .filter(|_| row.server != "skeindns")
            .map_or(String::new(), |ours| {
                format!("{:.2}", ours.cpu_us / row.cpu_us)
            });
        // Writing to a String cannot fail.
        writeln!(
            out,
            "| {} | {} | {:.2} | {:.2} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {} |",
            row.workload,
            row.server,
            row.cpu_us,
            row.cpu_us / floor,
            ratio,
            row.qps,
            row.p50.as_secs_f64() * 1e6,
            row.p99.as_secs_f64() * 1e6,
            row.memory_mib,
            row.lost
        )
        .ok();
    }
    out
}

/// Writes `performance-table.md` and `performance.svg`.
pub(crate) fn write(dir: &Path, rows: &[Row], table: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let date = output("date", &["-u", "+%Y-%m-%d"]);
    let kernel = output("uname", &["-sr"]);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let text = format!(
        "Measured on {date} ({kernel}, {cpu}), each server on one core, the generator on another.\n\n{table}"
    );
    fs::write(dir.join("performance-table.md"), text)?;
    fs::write(dir.join("performance.svg"), picture(rows))
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

/// User and system time of a process and its children, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let own = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |i: usize| {
            fields
                .get(i)
                .and_then(|text| text.parse::<f64>().ok())
                .unwrap_or_default()
        };
        (ticks(11) + ticks(12)) / 100.0
    };
    own(pid) + children(pid).into_iter().map(own).sum::<f64>()
}

/// Resident memory of a process and its children.
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
    own(pid) + children(pid).into_iter().map(own).sum::<f64>()
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|text| text.parse().ok())
        .collect()
}
