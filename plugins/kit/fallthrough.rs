//! Which names may pass on after a miss: the `fallthrough [ZONES...]` that many plugins have.

use super::options::{Arg, Checked, Kind, Opt};
use super::zones::ZoneSet;

/// The option's row, for a plugin's table.
pub const OPTION: Opt = Opt::new(
    "fallthrough",
    &[Arg::any("ZONES", Kind::Zone)],
    "off",
    "pass names that are not found on to the next plugin; with ZONES only names in them",
);

/// What the Dnsfile says about it.
#[derive(Clone, Default, Debug)]
pub struct Fallthrough {
    zones: ZoneSet,
}

impl Fallthrough {
    /// Reads the option of a directive; the last one counts.
    pub fn read(checked: &Checked) -> Fallthrough {
        Fallthrough::read_as("fallthrough", checked)
    }

    /// The same for an option of another name, whose arguments are any number of zones too.
    pub fn read_as(option: &str, checked: &Checked) -> Fallthrough {
        match checked.option(option) {
            None => Fallthrough::default(),
            Some(property) if property.values.is_empty() => Fallthrough {
                zones: ZoneSet::everything(),
            },
            Some(property) => Fallthrough {
                zones: ZoneSet::new(
                    property
                        .values
                        .iter()
                        .flat_map(|(_, v)| v.zones().iter().cloned()),
                ),
            },
        }
    }

    /// Whether a miss on this name (lower-cased wire form) passes on.
    pub fn passes(&self, qname: &[u8]) -> bool {
        self.zones.cover(qname).is_some()
    }
}
