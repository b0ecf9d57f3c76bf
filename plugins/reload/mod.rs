//! reload: looks for a changed Dnsfile now and then, and takes the new one over if it is good.

use std::time::Duration;

use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::options::{Arg, Checked, Kind};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::setup::ServerSetup;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "reload",
    aliases: &[],
    summary: "looks for a changed Dnsfile and takes it over without losing a query",
    arguments: &[
        Arg::optional("INTERVAL", DURATION),
        Arg::optional("JITTER", DURATION),
    ],
    options: &[],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

const DURATION: Kind = Kind::Duration {
    min: Duration::ZERO,
    max: Duration::from_secs(365 * 24 * 3600),
};
const INTERVAL: Duration = Duration::from_secs(30);
const INTERVAL_MIN: Duration = Duration::from_secs(2);
const JITTER: Duration = Duration::from_secs(15);
const JITTER_MIN: Duration = Duration::from_secs(1);

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    for directive in directives {
        let interval = directive
            .arg("INTERVAL")
            .map_or(INTERVAL, |value| value.duration());
        if let Some(value) = directive.arg("INTERVAL")
            && interval < INTERVAL_MIN
        {
            return Err(SetupError::at(
                value.span(),
                "interval value must be greater or equal to 2s",
            )
            .into());
        }
        let jitter = directive
            .arg("JITTER")
            .map_or(JITTER, |value| value.duration());
        if let Some(value) = directive.arg("JITTER")
            && !jitter.is_zero()
            && jitter < JITTER_MIN
        {
            return Err(SetupError::at(
                value.span(),
                "jitter value must be 0 or greater or equal to 1s",
            )
            .into());
        }
        server.reload_every(interval, jitter.min(interval / 2));
    }
    Ok(())
}
