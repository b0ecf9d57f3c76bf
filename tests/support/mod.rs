//! What the tests with real servers share: processes that end with the test, etcd, NSD, our own binary, and a client.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test target takes what it needs"
)]

mod client;
mod etcd;
mod nsd;
mod process;
mod skeindns;

pub(crate) use client::{addresses, ask, ask_tcp, http, query, read_frame, send_frame, with_edns};
pub(crate) use etcd::Cluster;
pub(crate) use nsd::{nsd, zone};
pub(crate) use process::{Lines, PATIENCE, Process, free_port, until};
pub(crate) use skeindns::{Skeindns, binary};
