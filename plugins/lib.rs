//! The plugins of SkeinDNS, and the kit they are written with.

#![forbid(unsafe_code)]

pub mod kit;
