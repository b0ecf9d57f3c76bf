//! Zones as an authority has them: read, kept, looked up, answered from.
//!
//! ```text
//!   file.zone ──master──▶ Builder ──▶ Contents ──▶ Published ──answer──▶ Response
//!   transfer ───rdata───────▲            │
//!                           └── changes ─┘  (Contents::builder, changes)
//! ```
//! What is here knows neither where zones come from nor who may have them: `file`, `auto`, `secondary`, `transfer` and `sign` do.

pub mod answer;
pub mod builder;
pub mod changes;
pub mod contents;
mod denial;
pub mod master;
pub mod published;
pub mod rdata;
pub mod registry;
pub mod source;
#[cfg(test)]
mod tests;

pub use builder::{BuildError, Builder};
pub use contents::{Contents, Node, Rrset, Soa};
pub use master::{Fault, Loaded, load};
pub use published::Published;
pub use registry::Registry;
pub use source::Source;
