//! The control thread: starts the server, then does what signals and the clock say until one says stop.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::generation::Engine;
use crate::program::{self, Refused};

/// Exit code of a second signal, as CoreDNS has it.
const CUT_SHORT: u8 = 2;

/// How long after a start that was refused another one is tried, where that may help.
const START_AGAIN: Duration = Duration::from_secs(5);

/// The signals that we listen to.
struct Signals {
    hangup: Signal,
    user: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Reload,
    Stop,
    StopAtOnce,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self, command: &mut Option<Commanded>) -> Wish {
        let nudged = async {
            let nudged = match command {
                Some(command) => command.nudges.recv().await,
                None => None,
            };
            // A command that has ended nudges no more.
            if nudged.is_none() {
                pending().await
            }
        };
        tokio::select! {
            () = nudged => Wish::Reload,
            _ = self.quit.recv() => Wish::StopAtOnce,
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.user.recv() => Wish::Reload,
        }
    }

    /// Waits for a wish to stop; reloads come too late.
    async fn stop(&mut self) -> Wish {
        loop {
            match self.next(&mut None).await {
                Wish::Reload => {}
                wish => return wish,
            }
        }
    }
}

/// What the start prints, and where the process leaves its number.
pub(crate) struct Announce {
    /// Print nothing at the start.
    pub(crate) quiet: bool,
    /// File for the process's number.
    pub(crate) pidfile: Option<PathBuf>,
    /// A command that serves in its own way.
    pub(crate) command: Option<Commanded>,
}

/// What a command that serves has to do with the course of things.
pub(crate) struct Commanded {
    /// Asks for a reload, as SIGHUP does.
    pub(crate) nudges: mpsc::Receiver<()>,
    /// Is told how each start and reload went; at the start it prints what is served.
    pub(crate) told: Box<dyn FnMut(Outcome) -> Then>,
}

/// What comes after a start that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// The process ends.
    End,
    /// Another start is tried at the next nudge and now and then: there will be another Dnsfile.
    Wait,
}

/// How a start or reload went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It serves.
    Serves,
    /// What served before goes on; the log says why.
    Refused,
}

impl Announce {
    fn tell(&mut self, outcome: Outcome) -> Then {
        match &mut self.command {
            Some(command) => (command.told)(outcome),
            None => Then::End,
        }
    }
}

/// Runs the server until it is told to stop.
pub(crate) async fn run(mut engine: Engine, mut announce: Announce) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen to signals: {error}\n")),
    };
    let mut said = Vec::new();
    let prepared = loop {
        let started = tokio::select! {
            wish = signals.stop() => return stopped(wish),
            started = start(&engine) => started,
        };
        let refused = match started {
            Ok(prepared) => break prepared,
            Err(refused) => refused,
        };
        if announce.command.is_none() {
            return fail(&refused.render(false));
        }
        // Its Dnsfile is nowhere to be read: the line says it all.
        let lines = refused.lines();
        if said != lines {
            for line in &lines {
                tracing::error!("{line}");
            }
            said = lines;
        }
        if announce.tell(Outcome::Refused) == Then::End {
            return ExitCode::FAILURE;
        }
        let next = signals.next(&mut announce.command);
        match tokio::time::timeout(START_AGAIN, next).await {
            Ok(Wish::Reload) | Err(_) => {}
            Ok(wish) => return stopped(wish),
        }
    };
    let lines = Engine::start_lines(&prepared);
    if let Err(error) = engine.commit(prepared).await {
        return fail(&format!("cannot serve http: {error}\n"));
    }
    announce.tell(Outcome::Serves);
    if !announce.quiet {
        let mut text = lines.join("\n");
        text.push('\n');
        text.push_str(&crate::commands::version());
        crate::logging::print(text.as_bytes());
    }
    let pidfile = announce.pidfile.clone();
    let _pidfile = pidfile.as_deref().map(Pidfile::write);
    notify(&[NotifyState::Ready]);
    tokio::task::spawn_local(feed_watchdog());
    if engine.reload_every().is_some() {
        tracing::info!("Running configuration SHA512 = {}", engine.fingerprint());
    }
    let mut watch = Watch::new(&engine);
    loop {
        let wish = tokio::select! {
            wish = signals.next(&mut announce.command) => Some(wish),
            () = watch.tick() => None,
        };
        let dnsfile = match wish {
            Some(Wish::StopAtOnce) => return ExitCode::SUCCESS,
            Some(Wish::Stop) => break,
            Some(Wish::Reload) if !engine.can_reload() => {
                tracing::error!(
                    "Restart failed: the built-in configuration runs; there is no Dnsfile to read"
                );
                continue;
            }
            Some(Wish::Reload) => engine.parse(),
            None => match watch.changed(&engine) {
                Some(parsed) => parsed,
                None => continue,
            },
        };
        let reloaded = tokio::select! {
            wish = signals.stop() => {
                if wish == Wish::StopAtOnce {
                    return ExitCode::SUCCESS;
                }
                break;
            }
            prepared = prepare(&engine, dnsfile) => prepared,
        };
        let hash = match reloaded {
            Ok(prepared) => {
                if let Err(error) = engine.commit(prepared).await {
                    tracing::error!("http: {error}");
                }
                tracing::info!("Reloading complete");
                announce.tell(Outcome::Serves);
                engine.fingerprint().to_owned()
            }
            Err((refused, hash)) => {
                engine.count_failed_reload();
                for line in refused.lines() {
                    tracing::error!("Restart failed: {line}");
                }
                announce.tell(Outcome::Refused);
                hash.unwrap_or_default()
            }
        };
        notify(&[NotifyState::Ready]);
        if !hash.is_empty() {
            engine.tell_version(&hash);
        }
        let tried = if hash.is_empty() { watch.tried } else { hash };
        watch = Watch::after(&engine, tried);
    }
    stop(&mut engine, &mut signals).await
}

