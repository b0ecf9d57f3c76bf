//! etcd: names live from etcd.

mod api;
mod client;
mod gateway;
mod tls;

pub use api::*;
pub use client::*;
