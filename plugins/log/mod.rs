//! log: a line for every query.

mod format;

use std::sync::Arc;

use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::options::{Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::query_log::{QueryLog, QueryLogCapture};
use crate::kit::response::Response;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Opcode, Rcode, Rtype, Section, message};
use crate::kit::zones::{self, ZoneSet};

use format::Format;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "log",
    aliases: &[],
    summary: "logs a line for every query",
    arguments: &[Arg::any("NAME|FORMAT", Kind::Text)],
    options: &[
        Opt::new(
            "class",
            &[Arg::some(
                "CLASS",
                Kind::Choice(&["all", "success", "denial", "error"]),
            )],
            "all",
            "logs only responses of these classes; several lines add up",
        )
        .adds(),
        Opt::new(
            "format",
            &[Arg::one("FORMAT", Kind::Choice(&["text", "json"]))],
            "text",
            "json writes one object per line",
        ),
    ],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let mut errors = SetupErrors::default();
    let mut rules = Vec::new();
    for directive in directives {
        match Rule::read(directive) {
            Ok(rule) => rules.push(rule),
            Err(error) => errors.0.push(error),
        }
    }
    if !errors.0.is_empty() {
        return Err(errors);
    }
    let metrics = server.metrics().clone();
    let workers = server.workers();
    let log = match server.double::<QueryLogCapture>() {
        Some(capture) => Arc::new(QueryLog::captured(&metrics, capture)),
        // A check starts no writer: no query comes.
        None if server.check_only() => Arc::new(QueryLog::captured(&metrics, Arc::default())),
        None => server.keep("log: writer", || QueryLog::new(&metrics, workers)),
    };
    let last = Arc::clone(&log);
    server.at_stop(async move { last.flush() });
    server.chain(Log { rules, log });
    Ok(())
}

struct Rule {
    names: ZoneSet,
    classes: Classes,
    format: Format,
}

impl Rule {
    fn read(directive: &Checked) -> Result<Rule, SetupError> {
        let words: Vec<_> = directive.values.iter().map(|(_, value)| value).collect();
        // A format is the last of two or more words, and has a brace; one word alone is a name.
        let (names, format) = match words.as_slice() {
            [names @ .., last] if !names.is_empty() && last.text().contains('{') => {
                (names, Some(last.text()))
            }
            names => (names, None),
        };
        let mut scope = Vec::new();
        for name in names {
            scope.extend(
                zones::parse_zones(name.text())
                    .map_err(|what| SetupError::at(name.span(), what))?,
            );
        }
        let json = directive
            .option("format")
            .and_then(|line| line.arg("FORMAT"))
            .filter(|format| format.text() == "json");
        let format = match (json, format) {
            (Some(json), Some(_)) => {
                return Err(SetupError::at(
                    json.span(),
                    "format json and a FORMAT on the line exclude each other",
                ));
            }
            (Some(_), None) => Format::Json,
            (None, format) => Format::text(format.unwrap_or("{common}")),
        };
        let mut classes = Classes::default();
        for class in directive
            .options("class")
            .flat_map(|line| line.values.iter())
        {
            classes.add(class.1.text());
        }
        let names = if scope.is_empty() {
            ZoneSet::everything()
        } else {
            ZoneSet::new(scope)
        };
        Ok(Rule {
            names,
            classes,
            format,
        })
    }
}

/// Classes of responses to log; none written is all.
#[derive(Default, Clone, Copy)]
struct Classes {
    success: bool,
    denial: bool,
    error: bool,
    written: bool,
}

impl Classes {
    fn add(&mut self, class: &str) {
        self.written = true;
        match class {
            "success" => self.success = true,
            "denial" => self.denial = true,
            "error" => self.error = true,
            _ => (self.success, self.denial, self.error) = (true, true, true),
        }
    }

    fn contain(&self, response: &Response) -> bool {
        if !self.written || self.success && self.denial && self.error {
            return true;
        }
        match classify(response) {
            Class::Success => self.success,
            Class::Denial => self.denial,
            Class::Error => self.error,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Success,
    Denial,
    Error,
}

/// CoreDNS's classes: an answer or a referral is success; NXDOMAIN and NODATA (an SOA in authority) are denial; the rest is error.
fn classify(response: &Response) -> Class {
    match (response.rcode(), response.count(Section::Answer)) {
        (Rcode::NOERROR, 0) if response.count(Section::Authority) > 0 => {
            let soa = message::records(response.wire())
                .into_iter()
                .flatten()
                .flatten();
            match soa
                .into_iter()
                .any(|record| record.section == Section::Authority && record.rtype == Rtype::SOA)
            {
                true => Class::Denial,
                false => Class::Success,
            }
        }
        (Rcode::NOERROR, _) => Class::Success,
        (Rcode::NXDOMAIN, 0) => Class::Denial,
        _ => Class::Error,
    }
}

struct Log {
    rules: Vec<Rule>,
    log: Arc<QueryLog>,
}

impl Handler for Log {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        next.serve(query).then(self)
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}

impl Edit for Log {
    fn edit(&self, response: Response) -> Response {
        let qname = response.query().qname();
        // The first rule whose names cover the qname decides, whatever its classes say.
        if let Some(rule) = self
            .rules
            .iter()
            .find(|rule| rule.names.cover(qname).is_some())
            && rule.classes.contain(&response)
        {
            self.log.line(|line| rule.format.write(&response, line));
        }
        response
    }
}
