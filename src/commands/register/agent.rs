//! The loop that keeps etcd equal to what we want: read addresses, compare, write, renew, wait for the next change, and clean up at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use sd_notify::NotifyState;
use skein_plugins::etcd::Error;

use super::Ending;
use super::addresses::{self, Address, choose};
use super::config::{Config, OnConflict, OnExit, Surroundings, name_of_system};
use super::ears::{Ears, Heard, tell};
use super::netlink::{self, Changes};
use super::plan::{self, Change, Held, Refusal, Standing};
use super::records::{Records, records};
use super::settings::Register;
use super::status::{Audience, Phase, View};
use super::store::{Made, Renewed, Store};

/// To remove the records at the end.
const GOODBYE: Duration = Duration::from_secs(3);
/// Between tries while etcd cannot be used: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Rounds of reading and writing while others write too, before it is left for later.
const ROUNDS: usize = 5;
/// The loop wakes at least so often, to notice that the machine was asleep.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Shows what would be written.
pub(super) fn print(config: &Config) -> Result<(), Ending> {
    let name = name(config).map_err(Ending::Failed)?;
    let (chosen, left_out) = look(config).map_err(Ending::Failed)?;
    let records = records(config, &name, &chosen).map_err(Ending::Usage)?;
    for line in &left_out {
        eprintln!("left out: {line}");
    }
    let lines = records
        .wanted
        .iter()
        .map(|(key, wanted)| format!("{key} {}\n", wanted.value));
    crate::logging::print(lines.collect::<String>().as_bytes());
    match records.wanted.is_empty() {
        true => Err(Ending::Failed("there is no address to register".to_owned())),
        false => Ok(()),
    }
}

/// Runs until it is told to stop, or with `--once` until everything is written.
pub(super) async fn run(flags: Register, config: Config) -> Result<(), Ending> {
    let mut ears = Ears::open()
        .map_err(|error| Ending::Failed(format!("cannot listen to signals: {error}")))?;
    // Before the first look at the addresses, so that no change falls between the two.
    let changes = match config.filter.addresses.is_empty() && !config.once {
        true => Changes::subscribe(config.filter.primary_only)
            .map_err(|error| Ending::Failed(format!("netlink: {error}")))
            .map(Some)?,
        false => None,
    };
    let mut agent = Agent::new(flags, config, changes)?;
    agent
        .audience
        .serve(agent.config.metrics)
        .map_err(Ending::Failed)?;
    agent.show();
    loop {
        if agent.is_due() {
            let Some(result) = ears.during(agent.work()).await else {
                break;
            };
            if let Err(ending) = agent.judge(result) {
                // Nothing of ours is left to a lease that nobody renews.
                agent.withdraw().await;
                return Err(ending);
            }
            match agent.phase {
                Phase::Registered if agent.config.once => return Ok(()),
                Phase::Deposed if agent.config.once => {
                    let names = agent.records.names.join(", ");
                    return Err(Ending::Conflict(format!(
                        "another machine has taken {names}; write --on-conflict takeover to take it back"
                    )));
                }
                _ => {}
            }
        }
        agent.give_up()?;
        let wake = agent.next_due();
        tokio::select! {
            heard = ears.next() => match heard {
                Heard::Stop => break,
                Heard::Reload => agent.reload(),
            },
            changed = next_change(&mut agent.changes) => agent.heard_of_change(changed),
            () = tokio::time::sleep_until(wake.into()) => agent.wake(),
        }
    }
    agent.stop(&mut ears).await;
    Ok(())
}

async fn next_change(changes: &mut Option<Changes>) -> std::io::Result<()> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

/// The machine's name below the domain.
fn name(config: &Config) -> Result<String, String> {
    if let Some(name) = &config.name {
        return Ok(name.clone());
    }
    let system = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| {
        format!("the system's host name cannot be read: {error}; write --hostname NAME")
    })?;
    name_of_system(&system)
}

/// The addresses to register, and what was left out.
fn look(config: &Config) -> Result<(Vec<Address>, Vec<String>), String> {
    let found = match config.filter.addresses.is_empty() {
        true => netlink::addresses().map_err(|error| format!("netlink: {error}"))?,
        false => Vec::new(),
    };
    Ok(choose(&found, &config.filter, addresses::primary))
}

/// Why a piece of work was not done.
enum Trouble {
    Etcd(Error),
    Refused(Refusal),
    /// Others write at the same time.
    Busy,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Etcd(error)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::Refused(refusal)
    }
}

