//! The object in etcd, read at the start and followed from then on. A change becomes a new Dnsfile and a reload; what is wrong with the object,
//! or with etcd, becomes one line, and what served goes on serving.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use skein_plugins::etcd::Error;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::dnsfile::{self, Surroundings};
use super::object;
use super::settings::Settings;
use super::store::{Api, Found, Look, Store};
use crate::program::Written;
use crate::signals::{Outcome, Then};

/// How long the start waits for the object: a cluster that is there answers in milliseconds, and clients wait for us.
const FIRST_MAX: Duration = Duration::from_secs(5);
/// Between two attempts while etcd cannot be used.
const RETRY: Duration = Duration::from_secs(1);

/// The configuration as it develops.
pub(super) struct Live {
    base: Settings,
    around: Surroundings,
    store: Store,
    written: Written,
    nudge: mpsc::Sender<()>,
    said: Rc<RefCell<Said>>,
    // The object that was read last, whether it could be used or not.
    version: Option<(Api, i64)>,
    // An object has been used.
    has_object: bool,
    // It has been deleted since.
    is_gone: bool,
    // Attempts in a row that came to nothing.
    failures: u32,
    // The log knows of the trouble.
    in_trouble: bool,
}

/// What runs, and what the log has said of it.
struct Said {
    // What runs or is about to; none before the start.
    settings: Settings,
    // What ran before, in case that does not start.
    good: Option<(Settings, String)>,
    lines: Vec<String>,
    // Etcd was not there at the start, so that what flags say may not be what is wanted; or what is refused stands in etcd, and nothing that
    // stands there ends us: a start that is refused is tried again.
    waits: bool,
    has_said_so: bool,
}

impl Live {
    /// Nothing is read yet.
    pub(super) fn new(
        base: Settings,
        around: Surroundings,
        store: Store,
        written: Written,
        nudge: mpsc::Sender<()>,
    ) -> Live {
        Live {
            said: Rc::new(RefCell::new(Said {
                settings: base.clone(),
                good: None,
                lines: Vec::new(),
                waits: false,
                has_said_so: false,
            })),
            base,
            around,
            store,
            written,
            nudge,
            version: None,
            has_object: false,
            is_gone: false,
            failures: 0,
            in_trouble: false,
        }
    }

    /// Reads the object for the first time and writes the first Dnsfile, whatever came of it.
    pub(super) fn begin(&mut self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let read = runtime.block_on(async { timeout(FIRST_MAX, self.store.look()).await });
        let falling = "falling back to default configuration, could not read from etcd:";
        match read {
            Ok(Ok(Look {
                found: Some(object),
                ..
            })) => {
                self.take(&object);
                self.said.borrow_mut().waits = self.has_object;
            }
            Ok(Ok(_)) => tracing::info!("{falling} there is no key {}", self.store.key),
            Ok(Err(error)) => self.begin_without(&format!("{falling} {error}")),
            Err(_) => self.begin_without(&format!("{falling} no answer within {FIRST_MAX:?}")),
        }
        let settings = self.said.borrow().settings.clone();
        self.written.set(dnsfile::write(&settings, &self.around));
        Ok(())
    }

    fn begin_without(&mut self, what: &str) {
        tracing::warn!("{what}");
        self.in_trouble = true;
        self.said.borrow_mut().waits = true;
    }

    /// Says what is served, and goes back to what served before if the new does not start.
    pub(super) fn teller(&self) -> Box<dyn FnMut(Outcome) -> Then> {
        let said = Rc::clone(&self.said);
        let (around, written) = (self.around.clone(), self.written.clone());
        Box::new(move |outcome| {
            let mut said = said.borrow_mut();
            match outcome {
                Outcome::Serves => {
                    let lines = start_lines(&said.settings, &around);
                    for line in lines.iter().filter(|line| !said.lines.contains(line)) {
                        tracing::info!("{line}");
                    }
                    said.lines = lines;
                    said.good = Some((said.settings.clone(), written.text()));
                }
                Outcome::Refused => {
                    if let Some((settings, text)) = said.good.clone() {
                        said.settings = settings;
                        written.set(text);
                    } else if said.waits {
                        if !std::mem::replace(&mut said.has_said_so, true) {
                            tracing::warn!(
                                "trying again until that works or etcd says something else"
                            );
                        }
                        return Then::Wait;
                    }
                }
            }
            Then::End
        })
    }

    /// Follows the object for ever.
    pub(super) async fn follow(mut self) {
        loop {
            let Err(error) = self.session().await;
            self.failures += 1;
            self.store.leave();
            // The first failure is mostly one member's, and the next one does better. Then one line for a trouble, not one for each attempt.
            if self.failures > 1 && !std::mem::replace(&mut self.in_trouble, true) {
                tracing::warn!(
                    "cannot read {} from etcd: {error}; what is configured stays, trying on",
                    self.store.key
                );
            }
            sleep(RETRY).await;
        }
    }

    /// Reads and watches until something is wrong.
    async fn session(&mut self) -> Result<std::convert::Infallible, Error> {
        loop {
            let look = self.store.look().await?;
            self.failures = 0;
            if std::mem::take(&mut self.in_trouble) {
                tracing::info!("etcd is there again");
            }
            match &look.found {
                Some(object) => self.take_and_reload(object),
                None => self.gone(),
            }
            self.store.change(&look).await?;
        }
    }

    fn take_and_reload(&mut self, object: &Found) {
        self.take(object);
        let text = dnsfile::write(&self.said.borrow().settings, &self.around);
        if text != self.written.text() {
            self.written.set(text);
            // A nudge that waits already will do.
            self.nudge.try_send(()).ok();
        }
    }

    /// Uses an object, if it is another one than before and can be used.
    fn take(&mut self, object: &Found) {
        if self.version.replace(object.version) == Some(object.version) {
            return;
        }
        self.is_gone = false;
        let read = object::read(&self.store.key, &object.value, &self.base);
        let read = read.and_then(|read| match super::unusable(&read.settings, &self.around) {
            Some(what) => Err(vec![format!("{}: {what}", self.store.key)]),
            None => Ok(read),
        });
        match read {
            Ok(read) => {
                for remark in read.remarks {
                    tracing::warn!("{remark}");
                }
                self.has_object = true;
                self.said.borrow_mut().settings = read.settings;
            }
            Err(errors) => {
                let meanwhile = match self.has_object {
                    true => "the configuration before it stays",
                    false => "falling back to default configuration",
                };
                tracing::error!("{}; {meanwhile}", errors.join("; "));
            }
        }
    }

    /// The object is not there, or not any more. Somebody who deletes it hardly wants the server on another address.
    fn gone(&mut self) {
        if self.has_object && !std::mem::replace(&mut self.is_gone, true) {
            tracing::warn!(
                "{} was deleted; what it said stays until it is written again or we are started anew",
                self.store.key
            );
        }
    }
}

/// What SkyDNS says at its start.
fn start_lines(settings: &Settings, around: &Surroundings) -> Vec<String> {
    let port = settings
        .prometheus_port
        .map_or_else(String::new, |port| port.to_string());
    let mut lines = vec![format!(
        "metrics enabled on :{port}{}",
        settings.prometheus_path
    )];
    for address in dnsfile::addresses(settings, around) {
        for transport in ["tcp", "udp"] {
            lines.push(format!(
                "ready for queries on {} for {transport}://{address} [rcache {}]",
                settings.domain, settings.rcache
            ));
        }
    }
    lines
}
