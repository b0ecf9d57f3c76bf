//! header: sets and clears flags of queries and responses.

use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::options::{Arg, Checked, Kind, Opt, Property};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::{Query, flags};
use crate::kit::response::Response;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::Opcode;

const RULE: &[Arg] = &[
    Arg::one("ACTION", Kind::Choice(&["set", "clear"])),
    Arg::some("FLAG", Kind::Choice(&["aa", "ra", "rd"])),
];

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "header",
    aliases: &[],
    summary: "sets and clears flags of queries and responses",
    arguments: &[],
    options: &[
        Opt::new(
            "query",
            RULE,
            "none",
            "changes flags of queries, for the plugins behind",
        )
        .adds(),
        Opt::new(
            "response",
            RULE,
            "none",
            "changes flags of responses; `rd` stays the client's",
        )
        .adds(),
    ],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let mut errors = SetupErrors::default();
    let mut header = Header::default();
    for directive in directives {
        if directive.properties.is_empty() {
            let what = "it has no rules; write `response set ra`, say, in its block";
            errors.0.push(SetupError::at(directive.span(), what));
        }
        for (name, rule) in &directive.properties {
            match *name {
                "query" => header.query.add(rule),
                _ => {
                    // RFC 1035 §4.1.1: RD is copied from the query.
                    if let Some(rd) = rule.args("FLAG").find(|flag| flag.text() == "rd") {
                        let what = "`rd` of a response stays the client's: it has no effect here";
                        server.warn(rd.span(), what);
                    }
                    header.response.add(rule);
                }
            }
        }
    }
    server.chain(errors.or(header)?);
    Ok(())
}

/// Flags to set and to clear.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Change {
    set: u16,
    clear: u16,
}

impl Change {
    /// Rules work one after the other: the last word about a flag counts.
    fn add(&mut self, rule: &Property) {
        let sets = rule.arg("ACTION").is_none_or(|word| word.text() == "set");
        for flag in rule.args("FLAG") {
            let bit = match flag.text() {
                "aa" => flags::AA,
                "ra" => flags::RA,
                _ => flags::RD,
            };
            self.set &= !bit;
            self.clear &= !bit;
            match sets {
                true => self.set |= bit,
                false => self.clear |= bit,
            }
        }
    }

    fn is_none(&self) -> bool {
        *self == Change::default()
    }
}

/// All rules of a server block.
#[derive(Default)]
struct Header {
    query: Change,
    response: Change,
}

impl Handler for Header {
    fn serve<'c>(&'c self, mut query: Query, next: Next<'c>) -> Served<'c> {
        if !self.query.is_none() {
            query.set_flags(self.query.set, self.query.clear);
        }
        if self.response.is_none() {
            return next.serve(query);
        }
        next.serve(query).then(self)
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}

impl Edit for Header {
    fn edit(&self, mut response: Response) -> Response {
        response.set_flags(self.response.set, self.response.clear);
        response
    }
}
