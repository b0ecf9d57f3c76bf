//! bufsize: the largest UDP response that is offered and asked for.

use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::options::{Arg, Checked, Kind};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::Opcode;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "bufsize",
    aliases: &[],
    summary: "lowers the size of UDP messages, towards clients and upstreams",
    arguments: &[Arg::optional(
        "SIZE",
        Kind::Integer {
            min: 512,
            max: 4096,
        },
    )],
    options: &[],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

/// Octets: passes unfragmented almost everywhere (DNS flag day 2020).
const DEFAULT: u16 = 1232;

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let size = directives
        .iter()
        .filter_map(|line| line.arg("SIZE"))
        .map(|size| size.integer() as u16)
        .min();
    server.chain(Bufsize {
        octets: size.unwrap_or(DEFAULT),
    });
    Ok(())
}

struct Bufsize {
    octets: u16,
}

impl Handler for Bufsize {
    fn serve<'c>(&'c self, mut query: Query, next: Next<'c>) -> Served<'c> {
        query.limit_reply_size(self.octets);
        next.serve(query)
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}
