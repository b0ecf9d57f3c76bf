//! debug: turns debug logging on.

use crate::kit::errors::SetupErrors;
use crate::kit::options::Checked;
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::setup::ServerSetup;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "debug",
    aliases: &[],
    summary: "turns debug logging on, for the whole process",
    arguments: &[],
    options: &[],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(_: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    server.debug();
    Ok(())
}
