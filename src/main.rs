//! SkeinDNS.
fn main() {}
