//! nsid: tells which server answered (RFC 5001), to clients that ask.

use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::options::{Arg, Checked, Kind};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::Response;
use crate::kit::setup::{ServerSetup, host_name};
use crate::kit::wire::Opcode;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "nsid",
    aliases: &[],
    summary: "adds a name server identifier to responses, for clients that ask for it",
    arguments: &[Arg::any("DATA", Kind::Text)],
    options: &[],
    free_block: false,
    repeat: Repeat::Once,
    setup,
};

/// The option's code (RFC 5001 §2.3).
const NSID: u16 = 3;

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let words: Vec<&str> = directives
        .iter()
        .flat_map(|line| line.args("DATA").map(|word| word.text()))
        .collect();
    let data = if words.is_empty() {
        host_name()
    } else {
        words.join(" ")
    };
    server.chain(Nsid {
        data: data.into_bytes().into(),
    });
    Ok(())
}

struct Nsid {
    data: Box<[u8]>,
}

impl Handler for Nsid {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        if query.edns().is_some() && query.option(NSID).is_some() {
            next.serve(query).then(self)
        } else {
            next.serve(query)
        }
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}

impl Edit for Nsid {
    fn edit(&self, mut response: Response) -> Response {
        response.remove_option(NSID);
        response.add_option(NSID, &self.data);
        response
    }
}
