//! SkeinDNS with the plugins of this repository.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    skeindns::run(skein_plugins::PLUGINS)
}
