//! acl: who may ask what. It stands in front of `cache`, so that an answer that is kept (fresh or stale) is judged like a new one.
//!
//! `policies.rs` reads the lines, `networks.rs` finds the one that decides.

mod networks;
mod policies;

use crate::kit::dnsfile::Directive;
use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::metrics::CounterTable;
use crate::kit::options::{Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::{Facts, ListenerId, Query};
use crate::kit::response::{Response, Source};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Opcode, Rcode};
use crate::kit::zones::ZoneSet;

use networks::Networks;
use policies::Action;

const SECTIONS: &[Arg] = &[Arg::any("SECTION", Kind::Text)];

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "acl",
    aliases: &[],
    summary: "allows, refuses, empties or drops queries by client, name and type",
    arguments: &[Arg::any("ZONES", Kind::Zone)],
    options: &[
        Opt::new(
            "allow",
            SECTIONS,
            "none",
            "lets the query through; no further line is looked at",
        )
        .adds(),
        Opt::new(
            "block",
            SECTIONS,
            "none",
            "answers REFUSED, with the Extended DNS Error 15 (Blocked)",
        )
        .adds(),
        Opt::new(
            "filter",
            SECTIONS,
            "none",
            "answers NOERROR without records, with the Extended DNS Error 17 (Filtered)",
        )
        .adds(),
        Opt::new("drop", SECTIONS, "none", "answers nothing").adds(),
    ],
    // Actions are read in any case, and in the order in which they stand.
    free_block: true,
    repeat: Repeat::Many,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let mut errors = SetupErrors::default();
    let mut rules = Vec::new();
    for directive in directives {
        match read(directive, server) {
            Ok(rule) => rules.push(rule),
            Err(SetupErrors(more)) => errors.0.extend(more),
        }
    }
    let acl = errors.or(rules)?;
    server.chain(Acl::new(acl, server));
    Ok(())
}

fn read(checked: &Checked, server: &mut ServerSetup<'_>) -> Result<Rule, SetupErrors> {
    let Directive { block, .. } = &checked.directive;
    let lines = block.as_deref().unwrap_or_default();
    if lines.is_empty() {
        let what =
            "it has no lines and does nothing; write `block net 192.0.2.0/24`, say, in its block";
        server.warn(checked.span(), what);
    }
    let policies = policies::read(lines)?;
    let mut zones = checked.args("ZONES").peekable();
    let zones = match zones.peek() {
        None => server.zones().clone(),
        Some(_) => ZoneSet::new(zones.flat_map(|value| value.zones().iter().cloned())),
    };
    Ok(Rule {
        zones,
        networks: Networks::new(&policies),
    })
}

/// One `acl` line at work.
struct Rule {
    zones: ZoneSet,
    networks: Networks,
}

/// The Extended DNS Errors (RFC 8914 §4.16, §4.18), as the data of their option.
const BLOCKED: [u8; 2] = [0, 15];
const FILTERED: [u8; 2] = [0, 17];
/// The option that carries them.
const EXTENDED_ERROR: u16 = 15;

/// All `acl` lines of a server block.
struct Acl {
    rules: Vec<Rule>,
    // The listeners and zones that the counters list.
    listeners: Vec<ListenerId>,
    zones: Vec<String>,
    blocked: CounterTable,
    filtered: CounterTable,
    dropped: CounterTable,
    allowed: CounterTable,
}

impl Acl {
    fn new(rules: Vec<Rule>, server: &ServerSetup<'_>) -> Acl {
        let mut zones: Vec<String> = rules
            .iter()
            .flat_map(|rule| rule.zones.iter().map(|zone| zone.text.clone()))
            .collect();
        zones.sort();
        zones.dedup();
        let zone_names: Vec<&str> = zones.iter().map(String::as_str).collect();
        let listeners = server.listeners();
        let servers: Vec<&str> = listeners.iter().map(|(_, name)| name.as_str()).collect();
        let by_zone = |action: &str, what: &str| {
            server.metrics().table(
                &format!("coredns_acl_{action}_requests_total"),
                &format!("Counter of DNS requests being {what}."),
                &[("view", "")],
                &[("server", &servers), ("zone", &zone_names)],
            )
        };
        Acl {
            blocked: by_zone("blocked", "blocked"),
            filtered: by_zone("filtered", "filtered"),
            dropped: by_zone("dropped", "dropped"),
            allowed: server.metrics().table(
                "coredns_acl_allowed_requests_total",
                "Counter of DNS requests being allowed.",
                &[("view", "")],
                &[("server", &servers)],
            ),
            listeners: listeners.iter().map(|(id, _)| *id).collect(),
            rules,
            zones,
        }
    }

    /// What to do with a query, and by which zone. Of each `acl` line the first policy that matches decides; without one the next line does.
    fn judge(&self, query: &Facts) -> Option<(Action, &str)> {
        let client = query.client().ip().to_canonical();
        for rule in &self.rules {
            let Some(zone) = rule.zones.cover(query.qname()) else {
                continue;
            };
            match rule.networks.decide(client, query.qtype()) {
                None => {}
                Some(Action::Allow) => return None,
                Some(action) => return Some((action, &zone.text)),
            }
        }
        None
    }

    fn server(&self, query: &Facts) -> usize {
        let listener = query.listener();
        let at = self.listeners.iter().position(|id| *id == listener);
        at.unwrap_or(0)
    }

    fn stop(&self, query: Query, action: Action, zone: &str) -> Response {
        let zone = self.zones.iter().position(|listed| listed == zone);
        let at = [self.server(&query), zone.unwrap_or(0)];
        match action {
            Action::Drop => {
                self.dropped.inc(&at);
                query.ignore()
            }
            // An empty answer to a NOTIFY would be the promise to fetch the zone (RFC 1996 §3.7).
            Action::Filter if query.opcode() == Opcode::QUERY => {
                self.filtered.inc(&at);
                empty(query, Rcode::NOERROR, FILTERED)
            }
            Action::Filter => {
                self.filtered.inc(&at);
                empty(query, Rcode::REFUSED, FILTERED)
            }
            Action::Block | Action::Allow => {
                self.blocked.inc(&at);
                empty(query, Rcode::REFUSED, BLOCKED)
            }
        }
    }
}

fn empty(query: Query, rcode: Rcode, error: [u8; 2]) -> Response {
    let mut response = query.rcode(rcode);
    response.set_source(Source::Policy);
    response.add_option(EXTENDED_ERROR, &error);
    response
}

impl Handler for Acl {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        match self.judge(&query) {
            None => {
                self.allowed.inc(&[self.server(&query)]);
                next.serve(query)
            }
            Some((action, zone)) => Served::Now(self.stop(query, action, zone)),
        }
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}
