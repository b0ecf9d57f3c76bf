//! What the binary does beside serving. These may know plugins by name; the engine beside them may not.

mod check;
mod cluster;
mod doctor;
mod etcd_lines;
mod migrate;
mod plugins;
mod register;
mod service;
mod skydns;
mod verify;

pub(crate) use check::check;
pub(crate) use doctor::{Doctor, doctor};
pub(crate) use migrate::{Migrate, migrate};
pub(crate) use plugins::{names, plugins};
pub(crate) use register::{Register, register};
pub(crate) use service::{Service, service};
pub(crate) use skydns::{skydns, skydns_arguments};
pub(crate) use verify::{Verify, verify};

/// Two lines, as CoreDNS prints them: name and version, then system, compiler and commit.
pub(crate) fn version() -> String {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "SkeinDNS-{}\n{}/{machine}, {}, {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        env!("SKEINDNS_RUSTC"),
        env!("SKEINDNS_COMMIT"),
    )
}
