//! Zones and sets of them: the longest zone that covers a name, on label boundaries, in wire form.

use super::wire::Name;

/// A zone, lower-cased.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Zone {
    /// Wire form, lower-cased.
    pub name: Name,
    /// As text with its last dot: `example.org.`.
    pub text: String,
}

/// Zones to match names against.
#[derive(Clone, Default, Debug)]
pub struct ZoneSet {
    zones: Vec<Zone>,
}

impl ZoneSet {
    /// A set of these zones, duplicates removed, order kept.
    pub fn new(_zones: impl IntoIterator<Item = Zone>) -> ZoneSet {
        todo!()
    }
    /// The root: every name.
    pub fn everything() -> ZoneSet {
        todo!()
    }
    /// The longest zone that `qname` (lower-cased wire form) is in. No allocation.
    pub fn cover(&self, _qname: &[u8]) -> Option<&Zone> {
        todo!()
    }
    /// All of them, in the order given.
    pub fn iter(&self) -> std::slice::Iter<'_, Zone> {
        self.zones.iter()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }
}

/// Reads a zone or a CIDR network as a zone argument has it (scheme and port stripped, reference 3.0.1); a network may be several zones.
pub fn parse_zones(_text: &str) -> Result<Vec<Zone>, String> {
    todo!()
}

/// The scheme of a server block's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// UDP and TCP.
    Dns,
}

/// A server block's key, read: one for every zone that a CIDR key stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// Its scheme.
    pub scheme: Scheme,
    /// Its zone.
    pub zone: Zone,
    /// Its port.
    pub port: u16,
}

/// Reads a server block's key (reference 1.7). A scheme we do not serve yet is an error that says so.
pub fn parse_key(_text: &str, _default_port: u16) -> Result<Vec<Key>, String> {
    todo!()
}
