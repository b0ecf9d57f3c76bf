//! The test kit: `ask`, conversations, scripted upstreams.

pub mod upstream;

pub use upstream::ScriptedUpstream;