struct Agent {
    flags: Register,
    config: Config,
    changes: Option<Changes>,
    audience: Audience,
    store: Option<Store>,
    name: String,
    addresses: Vec<Address>,
    left_out: Vec<String>,
    records: Records,
    // What we have written and not deleted.
    written: BTreeMap<String, String>,
    held: Vec<Held>,
    // Stores of a former configuration, to be withdrawn from once everything is in the present one.
    retired: Vec<Store>,
    phase: Phase,
    claiming: bool,
    error: Option<String>,
    started: Instant,
    // When each kind of work is due; what is not due has none.
    renew_at: Option<Instant>,
    compare_at: Instant,
    settle_at: Option<Instant>,
    // Nothing is tried before that.
    not_before: Instant,
    failures: u32,
    // Both clocks at the last look: only one of them stands still while the machine sleeps.
    clocks: (Instant, SystemTime),
}

impl Agent {
    fn new(flags: Register, config: Config, changes: Option<Changes>) -> Result<Agent, Ending> {
        let name = name(&config).map_err(Ending::Failed)?;
        let now = Instant::now();
        let mut agent = Agent {
            flags,
            config,
            changes,
            audience: Audience::new(),
            store: None,
            name,
            addresses: Vec::new(),
            left_out: Vec::new(),
            records: Records::default(),
            written: BTreeMap::new(),
            held: Vec::new(),
            retired: Vec::new(),
            phase: Phase::Starting,
            claiming: true,
            error: None,
            started: now,
            renew_at: None,
            compare_at: now,
            settle_at: None,
            not_before: now,
            failures: 0,
            clocks: (now, SystemTime::now()),
        };
        agent.look_again().map_err(Ending::Failed)?;
        if agent.config.once && agent.addresses.is_empty() {
            let why = agent.left_out.join("; ");
            return Err(Ending::Failed(format!(
                "there is no address to register ({why})"
            )));
        }
        let etcd = agent.config.etcd.0.endpoints.join(", ");
        tracing::info!("keeps {} in etcd at {etcd}", agent.records.names.join(", "));
        Ok(agent)
    }

    /// Reads addresses and name; what they are is what we want from now on.
    fn look_again(&mut self) -> Result<(), String> {
        match name(&self.config) {
            Ok(name) if name != self.name => {
                tracing::info!("the host name is {name} now");
                self.name = name;
                self.claiming = true;
            }
            Ok(_) => {}
            // It was good before; whoever is changing it is not done yet.
            Err(what) => tracing::warn!("{what}; {} stays", self.name),
        }
        let (addresses, left_out) = look(&self.config)?;
        let records = records(&self.config, &self.name, &addresses)?;
        if addresses != self.addresses {
            self.audience.numbers().address_changes.inc();
        }
        if left_out != self.left_out {
            for line in &left_out {
                tracing::debug!("left out: {line}");
            }
        }
        (self.addresses, self.left_out, self.records) = (addresses, left_out, records);
        Ok(())
    }

    //--- When ---------------------------------------------------------------------------------

    fn next_due(&self) -> Instant {
        let now = Instant::now();
        let due = [Some(self.compare_at), self.renew_at, self.settle_at];
        let due = due.into_iter().flatten().min().unwrap_or(now);
        due.max(self.not_before).min(now + HEARTBEAT)
    }

    fn is_due(&self) -> bool {
        let now = Instant::now();
        let due = [Some(self.compare_at), self.renew_at, self.settle_at];
        now >= self.not_before && due.into_iter().flatten().any(|due| due <= now)
    }

    /// A jump of one clock against the other: the machine slept, and its lease may have ended.
    fn wake(&mut self) {
        let (steady, wall) = self.clocks;
        let now = (Instant::now(), SystemTime::now());
        self.clocks = now;
        let slept = now.1.duration_since(wall).unwrap_or_default();
        if slept > (now.0 - steady) + HEARTBEAT {
            tracing::info!(
                "the clock went on by {} s; the lease is renewed and everything is compared",
                slept.as_secs()
            );
            self.renew_at = self.renew_at.map(|_| now.0);
            self.compare_at = now.0;
            self.not_before = now.0;
        }
    }

    fn heard_of_change(&mut self, changed: std::io::Result<()>) {
        if let Err(error) = changed {
            // Without word of changes the next comparison finds them.
            tracing::error!(
                "netlink: {error}; addresses are read every {:?} instead",
                self.config.rescan
            );
            self.changes = None;
            return;
        }
        // The first change counts: an interface that flaps all the time is written now and then all the same.
        self.settle_at
            .get_or_insert(Instant::now() + self.config.settle);
    }

