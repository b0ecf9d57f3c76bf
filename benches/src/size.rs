//! What is measured of ours alone: two workers, a flood of random names, an etcd with many keys.

use std::io;
use std::time::{Duration, Instant};

use crate::load::{Load, Outcome, Pace, Random};
use crate::report::{self, Figure};
use crate::servers::{Lab, Place, Server, Workload};
use crate::store;
use crate::{Args, WINDOW, names_asked, said};

/// Budget of the cache that is flooded; its default.
const FLOOD_BUDGET_MIB: f64 = 256.0;
/// Parts of the flood.
const FLOOD_PARTS: u64 = 10;
/// Changes that are followed.
const CHANGES: usize = 500;

/// CPU per query with one worker and with two, both on both cores, which they share with the generator.
pub(crate) fn workers(args: &Args, lab: &Lab) -> io::Result<Vec<Figure>> {
    let program = ours(args)?;
    let mut figures = Vec::new();
    // Everybody may run anywhere.
    report::pin("0,1")?;
    for workload in [Workload::Cache, Workload::Full, Workload::Etcd] {
        let backend = match workload.wants_etcd() {
            true => lab.etcd()?,
            false => lab.upstream()?,
        };
        let queries = names_asked(lab.names());
        let mut costs = Vec::new();
        for workers in [1, 2] {
            let place = Place {
                cores: "0,1",
                workers,
            };
            let server = lab.server(&program, "skeindns", workload, backend.port, place)?;
            server.wait()?;
            if workload == Workload::Full && workers == 2 {
                let idle = report::memory_mib(server.pid());
                figures.push(said(Figure::new("idle memory, two workers", idle, "MiB")));
            }
            let load = Load::new(
                server.address(),
                Pace::Window(WINDOW),
                Duration::from_secs(args.seconds),
            );
            load.run(&queries)?;
            let mut runs = Vec::new();
            for _ in 0..args.runs.max(1) {
                let before = report::cpu_seconds(server.pid());
                let outcome = load.run(&queries)?;
                let cpu = report::cpu_seconds(server.pid()) - before;
                runs.push(cpu / outcome.answered.max(1) as f64 * 1e6);
            }
            costs.push(report::median(runs));
        }
        let name = workload.name();
        for (workers, cost) in ["one worker", "two workers"].iter().zip(&costs) {
            let what = format!("{name}, {workers}, both cores shared with the generator");
            figures.push(said(Figure::new(what, *cost, "us CPU/query")));
        }
        let what = format!("{name}: two workers to one");
        figures.push(said(Figure::new(what, costs[1] / costs[0], "")));
    }
    report::pin("1")?;
    Ok(figures)
}

/// Names that nobody asked before, at full rate, through a cache; now and then names that are in it.
pub(crate) fn flood(args: &Args, lab: &Lab) -> io::Result<Vec<Figure>> {
    let program = ours(args)?;
    let backend = lab.upstream()?;
    backend.wait()?;
    let server = lab.server(
        &program,
        "skeindns",
        Workload::Cache,
        backend.port,
        Place::ALONE,
    )?;
    server.wait()?;
    let queries = names_asked(lab.names());
    let hits = || {
        let load = Load {
            queries_max: 100_000,
            ..Load::new(
                server.address(),
                Pace::Rate(20_000.0),
                Duration::from_secs(10),
            )
        };
        load.run(&queries)
    };
    hits()?;
    let before = hits()?;
    // In parts, so that hits can be asked in between: beside the flood they would wait in its queue, as everything does.
    let mut flooded = Outcome::default();
    let (mut between, mut peak) = (Duration::ZERO, 0.0);
    for part in 0..FLOOD_PARTS {
        let load = Load {
            queries_max: args.flood / FLOOD_PARTS,
            ..Load::new(
                server.address(),
                Pace::Window(WINDOW),
                Duration::from_secs(3600),
            )
        };
        let outcome = load.run(&Random(part))?;
        flooded.sent += outcome.sent;
        flooded.answered += outcome.answered;
        flooded.seconds += outcome.seconds;
        peak = report::memory_mib(server.pid()).max(peak);
        between = hits()?.latency.percentile(0.5).max(between);
    }
    let lost = flooded.sent.saturating_sub(flooded.answered);
    let millions = flooded.answered as f64 / 1e6;
    Ok(vec![
        said(Figure::new(
            "flood of names that nobody asked before",
            millions,
            "million",
        )),
        said(Figure::new(
            "flood: rate",
            flooded.answered as f64 / flooded.seconds,
            "queries/s",
        )),
        said(Figure::new(
            "flood: without an answer",
            lost as f64,
            "queries",
        )),
        said(Figure::new(
            "flood: resident memory to the cache's budget",
            peak / FLOOD_BUDGET_MIB,
            "",
        )),
        said(Figure::micros(
            "hits before the flood, p50",
            before.latency.percentile(0.5),
        )),
        said(Figure::micros(
            "hits between its parts, the worst p50",
            between,
        )),
    ])
}

/// Many keys: how long until the first answer, how much memory, how long until a change is answered.
pub(crate) fn etcd(args: &Args, lab: &Lab) -> io::Result<Vec<Figure>> {
    let program = ours(args)?;
    let etcd = lab.etcd()?;
    let start = Instant::now();
    let server = lab.server(
        &program,
        "skeindns",
        Workload::Etcd,
        etcd.port,
        Place::ALONE,
    )?;
    wait_long(&server, start)?;
    let first = start.elapsed().as_secs_f64();
    let memory = report::memory_mib(server.pid());
    let url = format!("http://127.0.0.1:{}", etcd.port);
    let queries = names_asked(1);
    let mut took = store::follow(&url, CHANGES, |octet| server.answers_with(&queries, octet))?;
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let names = lab.names();
    Ok(vec![
        said(Figure::new(
            format!("etcd, {names} keys: first answer after the start"),
            first,
            "s",
        )),
        said(Figure::new(
            format!("etcd, {names} keys: memory of the whole process"),
            memory * 1048576.0 / names as f64,
            "octets/record",
        )),
        said(Figure::micros(
            format!("etcd, {names} keys: put to answer, p50"),
            at(0.5),
        )),
        said(Figure::micros(
            format!("etcd, {names} keys: put to answer, p99"),
            at(0.99),
        )),
    ])
}

fn ours(args: &Args) -> io::Result<std::path::PathBuf> {
    args.program("skeindns")
        .ok_or_else(|| io::Error::other(format!("{} is not there", args.skeindns.display())))
}

fn wait_long(server: &Server, start: Instant) -> io::Result<()> {
    loop {
        match server.wait() {
            Err(error) if start.elapsed() > Duration::from_secs(600) => return Err(error),
            Err(_) => {}
            Ok(()) => return Ok(()),
        }
    }
}
