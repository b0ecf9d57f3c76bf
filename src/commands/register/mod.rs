//! `skeindns register`: the agent that a machine runs, so that its name and addresses are in etcd as long as it lives.
//!
//! ```text
//!   flags, variables, file ─config─┐
//!   kernel ─netlink─ addresses ────┴─ records ──┐
//!                                               ├─ plan ─ changes ─▶ store ─▶ etcd
//!   etcd ─▶ store ─ entries ────────────────────┘
//! ```
//! `agent.rs` goes round and round; everything between is arithmetic without a network. It knows nothing of serving.

mod settings;

mod config;

mod addresses;
mod netlink;

mod records;

mod plan;

mod store;

mod agent;
mod ears;
mod status;

use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::{Builder, LocalOptions};

pub(crate) use settings::Register;

use config::{Config, Surroundings};

/// Why the agent ends, other than by being told to.
enum Ending {
    Usage(String),
    Failed(String),
    Etcd(String),
    Conflict(String),
    /// etcd was not there in the time that `--wait` gives.
    TooLate(String),
}

/// Runs the command.
pub(crate) fn register(flags: Register, dnsfile: Option<&Path>) -> ExitCode {
    if dnsfile.is_some() {
        eprintln!(
            "skeindns register: --conf names a Dnsfile, which the agent does not read; write --config FILE"
        );
        return ExitCode::from(2);
    }
    let config = match Config::read(&flags, &Surroundings::of_process()) {
        Ok(config) => config,
        Err(errors) => {
            for error in errors {
                eprintln!("skeindns register: {error}");
            }
            return ExitCode::from(2);
        }
    };
    let ended = match config.print {
        true => agent::print(&config),
        false => {
            crate::logging::start(crate::logging::Style::CoreDns);
            crate::logging::report_panics();
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(agent::run(flags, config)),
                Err(error) => Err(Ending::Failed(format!("cannot start: {error}"))),
            }
        }
    };
    let (code, what) = match ended {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Ending::Failed(what)) => (1, what),
        Err(Ending::Usage(what)) => (2, what),
        Err(Ending::Etcd(what)) => (3, what),
        Err(Ending::Conflict(what)) => (4, what),
        Err(Ending::TooLate(what)) => (75, what),
    };
    eprintln!("skeindns register: {what}");
    ExitCode::from(code)
}
