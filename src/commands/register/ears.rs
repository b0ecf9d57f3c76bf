//! What the agent hears while it works: signals, and systemd's wish to be told that it lives.

use std::io;
use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Reload,
    Stop,
}

/// Signals and the watchdog.
pub(super) struct Ears {
    hangup: Signal,
    user: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    watchdog: Option<Interval>,
    // A wish to reload that came while there was work.
    reload: bool,
}

impl Ears {
    /// Listens from now on.
    pub(super) fn open() -> io::Result<Ears> {
        let watchdog = sd_notify::watchdog_enabled().map(|patience| {
            let mut ticks = interval((patience / 3).max(Duration::from_millis(100)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Ok(Ears {
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            watchdog,
            reload: false,
        })
    }

    /// The next wish; meanwhile systemd is told that we live. The agent's own loop waits here, so a loop that hangs is noticed.
    pub(super) async fn next(&mut self) -> Heard {
        if std::mem::take(&mut self.reload) {
            return Heard::Reload;
        }
        loop {
            let tick = async {
                match &mut self.watchdog {
                    Some(ticks) => ticks.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.terminate.recv() => return Heard::Stop,
                _ = self.interrupt.recv() => return Heard::Stop,
                _ = self.quit.recv() => return Heard::Stop,
                _ = self.hangup.recv() => return Heard::Reload,
                _ = self.user.recv() => return Heard::Reload,
                _ = tick => tell(&[NotifyState::Watchdog]),
            }
        }
    }

    /// Does some work unless a wish to stop comes first, which leaves it undone.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut reload = false;
        let done = loop {
            tokio::select! {
                done = &mut work => break Some(done),
                heard = self.next() => match heard {
                    Heard::Stop => break None,
                    Heard::Reload => reload = true,
                },
            }
        };
        self.reload |= reload;
        done
    }
}

/// Tells systemd, if it wants to know.
pub(super) fn tell(states: &[NotifyState<'_>]) {
    sd_notify::notify(states).ok();
}
