//! file: zones from master files. What a zone is and how it answers is in `kit::authority`; here is which zones there are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::kit::authority::answer::{responsible, serve};
use crate::kit::authority::source::{By, Look, Source};
use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::fallthrough::{self, Fallthrough};
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::lookup::Lookup;
use crate::kit::options::{Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::Name;
use crate::kit::wire::name::{is_within, suffixes};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "file",
    aliases: &[],
    summary: "answers from a zone in a master file",
    arguments: &[
        Arg::one("DBFILE", Kind::Path),
        Arg::any("ZONES", Kind::Zone),
    ],
    options: &[
        Opt::new(
            "reload",
            &[Arg::one(
                "DURATION",
                Kind::Duration {
                    min: Duration::ZERO,
                    max: Duration::from_secs(366 * 24 * 3600),
                },
            )],
            "1m",
            "how often the file is looked at for a new version, 0 for never",
        ),
        Opt::new(
            "reload_by_mtime",
            &[],
            "off",
            "a file that has changed is a new version whatever its serial says",
        ),
        fallthrough::OPTION,
        Opt::ignored(
            "upstream",
            "has no meaning any more: names outside the zone are always asked of this server",
        ),
    ],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let mut errors = SetupErrors::default();
    let mut file = File {
        zones: Vec::new(),
        by_name: HashMap::default(),
        lookup: server.lookup(),
    };
    for directive in directives {
        if let Err(more) = file.read(directive, server) {
            errors.0.extend(more.0);
        }
    }
    errors.or(())?;
    server.chain(file);
    Ok(())
}

/// The plugin at work in a server block: all its `file` lines, so that the longest zone answers whichever line it is on.
struct File {
    zones: Vec<Place>,
    by_name: HashMap<Name, usize, foldhash::fast::RandomState>,
    lookup: Lookup,
}

/// One zone, with what its line says.
struct Place {
    source: Arc<Source>,
    fallthrough: Fallthrough,
}

impl File {
    /// Reads one line and the zones it names.
    fn read(
        &mut self,
        directive: &Checked,
        server: &mut ServerSetup<'_>,
    ) -> Result<(), SetupErrors> {
        let Some(name) = directive.arg("DBFILE") else {
            return Ok(());
        };
        let path = server.path(name.text());
        let every = directive
            .option("reload")
            .and_then(|line| line.arg("DURATION"))
            .map_or(Duration::from_secs(60), |every| every.duration());
        let by = match directive.has("reload_by_mtime") {
            true => By::Mtime,
            false => By::Serial,
        };
        let mut named = directive
            .args("ZONES")
            .flat_map(|zones| zones.zones())
            .peekable();
        let zones: Vec<Name> = match named.peek() {
            Some(_) => named.map(|zone| zone.name.clone()).collect(),
            None => server
                .zones()
                .iter()
                .map(|zone| zone.name.clone())
                .collect(),
        };
        let mut errors = SetupErrors::default();
        for apex in zones {
            let key = format!("file {} {apex}", path.display());
            let workers = server.workers();
            let source = server.keep(&key, || Source::new(&path, &apex, workers));
            let look = source.look(by);
            match &look {
                Look::Failed(fault) if fault.not_found && !every.is_zero() => {
                    let what =
                        format!("{fault}; names in {apex} are answered SERVFAIL until it is there");
                    server.warn(name.span(), what);
                }
                Look::Failed(fault) => {
                    errors
                        .0
                        .push(SetupError::at(name.span(), fault.to_string()));
                    continue;
                }
                look if !server.check_only() => source.tell("file", look),
                Look::Replaced { warnings, .. } => {
                    for text in &warnings.texts {
                        server.warn(name.span(), format!("{}: {text}", path.display()));
                    }
                }
                _ => {}
            }
            self.add(apex, &source, directive, server);
            if !every.is_zero() {
                let registry = server.authority();
                let task = Arc::clone(&source).watch("file", every, by, registry);
                server.background(format!("file {}", source.apex()), task);
            }
        }
        errors.or(())
    }

    fn add(
        &mut self,
        apex: Name,
        source: &Arc<Source>,
        directive: &Checked,
        server: &mut ServerSetup<'_>,
    ) {
        if self.by_name.contains_key(&apex) {
            let what = format!("{apex} stands here a second time: this file counts");
            server.warn(directive.span(), what);
        }
        server.authority().add(&apex, source.published());
        self.by_name.insert(apex, self.zones.len());
        self.zones.push(Place {
            source: Arc::clone(source),
            fallthrough: Fallthrough::read(directive),
        });
    }

    /// The longest zone that a name is within, and how many octets its name has.
    fn find(&self, name: &[u8]) -> Option<(&Place, usize)> {
        if let [only] = self.zones.as_slice() {
            let apex = only.source.apex().as_wire();
            return is_within(name, apex).then_some((only, apex.len()));
        }
        suffixes(name).find_map(|suffix| {
            let number = self.by_name.get(suffix)?;
            Some((self.zones.get(*number)?, suffix.len()))
        })
    }
}

impl Handler for File {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        let zone = responsible(query.qname(), query.qtype(), |name| self.find(name));
        let Some(zone) = zone else {
            return next.serve(query);
        };
        serve(
            zone.source.published(),
            || format!("file {}", zone.source.file().display()),
            &zone.fallthrough,
            &self.lookup,
            query,
            next,
        )
    }
}
