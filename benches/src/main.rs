//! SkeinDNS beside its peers, in one run: `make bench`.
//!
//! Every server gets one core, the generator the other. CPU per query is the server's own time by the kernel's books, so it holds where
//! the generator is the bottleneck; ratios of one run count, absolute figures move from run to run. The floor is a loop that receives and
//! sends the same batches and does nothing else.

#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

mod link;
mod load;
mod mmsg;
mod report;
mod servers;
mod size;
mod store;
mod targets;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use link::Transport;
use load::{Load, Pace, Ready};
use report::{Figure, Row, Rows};
use servers::{Lab, Place, Server, Workload};

/// Queries outstanding while a server is saturated.
const WINDOW: usize = 300;

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
    /// Names of the workloads at size.
    #[arg(long, default_value_t = 1_000_000)]
    many: usize,
    /// Names of the flood.
    #[arg(long, default_value_t = 20_000_000)]
    flood: u64,
    /// Only these workloads, with commas.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Writes the tables as Markdown and the picture as SVG into this folder.
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

/// What is measured side by side, by its name on the command line.
const MEASUREMENTS: &[(&str, Workload, Transport)] = &[
    ("cache", Workload::Cache, Transport::Udp),
    ("full", Workload::Full, Transport::Udp),
    ("fulllog", Workload::FullLog, Transport::Udp),
    ("forward", Workload::Forward, Transport::Udp),
    ("hosts", Workload::Hosts, Transport::Udp),
    ("auth", Workload::Auth, Transport::Udp),
    ("etcd", Workload::Etcd, Transport::Udp),
    ("etcdcache", Workload::EtcdCache, Transport::Udp),
    ("cache-tcp", Workload::Cache, Transport::Tcp),
    ("auth-tcp", Workload::Auth, Transport::Tcp),
];

