//! The kit: what a plugin is written with.

pub mod authority;
pub mod clock;
pub mod dnsfile;
pub mod edge;
pub mod errors;
pub mod fallthrough;
pub mod handler;
pub mod live;
pub mod lookup;
pub mod metrics;
pub mod options;
pub mod plugin;
pub mod program;
pub mod query;
pub mod query_log;
pub mod response;
pub mod routing;
pub mod setup;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wire;
pub mod worker;
pub mod zones;