/// A signal came before there was anything to stop.
fn stopped(wish: Wish) -> ExitCode {
    match wish {
        Wish::StopAtOnce => CUT_SHORT.into(),
        _ => ExitCode::SUCCESS,
    }
}

async fn start(engine: &Engine) -> Result<crate::generation::Prepared, Refused> {
    engine.prepare(engine.parse()?).await
}

/// Makes the next generation ready, telling what happens; the error comes with the Dnsfile's hash if it could be read.
async fn prepare(
    engine: &Engine,
    dnsfile: Result<skein_plugins::kit::dnsfile::Dnsfile, Refused>,
) -> Result<crate::generation::Prepared, (Refused, Option<String>)> {
    tracing::info!("Reloading");
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
    let dnsfile = dnsfile.map_err(|refused| (refused, None))?;
    let hash = program::fingerprint(&dnsfile);
    engine
        .prepare(dnsfile)
        .await
        .map_err(|refused| (refused, Some(hash)))
}

/// Says goodbye: lameduck, drain, stop hooks. A second signal cuts it short.
async fn stop(engine: &mut Engine, signals: &mut Signals) -> ExitCode {
    notify(&[NotifyState::Stopping]);
    let ending = async {
        let lameduck = engine.lameduck();
        if !lameduck.is_zero() {
            tracing::info!("Going into lameduck mode for {lameduck:?}");
            tokio::time::sleep(lameduck).await;
        }
        engine.stop().await;
    };
    tokio::select! {
        () = ending => ExitCode::SUCCESS,
        _ = signals.stop() => CUT_SHORT.into(),
    }
}

fn fail(text: &str) -> ExitCode {
    use std::io::Write;
    std::io::stderr().write_all(text.as_bytes()).ok();
    ExitCode::FAILURE
}

//--- A changed Dnsfile -----------------------------------------------------------------------------

/// Looks for a changed Dnsfile now and then.
struct Watch {
    every: Option<(Duration, Duration)>,
    // The hash that was tried last: a broken Dnsfile is tried once.
    tried: String,
    // What was wrong with a Dnsfile that could not even be parsed, so that the log says it once.
    refused: Vec<String>,
}

impl Watch {
    fn new(engine: &Engine) -> Watch {
        Watch::after(engine, engine.fingerprint().to_owned())
    }

    /// After a reload that tried the Dnsfile with this hash.
    fn after(engine: &Engine, tried: String) -> Watch {
        Watch {
            every: engine.reload_every().filter(|_| engine.can_reload()),
            tried,
            refused: Vec::new(),
        }
    }

    async fn tick(&self) {
        match self.every {
            Some((interval, jitter)) => {
                // Between half of the jitter early and half of it late, so that many servers do not read at once.
                let late = jitter.mul_f64(rand::random::<f64>());
                tokio::time::sleep((interval + late).saturating_sub(jitter / 2)).await;
            }
            None => pending().await,
        }
    }

    /// The Dnsfile, if it is another one than was tried last.
    fn changed(
        &mut self,
        engine: &Engine,
    ) -> Option<Result<skein_plugins::kit::dnsfile::Dnsfile, Refused>> {
        match engine.parse() {
            Ok(dnsfile) => {
                self.refused.clear();
                (program::fingerprint(&dnsfile) != self.tried).then_some(Ok(dnsfile))
            }
            Err(refused) => {
                // An editor may be half-way through, so nothing is counted yet.
                let lines = refused.lines();
                if lines != self.refused {
                    for line in &lines {
                        tracing::warn!("Dnsfile parse failed: {line}");
                    }
                    self.refused = lines;
                }
                None
            }
        }
    }
}

//--- Whoever watches us ----------------------------------------------------------------------------

/// Tells systemd, if it wants to know.
fn notify(states: &[NotifyState<'_>]) {
    sd_notify::notify(states).ok();
}

async fn feed_watchdog() {
    if let Some(timeout) = sd_notify::watchdog_enabled() {
        loop {
            tokio::time::sleep(timeout / 2).await;
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// The file with the process's number; gone when the process ends.
struct Pidfile<'p>(&'p Path);

impl Pidfile<'_> {
    fn write(path: &Path) -> Pidfile<'_> {
        if let Err(error) = std::fs::write(path, format!("{}\n", std::process::id())) {
            tracing::error!(
                "cannot write the process's number to {}: {error}",
                path.display()
            );
        }
        Pidfile(path)
    }
}

impl Drop for Pidfile<'_> {
    fn drop(&mut self) {
        std::fs::remove_file(self.0).ok();
    }
}
