//! DNS messages as bytes: views that never copy, never recurse and never panic.
//!
//! Everything here works on slices. A domain name is its uncompressed wire form (length octets and
//! labels, the root's zero octet last, at most 255 octets); where a function wants it lower-cased
//! it says so. hickory-proto's object model is for slow paths; see `crate::kit::response`.

pub mod message;
pub mod name;
#[cfg(test)]
mod properties;
pub mod types;
pub mod writer;

pub use message::{RecordView, Section, WireError};
pub use name::{Name, NameBuf};
pub use types::{Class, Opcode, Rcode, Rtype};
pub use writer::Writer;
