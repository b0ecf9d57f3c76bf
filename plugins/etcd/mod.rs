//! etcd: names live from etcd.

mod api;
mod client;
mod gateway;
mod store;
mod tls;

pub use api::*;
pub use client::*;
