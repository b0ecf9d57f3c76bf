//! A server with a plugin of its own: the whole table of SkeinDNS with one line more, in a crate that SkeinDNS knows nothing about.
//!
//! `cargo run --example own_plugin -- --conf Dnsfile`, where the Dnsfile may now say `refuse-any`.

use std::process::ExitCode;
use std::sync::LazyLock;

use skein_plugins::kit::errors::SetupErrors;
use skein_plugins::kit::handler::{Handler, Next, Served};
use skein_plugins::kit::options::Checked;
use skein_plugins::kit::plugin::{Plugin, Repeat};
use skein_plugins::kit::query::Query;
use skein_plugins::kit::response::Owner;
use skein_plugins::kit::setup::ServerSetup;
use skein_plugins::kit::wire::writer::Rdata;
use skein_plugins::kit::wire::{Rtype, Section};

/// The plugin's row.
static REFUSE_ANY: Plugin = Plugin {
    name: "refuse-any",
    aliases: &[],
    summary: "answers ANY queries with one small record",
    arguments: &[],
    options: &[],
    free_block: false,
    repeat: Repeat::Once,
    setup,
};

/// SkeinDNS's table, and before everything that looks for an answer our own line.
static TABLE: LazyLock<Vec<&'static Plugin>> = LazyLock::new(|| {
    let mut table = skein_plugins::PLUGINS.to_vec();
    let before = table.iter().position(|plugin| plugin.name == "loadbalance");
    table.insert(before.unwrap_or(table.len()), &REFUSE_ANY);
    table
});

fn setup(_: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    server.chain(RefuseAny);
    Ok(())
}

struct RefuseAny;

impl Handler for RefuseAny {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        if query.qtype() != Rtype::ANY {
            return next.serve(query);
        }
        // RFC 8482 §4.2: a synthesized HINFO.
        let hinfo = Rdata::Raw(b"\x07RFC8482\x00");
        let answer =
            query
                .answer()
                .record(Section::Answer, Owner::Question, Rtype::HINFO, 3600, hinfo);
        Served::Now(answer.done())
    }
}

fn main() -> ExitCode {
    skeindns::run(&TABLE)
}