    /// Ends a start that takes longer than it may.
    fn give_up(&self) -> Result<(), Ending> {
        let waiting = !self.config.wait.is_zero()
            && self.phase != Phase::Registered
            && self.written.is_empty();
        match waiting && self.started.elapsed() >= self.config.wait {
            true => {
                let why = self
                    .error
                    .clone()
                    .unwrap_or_else(|| "there is no address to register".to_owned());
                Err(Ending::TooLate(why))
            }
            false => Ok(()),
        }
    }

    //--- Work ---------------------------------------------------------------------------------

    /// What is due. If it is dropped half-way, whatever comes next reads again what there is.
    async fn work(&mut self) -> Result<(), Trouble> {
        let now = Instant::now();
        if self.store.is_none() {
            let store = Store::connect(&self.config).await?;
            self.store = Some(store);
            self.compare_at = now;
        }
        if self.renew_at.is_some_and(|due| due <= now) {
            self.renew().await?;
        }
        let settled = self.settle_at.is_some_and(|due| due <= now);
        if settled || self.compare_at <= now {
            self.settle_at = self.settle_at.filter(|_| !settled);
            let before = self.records.clone();
            if let Err(what) = self.look_again() {
                // What was registered last stays: nothing says that it is gone.
                tracing::warn!("{what}");
            }
            if self.changes.is_none() {
                self.subscribe();
            }
            // Lifetimes that are renewed make noise too; only other addresses are a reason to ask etcd.
            if self.compare_at <= now || self.records != before {
                self.compare().await?;
                self.retire().await;
            }
        }
        Ok(())
    }

    /// Hears of changes, where the addresses are the system's.
    fn subscribe(&mut self) {
        if self.config.filter.addresses.is_empty() && !self.config.once {
            self.changes = Changes::subscribe(self.config.filter.primary_only).ok();
        }
    }

