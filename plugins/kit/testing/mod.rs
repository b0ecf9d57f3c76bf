//! The test kit: a whole server in a test, without sockets, on a clock that stands until the test turns it.
//!
//! ```text
//! ask("whoami", "example.org. A")  ──▶ parser ─▶ setup ─▶ edge ─▶ chain ─▶ edge ──▶ .expect("NOERROR ..")
//!                                                          │
//! upstream example.org. A …  ──▶ ScriptedUpstream ◀── forward . scripted
//! ```
//! Start with [`scenario`], whose `.dns` files are the first test of anything; [`ask()`] is for a question or two in a unit test.

pub mod ask;
mod odd;
pub mod question;
pub mod render;
mod reply;
pub mod scenario;
pub mod server;
pub mod store;
pub mod upstream;
pub mod world;
mod zone;

pub use ask::{ask, ask_in, ask_with};
pub use question::Question;
pub use reply::script;
pub use server::TestServer;
pub use store::ScriptedStore;
pub use upstream::ScriptedUpstream;
pub use world::World;
