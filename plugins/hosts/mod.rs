//! hosts: names and addresses from a file like /etc/hosts, and from lines of the Dnsfile.
//!
//! `file.rs` reads, `table.rs` holds a million lines in little memory, `source.rs` notices that the file has changed.

mod file;
mod reverse;
mod source;
mod table;

use std::sync::Arc;
use std::time::Duration;

use crate::kit::errors::{SetupError, SetupErrors, nearest};
use crate::kit::fallthrough::{self, Fallthrough};
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::options::{Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::{Owner, Response};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Class, Rcode, Rtype, Section};
use crate::kit::zones::ZoneSet;

use file::Wanted;
use source::Source;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "hosts",
    aliases: &[],
    summary: "answers from a file like /etc/hosts",
    arguments: &[
        Arg::optional("FILE", Kind::Path),
        Arg::any("ZONES", Kind::Zone),
    ],
    options: &[
        Opt::new(
            "ttl",
            &[Arg::one(
                "SECONDS",
                Kind::Integer {
                    min: 1,
                    max: 65_535,
                },
            )],
            "3600",
            "TTL of the answers",
        ),
        Opt::new(
            "no_reverse",
            &[],
            "off",
            "answer no PTR queries; a large list takes a fifth less memory",
        ),
        Opt::new(
            "reload",
            &[Arg::one(
                "DURATION",
                Kind::Duration {
                    min: Duration::ZERO,
                    max: Duration::from_secs(366 * 24 * 3600),
                },
            )],
            "5s",
            "how often FILE is looked at for changes, 0 for never",
        ),
        fallthrough::OPTION,
        Opt::new(
            FALLTHROUGH_UNSUPPORTED,
            &[],
            "off",
            "pass queries for other types than A, AAAA and PTR on to the next plugin, for names that exist as well; needs `fallthrough`",
        ),
    ],
    // Lines that are no option are entries.
    free_block: true,
    repeat: Repeat::Once,
    setup,
};

const FALLTHROUGH_UNSUPPORTED: &str = "fallthrough_unsupported";
const DEFAULT_FILE: &str = "/etc/hosts";
const DEFAULT_TTL: u32 = 3600;
const DEFAULT_RELOAD: Duration = Duration::from_secs(5);

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let Some(directive) = directives.first() else {
        return Ok(());
    };
    if let Some(unsupported) = directive.option(FALLTHROUGH_UNSUPPORTED)
        && !directive.has("fallthrough")
    {
        let what = "fallthrough_unsupported requires `fallthrough`: write that too";
        return Err(SetupError::at(unsupported.span(), what).into());
    }
    let mut zones = directive.args("ZONES").peekable();
    let zones = match zones.peek() {
        None => server.zones().clone(),
        Some(_) => ZoneSet::new(zones.flat_map(|value| value.zones().iter().cloned())),
    };
    let wanted = Wanted {
        zones: zones.iter().cloned().collect(),
        reverse: !directive.has("no_reverse"),
        inline: inline(directive, &zones, server)?,
    };
    let file = directive.arg("FILE");
    let span = file.map_or(directive.span(), |file| file.span());
    let path = server.path(file.map_or(DEFAULT_FILE, |file| file.text()));

    let source = source::of(path, wanted, server);
    match source.look() {
        Ok(None) => {}
        Ok(Some(warning)) => server.warn(span, warning),
        Err(what) => return Err(SetupError::at(span, what).into()),
    }
    let argument = |option: &str, name: &str| directive.option(option)?.arg(name);
    let reload = argument("reload", "DURATION").map_or(DEFAULT_RELOAD, |every| every.duration());
    if !reload.is_zero() {
        server.background("hosts", source::watch(Arc::clone(&source), reload));
    }
    server.chain(Hosts {
        zones,
        source,
        ttl: argument("ttl", "SECONDS").map_or(DEFAULT_TTL, |ttl| ttl.integer() as u32),
        fallthrough: Fallthrough::read(directive),
        passes_unsupported: directive.has(FALLTHROUGH_UNSUPPORTED),
    });
    Ok(())
}

