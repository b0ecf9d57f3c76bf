//! A plugin's row in the table.

use super::errors::SetupErrors;
use super::options::{Arg, Checked, Opt};
use super::setup::ServerSetup;

/// Whether a directive may stand several times in a server block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// A second one is an error.
    Once,
    /// As often as one likes; `setup` gets all of them.
    Many,
}

/// A plugin: what the Dnsfile may say about it, and how it is set up.
#[derive(Debug)]
pub struct Plugin {
    /// Folder, directive, README title.
    pub name: &'static str,
    /// Other words for it (`prometheus` for `metrics`).
    pub aliases: &'static [&'static str],
    /// One line, lower-case, no full stop.
    pub summary: &'static str,
    /// Words on the directive's line.
    pub arguments: &'static [Arg],
    /// Options of its block.
    pub options: &'static [Opt],
    /// Lines of the block that are no option are left to `setup` (inline hosts, rules).
    pub free_block: bool,
    /// Several in a block.
    pub repeat: Repeat,
    /// Called once per server block with every directive of this plugin in it, in order.
    pub setup: fn(&[Checked], &mut ServerSetup<'_>) -> Result<(), SetupErrors>,
}
