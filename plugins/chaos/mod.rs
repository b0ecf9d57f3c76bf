//! chaos: what this server is, for those who ask in class CH (RFC 4892).

use rand::RngExt as _;

use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::options::{Arg, Checked, Kind};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::{Owner, Response, Source};
use crate::kit::setup::{ServerSetup, host_name};
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Class, Rtype, Section};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "chaos",
    aliases: &[],
    summary: "tells version, authors and host name to those who ask in class CH",
    arguments: &[
        Arg::optional("VERSION", Kind::Text),
        Arg::any("AUTHORS", Kind::Text),
    ],
    options: &[],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

const VERSION: &str = concat!("SkeinDNS-", env!("CARGO_PKG_VERSION"));
const AUTHORS: &str = "The SkeinDNS authors";
/// Octets of a character string (RFC 1035 §3.3).
const STRING_OCTETS_MAX: usize = 255;

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    // As in CoreDNS the last one counts.
    let Some(directive) = directives.last() else {
        return Ok(());
    };
    let version = directive.arg("VERSION");
    let mut authors: Vec<Box<[u8]>> = directive
        .args("AUTHORS")
        .map(|author| cut(author.text()))
        .collect();
    if authors.is_empty() {
        authors.push(cut(AUTHORS));
    }
    server.accept_all_classes();
    server.chain(Chaos {
        version: cut(version.map_or(VERSION, |version| version.text())),
        authors,
        host_name: cut(&host_name()),
    });
    Ok(())
}

fn cut(text: &str) -> Box<[u8]> {
    let octets = text.as_bytes();
    octets[..octets.len().min(STRING_OCTETS_MAX)].into()
}

struct Chaos {
    version: Box<[u8]>,
    authors: Vec<Box<[u8]>>,
    host_name: Box<[u8]>,
}

impl Handler for Chaos {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        if query.qclass() != Class::CH || query.qtype() != Rtype::TXT {
            return next.serve(query);
        }
        let text = match query.qname() {
            b"\x07version\x04bind\0" | b"\x07version\x06server\0" => &self.version,
            b"\x08hostname\x04bind\0" | b"\x02id\x06server\0" => &self.host_name,
            b"\x07authors\x04bind\0" => return Served::Now(self.authors(query)),
            _ => return next.serve(query),
        };
        Served::Now(texts(query, [text].into_iter()))
    }
}

impl Chaos {
    /// All of them, somebody else first each time.
    fn authors(&self, query: Query) -> Response {
        let first = rand::rng().random_range(0..self.authors.len().max(1));
        let (before, behind) = self.authors.split_at(first);
        texts(query, behind.iter().chain(before))
    }
}

fn texts<'t>(query: Query, texts: impl Iterator<Item = &'t Box<[u8]>>) -> Response {
    let mut answer = query.answer().source(Source::Synthesized);
    for text in texts {
        answer = answer.record(
            Section::Answer,
            Owner::Question,
            Rtype::TXT,
            0,
            Rdata::Txt(text),
        );
    }
    answer.done()
}