/// The entries of the block. A line that is neither entry nor option is one that CoreDNS skips without a word, or refuses behind `fallthrough`.
fn inline(
    directive: &Checked,
    zones: &ZoneSet,
    server: &mut ServerSetup<'_>,
) -> Result<Vec<String>, SetupErrors> {
    let mut errors = SetupErrors::default();
    let mut entries = Vec::new();
    let mut behind_fallthrough = false;
    let block = directive.directive.block.as_deref().unwrap_or_default();
    for words in block.iter().map(|line| line.words.as_slice()) {
        let Some((first, names)) = words.split_first() else {
            continue;
        };
        if PLUGIN.options.iter().any(|opt| opt.name == first.text) {
            behind_fallthrough |= first.text == "fallthrough";
            continue;
        }
        if file::parse_address(first.text.as_bytes()).is_none() {
            let what = format!("`{}` is neither an option nor an address", first.text);
            let options = PLUGIN.options.iter().map(|opt| opt.name);
            let error = SetupError::at(first.span, what);
            let error = match nearest(&first.text, options) {
                Some(near) => error.suggest(near),
                None => error,
            };
            match behind_fallthrough {
                true => errors.0.push(error),
                false => warn(server, error),
            }
            continue;
        }
        let mut entry = first.text.clone();
        for name in names {
            let problem = match file::parse_name(name.text.as_bytes()) {
                Err(error) => error.to_string(),
                Ok(wire) if zones.cover(wire.as_wire()).is_none() => {
                    format!("it is outside the zones {zones} and has no effect")
                }
                Ok(_) => {
                    entry.push(' ');
                    entry.push_str(&name.text);
                    continue;
                }
            };
            server.warn(name.span, format!("`{}`: {problem}", name.text));
        }
        entries.push(entry);
    }
    errors.or(entries)
}

fn warn(server: &mut ServerSetup<'_>, error: SetupError) {
    let span = error.at;
    let what = match error.suggestion {
        Some(near) => format!(
            "{}: the line is skipped; did you mean `{near}`?",
            error.what
        ),
        None => format!("{}: the line is skipped", error.what),
    };
    if let Some(span) = span {
        server.warn(span, what);
    }
}

/// The plugin at work in a server block.
struct Hosts {
    zones: ZoneSet,
    source: Arc<Source>,
    ttl: u32,
    fallthrough: Fallthrough,
    passes_unsupported: bool,
}

/// Owner (a pointer to the question), type, class, TTL and length, before the address.
const RECORD_HEAD: usize = 12;

impl Hosts {
    /// The addresses, as far as this client can take them; one more, so that the edge sees that it could not.
    fn addresses(&self, query: Query, rtype: Rtype, octets: &[u8]) -> Response {
        let length = if rtype == Rtype::A { 4 } else { 16 };
        let fits = query.reply_size() / (RECORD_HEAD + length) + 1;
        let mut record = [0; RECORD_HEAD + 16];
        let [t, y] = rtype.0.to_be_bytes();
        let [a, b, c, d] = self.ttl.to_be_bytes();
        record[..RECORD_HEAD].copy_from_slice(&[0xc0, 12, t, y, 0, 1, a, b, c, d, 0, length as u8]);
        let record = &mut record[..RECORD_HEAD + length];
        let mut answer = query.answer().authoritative().not_stored();
        for address in octets.chunks_exact(length).take(fits) {
            record[RECORD_HEAD..].copy_from_slice(address);
            answer = answer.records_wire(Section::Answer, 1, record);
        }
        answer.done()
    }

    fn pointers<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        let Some(address) = reverse::address_of(query.qname()) else {
            return next.serve(query);
        };
        let table = self.source.table();
        let mut names = table.names(address).peekable();
        if names.peek().is_none() {
            drop(names);
            drop(table);
            return next.serve(query);
        }
        let room = query.reply_size();
        let mut octets = 0;
        let mut answer = query.answer().authoritative().not_stored();
        for name in names {
            answer = answer.record(
                Section::Answer,
                Owner::Question,
                Rtype::PTR,
                self.ttl,
                Rdata::Name(name),
            );
            // The last one does not fit, so that the edge sees it.
            octets += RECORD_HEAD + 2;
            if octets > room {
                break;
            }
        }
        Served::Now(answer.done())
    }
}

impl Handler for Hosts {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        if query.qclass() != Class::IN {
            return next.serve(query);
        }
        let qtype = query.qtype();
        if qtype == Rtype::PTR {
            // Reverse names need not be in the zones.
            return self.pointers(query, next);
        }
        if self.zones.cover(query.qname()).is_none() {
            return next.serve(query);
        }
        let is_address = matches!(qtype, Rtype::A | Rtype::AAAA);
        if self.passes_unsupported && !is_address && self.fallthrough.passes(query.qname()) {
            return next.serve(query);
        }
        let exists = {
            let table = self.source.table();
            let host = table.host(query.qname());
            let addresses = match qtype {
                Rtype::A => host.v4,
                Rtype::AAAA => host.v6,
                _ => &[],
            };
            if !addresses.is_empty() {
                return Served::Now(self.addresses(query, qtype, addresses));
            }
            host.exists()
        };
        if exists {
            // There is no zone whose SOA could stand here.
            return Served::Now(query.answer().authoritative().not_stored().done());
        }
        if self.fallthrough.passes(query.qname()) {
            return next.serve(query);
        }
        let mut response = query.rcode(Rcode::SERVFAIL);
        response.set_not_stored();
        Served::Now(response)
    }
}
