//! The plugins of SkeinDNS, and the kit they are written with.
//!
//! [`PLUGINS`] is the one ordered table: it is the registry, the order of every chain, the manual that
//! `skeindns plugins` prints, and what the tests over the table iterate. Adding a plugin is a folder and two lines here:
//! its `mod` and its row.

#![forbid(unsafe_code)]

pub mod kit;

mod acl;
mod any;
mod bind;
mod bufsize;
mod cache;
mod chaos;
mod debug;
mod errors;
#[cfg(feature = "etcd")]
pub mod etcd;
mod file;
mod forward;
mod header;
mod health;
mod hosts;
mod loadbalance;
mod local;
mod log;
mod r#loop;
mod metrics;
mod minimal;
mod nsid;
mod ready;
mod reload;
mod root;
mod whoami;

use kit::plugin::Plugin;

/// Every plugin, outermost first. Order is meaning: each line says why it stands where it stands.
pub static PLUGINS: &[&Plugin] = &[
    &root::PLUGIN,        // before everything that reads a file
    &reload::PLUGIN,      // no part of the chain
    &bind::PLUGIN,        // before every handler: they know their listeners from their setup on
    &nsid::PLUGIN,        // the client's own business, whatever comes below
    &bufsize::PLUGIN,     // limits what everyone below may send and ask for
    &debug::PLUGIN,       // before everything that may want to log
    &ready::PLUGIN,       // no part of the chain
    &health::PLUGIN,      // no part of the chain
    &metrics::PLUGIN,     // counts refusals and failures as well as answers
    &errors::PLUGIN,      // inside metrics, so that a failure is counted before it is reported
    &log::PLUGIN,         // sees the answer as the client will, cached or not
    &local::PLUGIN,       // names that nobody else can know
    &any::PLUGIN,         // before anything could answer ANY at length
    &chaos::PLUGIN,       // about this server, whatever it serves
    &loadbalance::PLUGIN, // before cache: every answer gets an order of its own, kept or not
    &acl::PLUGIN,         // before cache: an answer that is kept is not for everyone
    &cache::PLUGIN,       // before anything that fetches; after anything that judges the client
    &header::PLUGIN,      // inside cache, which keeps what it makes of an answer
    &minimal::PLUGIN,     // inside cache, which keeps less that way
    &hosts::PLUGIN,       // data of our own, the nearest first
    &file::PLUGIN, // zones of our own: behind cache, which serves them no slower, before what others are asked for
    #[cfg(feature = "etcd")]
    &etcd::PLUGIN, // data of our own before what others are asked for
    &r#loop::PLUGIN, // in front of what it watches
    &forward::PLUGIN, // the rest of the world
    &whoami::PLUGIN, // when nobody else cares
];
