//! SkeinDNS beside its peers, in one run: `make bench`.
//!
//! Every server gets one core, the generator the other. CPU per query is the server's own time by the kernel's books, so it holds where
//! the generator is the bottleneck; ratios of one run count, absolute figures move from run to run. The floor is a loop that receives and
//! sends the same batches and does nothing else.

#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

mod load;
mod mmsg;
mod report;
mod servers;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use load::{Outcome, Pace};
use report::Row;
use servers::{Lab, Server, Workload};

/// SkeinDNS beside its peers.
#[derive(Parser)]
struct Args {
    /// Our program.
    #[arg(long, default_value = "target/release/skeindns")]
    skeindns: PathBuf,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Measurements of each server; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Names asked.
    #[arg(long, default_value_t = 1000)]
    names: usize,
    /// Only these workloads (cache, full, forward, etcd), with commas.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Writes the table as Markdown and the picture as SVG into this folder.
    #[arg(long)]
    write: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Other>,
}

#[derive(Subcommand)]
enum Other {
    /// The floor: answers every datagram with itself.
    Echo {
        /// Port on loopback.
        port: u16,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Some(Other::Echo { port }) => mmsg::echo(port),
        None => measure(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skein-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> io::Result<()> {
    let own = std::env::current_exe()?;
    let lab = Lab::new(args.names)?;
    report::pin("1")?;
    let mut rows = Vec::new();
    let echo = lab.server(&own, "echo", Workload::Cache, 0, "0")?;
    rows.extend(measure_server(args, &lab, &echo, "floor", "echo")?);
    drop(echo);
    for workload in Workload::ALL {
        if !args.workloads.is_empty() && !args.workloads.iter().any(|name| name == workload.name())
        {
            continue;
        }
        let backend = match workload {
            Workload::Etcd => lab.etcd()?,
            _ => lab.upstream()?,
        };
        if workload != Workload::Etcd {
            wait_ready(backend.port)?;
        }
        for name in workload.servers() {
            let Some(program) = program(args, name) else {
                println!("{:8} {name}: not installed", workload.name());
                continue;
            };
            let server = lab.server(&program, name, workload, backend.port, "0")?;
            match measure_server(args, &lab, &server, workload.name(), name)? {
                Some(row) => rows.push(row),
                None => println!(
                    "{:8} {name}: does not answer: {}",
                    workload.name(),
                    lab.log(&server)
                ),
            }
        }
    }
    let table = report::table(&rows);
    println!("\n{table}");
    if let Some(dir) = &args.write {
        report::write(dir, &rows, &table)?;
    }
    Ok(())
}

fn program(args: &Args, name: &str) -> Option<PathBuf> {
    if name == "skeindns" {
        return std::path::absolute(&args.skeindns)
            .ok()
            .filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| Path::exists(file))
}

/// Saturated first, then at half that rate for latency.
fn measure_server(
    args: &Args,
    lab: &Lab,
    server: &Server,
    workload: &'static str,
    name: &'static str,
) -> io::Result<Option<Row>> {
    let echo = name == "echo";
    if !echo && wait_ready(server.port).is_err() {
        return Ok(None);
    }
    let address = SocketAddr::from(([127, 0, 0, 1], server.port));
    let queries = load::queries((0..args.names).map(|i| format!("h{i}.example.org")));
    // Every name once, so that caches are warm.
    load::run(
        address,
        &queries,
        Pace::Window(64),
        Duration::from_secs_f64(0.2 + args.names as f64 / 50_000.0),
    )?;
    let (mut saturated, mut half) = (Vec::new(), Vec::new());
    for _ in 0..args.runs.max(1) {
        let before = report::cpu_seconds(server.pid());
        let outcome = load::run(
            address,
            &queries,
            Pace::Window(300),
            Duration::from_secs(args.seconds),
        )?;
        let cpu = report::cpu_seconds(server.pid()) - before;
        let qps = outcome.answered as f64 / outcome.seconds;
        saturated.push((
            cpu / outcome.answered.max(1) as f64 * 1e6,
            qps,
            lost(&outcome),
        ));
        let outcome = load::run(
            address,
            &queries,
            Pace::Rate(qps / 2.0),
            Duration::from_secs(args.seconds.div_ceil(2)),
        )?;
        half.push((
            outcome.latency.percentile(0.5),
            outcome.latency.percentile(0.99),
            lost(&outcome),
        ));
    }
    saturated.sort_by(|a, b| a.0.total_cmp(&b.0));
    half.sort();
    let (cpu_us, qps, lost_saturated) = saturated[saturated.len() / 2];
    let (p50, p99, lost_half) = half[half.len() / 2];
    let row = Row {
        workload,
        server: name,
        cpu_us,
        qps,
        p50,
        p99,
        lost: lost_saturated + lost_half,
        memory_mib: report::memory_mib(server.pid()),
    };
    println!("{}", row.line());
    let _ = lab;
    Ok(Some(row))
}

fn lost(outcome: &Outcome) -> u64 {
    outcome.sent.saturating_sub(outcome.answered) + outcome.failed
}

fn wait_ready(port: u16) -> io::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let queries = load::queries(std::iter::once("h1.example.org".to_owned()));
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        let outcome = load::run(
            address,
            &queries,
            Pace::Window(1),
            Duration::from_millis(50),
        )?;
        if outcome.answered > outcome.failed {
            return Ok(());
        }
    }
    Err(io::Error::other(format!("port {port} does not answer")))
}
