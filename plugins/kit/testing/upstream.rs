//! [`ScriptedUpstream`]: an upstream without a socket. `forward . scripted` asks it instead of the network.
//!
//! It knows what a conversation scripted, and below `odd.example.` the names of `odd`, whose first
//! label says what they do. What it does not know it answers REFUSED, so that a forgotten script shows at once.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::kit::query::Transport;

/// The upstream that `forward . scripted` names.
pub const SCRIPTED: &str = "scripted";

/// A query as an upstream saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which upstream: the word in the Dnsfile.
    pub upstream: String,
    /// The message.
    pub packet: Vec<u8>,
    /// How it came.
    pub transport: Transport,
}

/// What an upstream does with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// The reply; `None` is silence until the asker gives up.
    pub reply: Option<Vec<u8>>,
    /// How long it takes.
    pub after: Duration,
}

/// Decides what to do with a query; `None` when it is not its business. Later scripts are asked first.
pub type Script = Box<dyn FnMut(&Seen) -> Option<Reaction> + Send>;

#[derive(Default)]
struct State {
    scripts: Vec<Script>,
    seen: Vec<Seen>,
}

/// An upstream that plays a script. Cheap to share; hand it to [`Services::doubles`](crate::kit::setup::Services).
#[derive(Default)]
pub struct ScriptedUpstream {
    state: Mutex<State>,
}

impl ScriptedUpstream {
    /// One that knows nothing yet.
    pub fn new() -> Arc<ScriptedUpstream> {
        Arc::new(ScriptedUpstream::default())
    }

    /// Adds a script, to be asked before those that are there.
    pub fn script(&self, script: Script) {
        self.state().scripts.push(script);
    }

    /// Adds a script, to be asked when no other one knew what to do.
    pub fn script_last(&self, script: Script) {
        self.state().scripts.insert(0, script);
    }

    /// Whether a word of the Dnsfile names a scripted upstream: `scripted`, or `scripted-a` and so on where a test needs several.
    pub fn is_named_by(word: &str) -> bool {
        word == SCRIPTED || word.starts_with("scripted-")
    }

    /// Asks the upstream called `scripted`: the message (no length prefix on TCP) and how it is sent. The reply as it
    /// would arrive, ID and all. `None`, given at once, is silence: wait as long as your own timeout and take it for one.
    pub fn exchange(
        &self,
        packet: &[u8],
        transport: Transport,
    ) -> impl Future<Output = Option<Vec<u8>>> + Send + 'static {
        self.exchange_with(SCRIPTED, packet, transport)
    }

    /// As [`exchange`](Self::exchange), for the upstream that the Dnsfile calls `upstream`.
    pub fn exchange_with(
        &self,
        upstream: &str,
        packet: &[u8],
        transport: Transport,
    ) -> impl Future<Output = Option<Vec<u8>>> + Send + 'static {
        let seen = Seen {
            upstream: upstream.to_owned(),
            packet: packet.to_vec(),
            transport,
        };
        let reaction = self.react(seen);
        async move {
            if reaction.after > Duration::ZERO {
                tokio::time::sleep(reaction.after).await;
            }
            reaction.reply
        }
    }

    fn react(&self, seen: Seen) -> Reaction {
        let mut state = self.state();
        let reaction = state
            .scripts
            .iter_mut()
            .rev()
            .find_map(|script| script(&seen))
            .unwrap_or_else(|| Reaction {
                reply: refused(&seen.packet),
                after: Duration::ZERO,
            });
        state.seen.push(seen);
        reaction
    }

    /// Every query since the last call, in order.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// REFUSED with the header and whatever the query had behind it.
fn refused(packet: &[u8]) -> Option<Vec<u8>> {
    let mut reply = packet.to_vec();
    *reply.get_mut(2)? |= 0x80;
    let flags = reply.get_mut(3)?;
    *flags = *flags & 0x10 | 5;
    Some(reply)
}
