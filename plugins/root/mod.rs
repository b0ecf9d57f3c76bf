//! root: the folder that relative file names of the other plugins start from.

use std::io::ErrorKind;
use std::path::Path;

use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::options::{Arg, Checked, Kind};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::setup::ServerSetup;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "root",
    aliases: &[],
    summary: "sets the folder that relative file names start from",
    arguments: &[Arg::one("PATH", Kind::Text)],
    options: &[],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    for directive in directives {
        let Some(path) = directive.arg("PATH") else {
            continue;
        };
        match Path::new(path.text()).metadata() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                server.warn(
                    path.span(),
                    format!("root path does not exist: {}", path.text()),
                );
            }
            Err(error) => {
                let what = format!("unable to access root path `{}`: {error}", path.text());
                return Err(SetupError::at(path.span(), what).into());
            }
        }
        server.set_root(path.text().into());
    }
    Ok(())
}
