//! `coredns_build_info` and the figures that every Prometheus client has of its process, read from /proc when they are asked for.

use std::fs;

use skein_plugins::kit::metrics::{Metrics, Reading};

/// Ticks a second in /proc: the same on every Linux that we run on.
const TICKS: f64 = 100.0;

/// Registers them; they end with what is returned.
pub(crate) fn register(metrics: &Metrics) -> Vec<Reading> {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", env!("SKEINDNS_COMMIT")),
        ("goversion", env!("SKEINDNS_RUSTC")),
    ];
    let help = "A metric with a constant '1' value labeled by version, revision, and the compiler's version.";
    metrics.gauge("coredns_build_info", help, &labels).set(1);
    let gauge = |name, help, read: fn() -> Option<f64>| {
        metrics.gauge_fn(name, help, &[], move || read().unwrap_or_default())
    };
    vec![
        metrics.counter_fn(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            &[],
            || cpu_seconds().unwrap_or_default(),
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            || status("VmRSS:"),
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            || status("VmSize:"),
        ),
        gauge(
            "process_open_fds",
            "Number of open file descriptors.",
            || Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64),
        ),
        gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            max_descriptors,
        ),
        gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            start_time,
        ),
        gauge(
            "process_threads",
            "Number of operating system threads in use.",
            || stat_field(20),
        ),
    ]
}

/// Field `number` of /proc/self/stat, counted from 1 as in proc(5).
fn stat_field(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat_field(14)? + stat_field(15)?) / TICKS)
}

fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + stat_field(22)? / TICKS)
}

/// A line of /proc/self/status that is given in kibibytes.
fn status(key: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn max_descriptors() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_of_this_process() {
        let metrics = Metrics::new(1);
        let _readings = register(&metrics);
        for name in [
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
            "process_threads",
        ] {
            assert!(
                metrics.value(name, &[]).is_some_and(|value| value > 0.0),
                "{name}"
            );
        }
        assert_eq!(metrics.value("coredns_build_info", &[]), Some(1.0));
    }
}