/// What is measured of ours alone or at size.
const OTHERS: &[&str] = &["workers", "cache-many", "flood", "etcd-many"];

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

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|wanted| wanted == name)
    }

    fn check(&self) -> io::Result<()> {
        let known = MEASUREMENTS
            .iter()
            .map(|(name, ..)| *name)
            .chain(OTHERS.iter().copied());
        let known: Vec<&str> = known.collect();
        match self
            .workloads
            .iter()
            .find(|name| !known.contains(&name.as_str()))
        {
            Some(name) => Err(io::Error::other(format!(
                "no workload is called {name}; there are {}",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// The program of a server: ours as given, a peer's from the path.
    fn program(&self, name: &str) -> Option<PathBuf> {
        if name == "skeindns" {
            let path = std::path::absolute(&self.skeindns).ok();
            return path.filter(|path| path.exists());
        }
        let path = std::env::var_os("PATH")?;
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        // Debian's servers are here, which is not on everybody's path.
        folders.push("/usr/sbin".into());
        folders
            .iter()
            .map(|dir| dir.join(name))
            .find(|file| Path::exists(file))
    }
}

fn measure(args: &Args) -> io::Result<()> {
    args.check()?;
    let own = std::env::current_exe()?;
    let lab = Lab::new(args.names)?;
    report::pin("1")?;
    let mut rows = Rows::default();
    let echo = lab.server(&own, "echo", Workload::Cache, 0, Place::ALONE)?;
    let floor = Measurement::of(args, "floor", Transport::Udp, args.names);
    floor.measure("echo", &echo, &mut rows)?;
    drop(echo);
    for (name, workload, transport) in MEASUREMENTS {
        if args.wants(name) {
            let measurement = Measurement::of(args, name, *transport, args.names);
            side_by_side(args, &lab, &measurement, *workload, &mut rows)?;
        }
    }
    let mut figures = Vec::new();
    if args.wants("workers") {
        figures.extend(size::workers(args, &lab)?);
    }
    if args.wants("cache-many") || args.wants("flood") || args.wants("etcd-many") {
        let many = Lab::new(args.many)?;
        if args.wants("cache-many") {
            let measurement = Measurement::of(args, "cache-many", Transport::Udp, args.many);
            side_by_side(args, &many, &measurement, Workload::Cache, &mut rows)?;
        }
        if args.wants("flood") {
            figures.extend(size::flood(args, &lab)?);
        }
        if args.wants("etcd-many") {
            figures.extend(size::etcd(args, &many)?);
        }
    }
    let mut tables = rows.table();
    tables.push('\n');
    tables.push_str(&report::figures(&figures));
    tables.push('\n');
    tables.push_str(&targets::table(&rows, &figures));
    println!("\n{tables}");
    if let Some(dir) = &args.write {
        report::write(dir, &rows, &tables)?;
    }
    Ok(())
}

/// Measures every server that can do a workload and is installed.
fn side_by_side(
    args: &Args,
    lab: &Lab,
    measurement: &Measurement<'_>,
    workload: Workload,
    rows: &mut Rows,
) -> io::Result<()> {
    // On the generator's core; a server that answers from memory does not ask it while it is measured.
    let backend = match workload.wants_etcd() {
        true => lab.etcd()?,
        false => lab.upstream()?,
    };
    if !workload.wants_etcd() {
        backend.wait()?;
    }
    for name in workload.servers() {
        let Some(program) = args.program(name) else {
            println!("{:10} {name}: not installed", measurement.name);
            continue;
        };
        let server = lab.server(&program, name, workload, backend.port, Place::ALONE)?;
        if server.wait().is_err() {
            println!(
                "{:10} {name}: does not answer: {}",
                measurement.name,
                lab.log(&server)
            );
            continue;
        }
        measurement.measure(name, &server, rows)?;
    }
    Ok(())
}

/// How a server is measured, the same for each.
struct Measurement<'a> {
    args: &'a Args,
    name: &'static str,
    transport: Transport,
    queries: Ready,
    names: usize,
}

impl<'a> Measurement<'a> {
    fn of(args: &'a Args, name: &'static str, transport: Transport, names: usize) -> Self {
        Measurement {
            args,
            name,
            transport,
            queries: names_asked(names),
            names,
        }
    }

    fn load(&self, server: &Server, pace: Pace, seconds: f64) -> Load {
        Load {
            transport: self.transport,
            ..Load::new(server.address(), pace, Duration::from_secs_f64(seconds))
        }
    }

    /// Saturated first, then at half that rate for latency, then one query at a time.
    fn measure(&self, name: &'static str, server: &Server, rows: &mut Rows) -> io::Result<()> {
        let idle_mib = report::memory_mib(server.pid());
        // Every name once and more, so that caches are warm.
        let warm = Load {
            queries_max: self.names as u64 * 2,
            ..Load::new(server.address(), Pace::Window(64), Duration::from_secs(120))
        };
        warm.run(&self.queries)?;
        let seconds = self.args.seconds as f64;
        let (mut saturated, mut half) = (Vec::new(), Vec::new());
        for _ in 0..self.args.runs.max(1) {
            let before = report::cpu_seconds(server.pid());
            let outcome = self
                .load(server, Pace::Window(WINDOW), seconds)
                .run(&self.queries)?;
            let cpu = report::cpu_seconds(server.pid()) - before;
            let qps = outcome.answered as f64 / outcome.seconds;
            let cpu_us = cpu / outcome.answered.max(1) as f64 * 1e6;
            saturated.push((cpu_us, qps, outcome.lost()));
            let pace = Pace::Rate(qps / 2.0);
            let outcome = self.load(server, pace, seconds / 2.0).run(&self.queries)?;
            half.push((
                outcome.latency.percentile(0.5),
                outcome.latency.percentile(0.99),
                outcome.lost(),
            ));
        }
        let alone = Load {
            clients: 1,
            ..self.load(server, Pace::Window(1), 1.0)
        };
        let alone = alone.run(&self.queries)?.latency.percentile(0.5);
        saturated.sort_by(|a, b| a.0.total_cmp(&b.0));
        half.sort();
        let (cpu_us, qps, lost_saturated) = saturated[saturated.len() / 2];
        let (p50, p99, lost_half) = half[half.len() / 2];
        rows.push(Row {
            workload: self.name,
            server: name,
            cpu_us,
            qps,
            p50,
            p99,
            alone,
            lost: lost_saturated + lost_half,
            idle_mib,
            memory_mib: report::memory_mib(server.pid()),
        });
        Ok(())
    }
}

/// A query of type A for each of so many names of the lab.
fn names_asked(names: usize) -> Ready {
    load::queries((0..names).map(|i| format!("h{i}.example.org")))
}

impl Server {
    /// Where it listens.
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Waits until it answers.
    fn wait(&self) -> io::Result<()> {
        let queries = names_asked(2);
        let until = Instant::now() + Duration::from_secs(60);
        let load = Load {
            clients: 1,
            ..Load::new(self.address(), Pace::Window(1), Duration::from_millis(20))
        };
        while Instant::now() < until {
            // A server that is not there yet refuses.
            if load
                .run(&queries)
                .is_ok_and(|outcome| outcome.answered > outcome.failed)
            {
                return Ok(());
            }
        }
        Err(io::Error::other(format!(
            "port {} does not answer",
            self.port
        )))
    }
}

/// Prints a figure as soon as it is there.
fn said(figure: Figure) -> Figure {
    println!("{figure}");
    figure
}
