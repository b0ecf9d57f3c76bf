//! `skeindns skydns`: serves what SkyDNS served, from its flags, its variables and its object in etcd.
//!
//! ```text
//!   variables ─▶ flags (sources.rs) ─▶ object in etcd (object.rs) ─▶ Settings ─▶ Dnsfile (dnsfile.rs) ─▶ the engine
//!                                            ▲                                        ▲
//!                                            └── live.rs follows the key: a change is a reload
//! ```
//! Nothing of the engine knows of this: what runs is an ordinary Dnsfile, which `-print-dnsfile` prints.

mod dnsfile;
mod live;
mod object;
mod settings;
mod sources;
mod store;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use skein_plugins::kit::plugin::Plugin;
use tokio::sync::mpsc;

use crate::logging::{self, Style};
use crate::program::{Source, Written};
use crate::signals::{Announce, Commanded};

use dnsfile::Surroundings;
use live::Live;
use settings::Settings;
use sources::Wishes;
use store::Store;

/// The version of SkyDNS whose answers these are.
const SKYDNS_VERSION: &str = "2.5.3a";

/// What an object in etcd says, for those who look at it without serving.
pub(crate) struct Examined {
    pub(crate) dns_addr: SocketAddr,
    pub(crate) domain: String,
    pub(crate) hostmaster: Option<String>,
    pub(crate) nameservers: Vec<SocketAddr>,
    /// What the operator should know.
    pub(crate) remarks: Vec<String>,
}

/// Reads an object, or says everything that is wrong with it. `key` is what errors call it.
pub(crate) fn examine(key: &str, octets: &[u8]) -> Result<Examined, Vec<String>> {
    let object::Read { settings, remarks } = object::read(key, octets, &Settings::default())?;
    Ok(Examined {
        dns_addr: settings.dns_addr,
        domain: settings.domain,
        hostmaster: settings.hostmaster,
        nameservers: settings.nameservers,
        remarks,
    })
}

/// The arguments behind `skydns`, if this process is asked to be one: by that word, or by the name it was called by.
pub(crate) fn skydns_arguments() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os();
    let called = std::path::PathBuf::from(arguments.next().unwrap_or_default());
    if called.file_name().is_some_and(|name| name == "skydns") {
        return Some(arguments.collect());
    }
    let rest: Vec<OsString> = arguments.collect();
    match rest.split_first() {
        Some((word, flags)) if word == "skydns" => Some(flags.to_vec()),
        _ => None,
    }
}

/// Runs it.
pub(crate) fn skydns(table: &'static [&'static Plugin], arguments: Vec<OsString>) -> ExitCode {
    logging::start(Style::SkyDns);
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let variable = |name: &str| {
        let value = std::env::var_os(name)?;
        Some(value.to_string_lossy().into_owned())
    };
    let (base, wishes) = match sources::read(&arguments, variable) {
        Ok(read) => read,
        Err(errors) => {
            for error in errors {
                tracing::error!("{error}");
            }
            return ExitCode::FAILURE;
        }
    };
    match wishes {
        Wishes { help: true, .. } => {
            logging::print(sources::usage().as_bytes());
            ExitCode::SUCCESS
        }
        Wishes { version: true, .. } => {
            let ours = env!("CARGO_PKG_VERSION");
            let text =
                format!("skydns server version: {SKYDNS_VERSION}\nprovided by SkeinDNS-{ours}\n");
            logging::print(text.as_bytes());
            ExitCode::SUCCESS
        }
        wishes => start(table, base, wishes),
    }
}

fn start(table: &'static [&'static Plugin], base: Settings, wishes: Wishes) -> ExitCode {
    let around = Surroundings::find();
    if let Some(what) = unusable(&base, &around) {
        tracing::error!("-{what}");
        return ExitCode::FAILURE;
    }
    crate::choose_tls();
    let store = match Store::new(&base) {
        Ok(store) => store,
        Err(what) => {
            tracing::error!("etcd: {what}");
            return ExitCode::FAILURE;
        }
    };
    let (nudge, nudges) = mpsc::channel(1);
    let secret = base.password.value.as_deref();
    let secret = secret.map(|value| (dnsfile::PASSWORD, Arc::from(value)));
    let written = Written::new("skydns", String::new(), secret);
    let mut live = Live::new(base, around, store, written.clone(), nudge);
    if let Err(error) = live.begin() {
        tracing::error!("cannot start: {error}");
        return ExitCode::FAILURE;
    }
    if wishes.print_dnsfile {
        logging::print(written.text().as_bytes());
        return ExitCode::SUCCESS;
    }
    let announce = Announce {
        quiet: true,
        pidfile: None,
        command: Some(Commanded {
            nudges,
            told: live.teller(),
        }),
    };
    let services = crate::services(workers(), 53, false);
    let source = Source::Written(written);
    crate::serve(
        table,
        source,
        services,
        announce,
        Some(Box::pin(live.follow())),
    )
}

/// What settings ask for and cannot have here, each by the name that flag and field share.
fn unusable(settings: &Settings, around: &Surroundings) -> Option<&'static str> {
    if settings.dnssec.is_some() {
        return Some(
            "dnssec: signing is not there yet; leave it out, the domain is answered unsigned then",
        );
    }
    if settings.systemd && around.sockets.is_empty() {
        return Some(
            "systemd: no UDP or TCP sockets supplied by systemd; write a .socket unit with ListenDatagram= and ListenStream=, or leave it out",
        );
    }
    None
}

/// As for the other ways to serve.
fn workers() -> Option<u8> {
    std::env::var("SKEINDNS_WORKERS").ok()?.parse().ok()
}
