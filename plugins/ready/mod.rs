//! ready: an HTTP endpoint that says when every plugin is ready to serve.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::options::{self, Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::setup::{HttpAnswer, ServerSetup, SharedReady};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "ready",
    aliases: &[],
    summary: "answers /ready with 200 once every plugin is ready",
    arguments: &[Arg::optional("ADDRESS", Kind::Listen)],
    options: &[Opt::new(
        "monitor",
        &[Arg::one(
            "MODE",
            Kind::Choice(&["until-ready", "continuously"]),
        )],
        "until-ready",
        "whether a plugin that was ready once is asked again",
    )],
    free_block: false,
    repeat: Repeat::Once,
    setup,
};

const ADDRESS: &str = ":8181";

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let Some(directive) = directives.first() else {
        return Ok(());
    };
    let (text, span) = match directive.arg("ADDRESS") {
        Some(address) => (address.text().to_owned(), address.span()),
        None => (ADDRESS.to_owned(), directive.span()),
    };
    let address = options::parse_listen(&text).map_err(|what| SetupError::at(span, what))?;
    let continuously = directive
        .option("monitor")
        .and_then(|line| line.arg("MODE"))
        .is_some_and(|mode| mode.text() == "continuously");
    let probe = Probe {
        checks: server.readiness(),
        continuously,
        was_ready: Mutex::default(),
    };
    let probe = Arc::new(probe);
    server.http(span, address, "/ready", Arc::new(move || probe.answer()));
    Ok(())
}

struct Probe {
    checks: SharedReady,
    continuously: bool,
    // Positions in `checks` that were ready once.
    was_ready: Mutex<BTreeSet<usize>>,
}

impl Probe {
    fn answer(&self) -> HttpAnswer {
        let checks = self
            .checks
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut was_ready = self
            .was_ready
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut missing = BTreeSet::new();
        for (position, check) in checks.iter().enumerate() {
            if !self.continuously && was_ready.contains(&position) {
                continue;
            }
            if (check.is_ready)() {
                was_ready.insert(position);
            } else {
                missing.insert(check.name.as_str());
            }
        }
        if missing.is_empty() {
            return HttpAnswer {
                status: 200,
                content_type: "text/plain; charset=utf-8",
                body: "OK".into(),
            };
        }
        let body = missing.into_iter().collect::<Vec<_>>().join(",");
        tracing::info!("plugin/ready: Plugins not ready: \"{body}\"");
        HttpAnswer {
            status: 503,
            content_type: "text/plain; charset=utf-8",
            body,
        }
    }
}
