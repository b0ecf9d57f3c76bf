//! The engine of SkeinDNS: it takes packets, finds the chain, sends answers.
//!
//! A Dnsfile is parsed and built into a program by the kit (`skein_plugins::kit`); here it is put to work. In the order in which a query
//! and a newcomer meet them:
//!
//! * `cli` reads the command line, `commands` do what is not serving, [`run`] is what `main` calls.
//! * `program` loads the Dnsfile: a program, or every error.
//! * `signals` is the control thread: start, reload, stop.
//! * `generation` is one program at work, and how the next one takes over without losing a query.
//! * `worker` is a thread with its sockets and its slots; `listen` has the two transports and the system calls.
//! * `admin` serves what plugins offer over HTTP; `process_metrics` and `logging` tell operators how it goes.
//! * `limits` has every limit with its reason; `system` the few calls into libc.
//!
//! The engine knows no plugin by name, and no plugin knows the engine: the arrow goes from here to `skein-plugins`. A binary with plugins of
//! its own calls [`run`] with a table of its own:
//!
//! ```no_run
//! # use std::process::ExitCode;
//! fn main() -> ExitCode {
//!     skeindns::run(skein_plugins::PLUGINS)
//! }
//! ```

#![deny(unsafe_code)]

mod cli;
mod commands;
mod program;

mod signals;

mod generation;
mod worker;

mod listen;

mod admin;
mod process_metrics;

mod logging;

mod limits;
mod system;

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use skein_plugins::kit::edge::Edge;
use skein_plugins::kit::metrics::Metrics;
use skein_plugins::kit::plugin::Plugin;
use skein_plugins::kit::setup::{Kept, Services};
use skein_plugins::kit::worker::WORKERS_MAX;
use tokio::runtime::{Builder, LocalOptions};

use cli::{Cli, Command};
use program::Source;

/// Reads the command line and does what it says with the plugins of this table: serves until a signal ends it, or runs a command.
pub fn run(table: &'static [&'static Plugin]) -> ExitCode {
    if let Some(arguments) = commands::skydns_arguments() {
        return commands::skydns(table, arguments);
    }
    let cli = Cli::read();
    if cli.version || matches!(cli.command, Some(Command::Version)) {
        logging::print(commands::version().as_bytes());
        return ExitCode::SUCCESS;
    }
    if cli.plugins {
        logging::print(commands::names(table).as_bytes());
        return ExitCode::SUCCESS;
    }
    if let Some(Command::Plugins) = cli.command {
        logging::print(commands::plugins(table).as_bytes());
        return ExitCode::SUCCESS;
    }
    choose_tls();
    match cli.command {
        Some(Command::Service(service)) => return commands::service(*service),
        Some(Command::Register(register)) => {
            return commands::register(*register, cli.conf.as_deref());
        }
        Some(Command::Verify(verify)) => {
            return commands::verify(&verify, cli.conf.as_deref(), cli.port);
        }
        Some(Command::Migrate(migrate)) => return commands::migrate(&migrate),
        Some(Command::Doctor(doctor)) => {
            return commands::doctor(&doctor, cli.conf.as_deref(), cli.port);
        }
        _ => {}
    }
    let source = match Source::find(cli.conf.as_deref()) {
        Ok(source) => source,
        Err(what) => return fail(&what),
    };
    let services = services(
        cli.workers,
        cli.port,
        matches!(cli.command, Some(Command::Check)),
    );
    if services.check_only {
        return commands::check(table, &source, &services);
    }
    logging::start(logging::Style::CoreDns);
    let announce = signals::Announce {
        quiet: cli.quiet,
        pidfile: cli.pidfile,
        command: None,
    };
    serve(table, source, services, announce, None)
}

/// One TLS library, chosen before anybody makes a client; a program that embeds us may have chosen already.
fn choose_tls() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
}

/// What a program is built with.
fn services(workers_wanted: Option<u8>, default_port: u16, check_only: bool) -> Services {
    let workers = workers(workers_wanted);
    Services {
        metrics: Metrics::new(workers),
        kept: Kept::default(),
        workers,
        default_port,
        check_only,
        doubles: Vec::new(),
    }
}

/// A task that runs beside the server on the control thread.
type Beside = Pin<Box<dyn Future<Output = ()>>>;

fn serve(
    table: &'static [&'static Plugin],
    source: Source,
    services: Services,
    announce: signals::Announce,
    beside: Option<Beside>,
) -> ExitCode {
    logging::report_panics();
    let _readings = process_metrics::register(&services.metrics);
    let edge = Edge::new(&services.metrics);
    let connections =
        listen::tcp::connections_max(system::raise_descriptor_limit()) / services.workers;
    let shared = worker::Shared::new(&services.metrics, Arc::clone(&edge), connections.max(1));
    let started: std::io::Result<Vec<worker::Handle>> = (0..services.workers)
        .map(|number| worker::start(number, shared.clone()))
        .collect();
    let handles = match started {
        Ok(handles) => handles,
        Err(error) => return fail(&format!("cannot start a thread: {error}")),
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let engine = generation::Engine::new(table, source, services, handles);
    runtime.block_on(async move {
        if let Some(task) = beside {
            tokio::task::spawn_local(task);
        }
        signals::run(engine, announce).await
    })
}

/// One per processor that we may use: affinity and control groups are respected.
fn workers(wanted: Option<u8>) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    wanted
        .map_or_else(processors, usize::from)
        .min(WORKERS_MAX - 1)
}

fn fail(what: &str) -> ExitCode {
    use std::io::Write;
    writeln!(std::io::stderr(), "{what}").ok();
    ExitCode::FAILURE
}