    async fn renew(&mut self) -> Result<(), Trouble> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        match store.renew().await? {
            Renewed::Yes => self.renew_at = Some(Instant::now() + jittered(self.config.keepalive)),
            Renewed::Lost => {
                tracing::warn!(
                    "records have ended before they were renewed; they are written again"
                );
                self.audience.numbers().leases_lost.inc();
                self.renew_at = None;
                self.compare_at = Instant::now();
            }
        }
        Ok(())
    }

    /// Makes etcd equal to what we want.
    async fn compare(&mut self) -> Result<(), Trouble> {
        for _ in 0..ROUNDS {
            let Some(store) = &mut self.store else {
                return Ok(());
            };
            if !self.records.wanted.is_empty() && store.prepare().await? {
                self.audience.numbers().leases.inc();
                self.renew_at = Some(Instant::now() + jittered(self.config.keepalive));
            }
            let mut keys: BTreeSet<String> = self.records.wanted.keys().cloned().collect();
            keys.extend(self.written.keys().cloned());
            keys.extend(self.records.homes.iter().cloned());
            let keys: Vec<String> = keys.into_iter().collect();
            let mut entries = store.read(&keys, &self.records.homes).await?;
            let forgotten = plan::forgotten_reverse(&self.records, &entries, &self.config);
            if !forgotten.is_empty() {
                entries.extend(store.read(&forgotten, &[]).await?);
            }
            let written: BTreeSet<String> = self.written.keys().cloned().collect();
            let standing = Standing {
                config: &self.config,
                claiming: self.claiming,
                written: &written,
                nests: store.nests(),
            };
            let plan = plan::plan(&self.records, &entries, &standing)?;
            let made = store.write(&plan.changes).await?;
            if made == Made::NotAll {
                continue;
            }
            self.note(plan, &entries);
            if self.claiming && self.config.on_conflict == OnConflict::Fail {
                self.first_come().await?;
            }
            self.claiming = false;
            return Ok(());
        }
        Err(Trouble::Busy)
    }

    /// Of two that took a free name at the same time, the later one goes.
    async fn first_come(&mut self) -> Result<(), Trouble> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let entries = store.read(&self.records.homes, &self.records.homes).await?;
        let rivals = plan::rivals(&self.records, &entries, &self.config.owner);
        let ours = entries
            .iter()
            .filter(|(key, _)| self.written.contains_key(*key));
        let ours = ours.map(|(_, entry)| entry.created).min();
        let earlier = rivals.iter().find(|(key, _)| {
            let created = entries.get(*key).map(|entry| entry.created);
            ours.is_none() || created < ours
        });
        match earlier {
            Some((key, _)) => {
                let what = format!(
                    "{key} was there first; write --on-conflict join to add to it, or takeover to replace it"
                );
                store.withdraw().await?;
                self.written.clear();
                Err(Trouble::Refused(Refusal(what)))
            }
            None => Ok(()),
        }
    }

    /// Remembers what is written now, and says what changed.
    fn note(&mut self, plan: plan::Plan, entries: &plan::Entries) {
        let numbers = self.audience.numbers();
        let mut repaired = false;
        for change in &plan.changes {
            match change {
                Change::Put { key, value, .. } => {
                    numbers.writes.inc();
                    repaired |= self.written.get(key) == Some(value)
                        && entries
                            .get(key)
                            .is_none_or(|entry| entry.value != value.as_bytes());
                    tracing::debug!("put {key} {value}");
                }
                Change::Delete { key, .. } => {
                    numbers.deletes.inc();
                    tracing::debug!("deleted {key}");
                }
            }
        }
        if repaired {
            numbers.repairs.inc();
            tracing::warn!("records were missing or changed and have been written again");
        }
        for held in plan
            .held
            .iter()
            .filter(|held| !held.same && !self.held.contains(held))
        {
            let owner = held.by.as_deref().unwrap_or("without a mark");
            tracing::warn!(
                "{} belongs to another ({owner}) and is left as it is",
                held.key
            );
        }
        let mut written = BTreeMap::new();
        if plan.deposed_by.is_none() {
            let mine = self
                .records
                .wanted
                .iter()
                .filter(|(key, _)| !plan.held.iter().any(|held| held.key == **key));
            written.extend(mine.map(|(key, wanted)| (key.clone(), wanted.value.clone())));
            // What was lost to another stays lost until it goes.
            let lost = plan
                .held
                .iter()
                .filter(|held| self.written.contains_key(&held.key));
            written.extend(lost.map(|held| (held.key.clone(), String::new())));
        }
        let phase = match (&plan.deposed_by, self.records.wanted.is_empty()) {
            (Some(_), _) => Phase::Deposed,
            (None, true) => Phase::NoAddress,
            (None, false) => Phase::Registered,
        };
        if phase != self.phase || written != self.written {
            match (phase, &plan.deposed_by) {
                (Phase::Deposed, Some(owner)) => tracing::warn!(
                    "another machine ({owner}) has taken {}; waiting until it goes",
                    self.records.names.join(", ")
                ),
                (Phase::NoAddress, _) => {
                    tracing::warn!("no address to register: {}", self.left_out.join("; "))
                }
                _ => {
                    let addresses: Vec<String> = self
                        .addresses
                        .iter()
                        .map(|address| address.ip.to_string())
                        .collect();
                    tracing::info!(
                        "registered {} with {}: {} records",
                        self.records.names.join(", "),
                        addresses.join(", "),
                        written.len()
                    );
                }
            }
        }
        self.phase = phase;
        self.written = written;
        self.held = plan.held;
        // What another has may go at any time; a renewal's pace is what etcd is used to from us.
        let pause = match self.held.iter().all(|held| held.same) && phase == Phase::Registered {
            true => self.config.rescan,
            false => self
                .config
                .rescan
                .min(self.config.keepalive.max(Duration::from_secs(1))),
        };
        self.compare_at = Instant::now() + jittered(pause);
    }

    /// Withdraws from the stores of former configurations, now that everything is in the present one.
    async fn retire(&mut self) {
        for mut store in std::mem::take(&mut self.retired) {
            if let Err(error) = store.withdraw().await {
                tracing::warn!("what was written before the reload ends by itself: {error}");
            }
        }
    }

    /// What came of the work: the next time it is due, or the end.
    fn judge(&mut self, result: Result<(), Trouble>) -> Result<(), Ending> {
        let (phase, what) = match result {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!("etcd is there again");
                }
                self.failures = 0;
                self.error = None;
                self.show();
                return Ok(());
            }
            Err(Trouble::Refused(Refusal(what))) => {
                // At the start nobody relies on us yet, and somebody is watching.
                if self.written.is_empty() || self.config.once {
                    return Err(Ending::Conflict(what));
                }
                (Phase::Refused, what)
            }
            Err(Trouble::Etcd(error)) if self.config.once && !error.is_outage() => {
                return Err(Ending::Etcd(error.to_string()));
            }
            Err(Trouble::Etcd(error)) => (Phase::Outage, error.to_string()),
            Err(Trouble::Busy) => (
                Phase::Outage,
                "others write the same keys all the time".to_owned(),
            ),
        };
        self.audience.numbers().errors.inc();
        let exponent = self.failures.min(16);
        let pause = RETRY.0.saturating_mul(1 << exponent).min(RETRY.1);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + jittered(pause);
        if self.error.as_ref() != Some(&what) {
            tracing::warn!("{what}");
        }
        self.error = Some(what);
        if self.phase != Phase::Starting || phase == Phase::Refused {
            self.phase = phase;
        }
        // Whatever was being done is done again.
        self.compare_at = Instant::now();
        self.show();
        Ok(())
    }

    fn show(&mut self) {
        let view = View {
            phase: self.phase,
            names: &self.records.names,
            addresses: self
                .addresses
                .iter()
                .map(|address| address.ip.to_string())
                .collect(),
            owner: &self.config.owner,
            api: self.store.as_ref().map_or("", Store::api),
            endpoint: self.store.as_ref().map_or_else(String::new, Store::which),
            lease: self.store.as_ref().and_then(Store::lease),
            records: self
                .written
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
            held: &self.held,
            left_out: &self.left_out,
            error: self.error.as_deref(),
        };
        let file = self.config.status_file.clone();
        self.audience.show(&view, file.as_deref().map(Path::new));
    }

    //--- Reload and stop ----------------------------------------------------------------------

    /// Reads the configuration again; if it is wrong everything stays.
    fn reload(&mut self) {
        tell(&[NotifyState::Reloading]);
        match Config::read(&self.flags, &Surroundings::of_process()) {
            Ok(config) => self.take_over(config),
            Err(errors) => {
                for error in errors {
                    tracing::error!("reload failed: {error}");
                }
            }
        }
        self.audience.reloaded();
    }

    fn take_over(&mut self, config: Config) {
        if let Err(what) = self.audience.serve(config.metrics) {
            tracing::error!("{what}");
        }
        let old = std::mem::replace(&mut self.config, config);
        let same_cluster = old.api == self.config.api
            && old
                .etcd
                .0
                .endpoints
                .iter()
                .any(|url| self.config.etcd.0.endpoints.contains(url));
        self.store = match self.store.take() {
            Some(store) if same_cluster && store.goes_on(&self.config) => {
                match store.reconnected(&self.config) {
                    Ok(store) => Some(store),
                    Err(what) => {
                        tracing::error!("{what}");
                        None
                    }
                }
            }
            Some(store) => {
                self.retired.push(store);
                None
            }
            None => None,
        };
        if !same_cluster {
            self.written.clear();
        }
        // What is heard of depends on the settings.
        self.changes = None;
        self.subscribe();
        let claim = |config: &Config| {
            (
                config.prefix.clone(),
                config.domains.clone(),
                config.name.clone(),
                config.layout,
                config.on_conflict,
                config.owner.clone(),
            )
        };
        self.claiming |= claim(&old) != claim(&self.config);
        let now = Instant::now();
        (self.compare_at, self.not_before) = (now, now);
        self.renew_at = self.renew_at.map(|_| now);
        tracing::info!("reloaded");
    }

    /// Says goodbye.
    async fn stop(&mut self, ears: &mut Ears) {
        self.phase = Phase::Stopping;
        tell(&[NotifyState::Stopping]);
        self.show();
        let farewell = tokio::time::timeout(GOODBYE, self.farewell());
        match ears.during(farewell).await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => {
                tracing::warn!("the records could not be removed and go with the lease: {error}")
            }
            Some(Err(_)) => tracing::warn!(
                "the records could not be removed within {GOODBYE:?} and go with the lease"
            ),
            None => tracing::warn!("told to stop at once: the records go with the lease"),
        }
    }

    /// Removes everything, if that is quickly done.
    async fn withdraw(&mut self) {
        if let Some(store) = &mut self.store {
            tokio::time::timeout(GOODBYE, store.withdraw()).await.ok();
        }
    }

    async fn farewell(&mut self) -> Result<(), Error> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        match self.config.on_exit {
            OnExit::Remove => {
                store.withdraw().await?;
                tracing::info!("removed {} records", self.written.len());
            }
            OnExit::Keep => {}
            OnExit::KeepForever => {
                store.stay();
                if let Err(Trouble::Etcd(error)) = self.compare().await {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Within a tenth of it, so that many machines do not come at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * rand::random::<f64>())
}
