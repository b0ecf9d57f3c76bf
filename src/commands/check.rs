//! `skeindns check`: everything that is wrong with a Dnsfile, or how its chains will run.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use skein_plugins::kit::errors;
use skein_plugins::kit::plugin::Plugin;
use skein_plugins::kit::setup::Services;

use crate::program::{self, Loaded, Source};

/// Parses and builds, starts nothing.
pub(crate) fn check(
    table: &'static [&'static Plugin],
    source: &Source,
    services: &Services,
) -> ExitCode {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match program::load(source, table, services) {
        Err(refused) => {
            let text = refused.render(colour);
            std::io::stderr().write_all(text.as_bytes()).ok();
            ExitCode::FAILURE
        }
        Ok(loaded) => {
            for warning in &loaded.program.warnings {
                let text = errors::render_warning(warning, &loaded.dnsfile.sources, colour);
                std::io::stderr().write_all(text.as_bytes()).ok();
            }
            crate::logging::print(describe(&loaded, &source.name()).as_bytes());
            ExitCode::SUCCESS
        }
    }
}

/// Each server block with its chain.
fn describe(loaded: &Loaded, name: &str) -> String {
    let blocks = loaded.dnsfile.blocks.iter();
    let blocks: Vec<_> = blocks.filter(|block| !block.keys.is_empty()).collect();
    let mut text = String::new();
    for (block, chain) in blocks.iter().zip(loaded.program.server.chains()) {
        let keys: Vec<&str> = block.keys.iter().map(|key| key.text.as_str()).collect();
        let chain = match chain.is_empty() {
            true => "no plugin answers, every query is refused".to_owned(),
            false => chain.join(" -> "),
        };
        // Writing into a String cannot fail.
        writeln!(text, "{}: {chain}", keys.join(" ")).ok();
    }
    let count = loaded.program.warnings.len();
    let warnings = match count {
        0 => "no warnings".to_owned(),
        1 => "1 warning".to_owned(),
        _ => format!("{count} warnings"),
    };
    writeln!(text, "{name}: no errors, {warnings}").ok();
    text
}
