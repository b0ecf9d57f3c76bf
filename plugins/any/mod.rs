//! any: a short answer to ANY, which is mostly asked to make others send long ones (RFC 8482).

use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::options::Checked;
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::{Owner, Source};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Rtype, Section};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "any",
    aliases: &[],
    summary: "answers ANY queries with one small record",
    arguments: &[],
    options: &[],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(_: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    server.chain(Any);
    Ok(())
}

/// CPU and OS of the HINFO record: what CoreDNS says.
const HINFO: &[u8] = b"\x0dANY obsoleted\x0cSee RFC 8482";
const TTL: u32 = 8482;

struct Any;

impl Handler for Any {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        if query.qtype() != Rtype::ANY {
            return next.serve(query);
        }
        // RFC 8482 §4.2: a synthesized HINFO record.
        let answer = query.answer().source(Source::Synthesized).record(
            Section::Answer,
            Owner::Question,
            Rtype::HINFO,
            TTL,
            Rdata::Raw(HINFO),
        );
        Served::Now(answer.done())
    }
}
