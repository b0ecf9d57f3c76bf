//! The real binary: sockets, signals, reload, drain, and clients that mean no good.
//!
//! Ports are chosen by the system and read from the start-up lines; nothing sleeps to wait for something, and nothing is expected to be fast.

mod client;
mod hostile;
mod life;
mod server;
mod tcp;
