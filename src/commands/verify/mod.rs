//! `skeindns verify`: does the server answer what etcd says?
//!
//! ```text
//!   etcd ──state.rs──▶ model.rs: what should be answered ─┐
//!                                                         ├─ compare.rs ─▶ check.rs ─▶ report.rs
//!   server ◀─questions─ ask.rs ─────────── what is ───────┘
//! ```
//! The model is worked out from the keys by itself and shares no code with the server's tree, so that it finds the server's faults.

pub(super) mod ask;
mod check;
mod compare;
pub(super) mod model;
mod quick;
pub(super) mod report;
pub(super) mod rr;
pub(super) mod service;
pub(super) mod state;
mod zones;

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use skein_plugins::etcd::{Client, Error, V2Client};
use skein_plugins::kit::options::parse_duration;
use skein_plugins::kit::wire::{Name, Rtype};

use super::cluster::{Cluster, FromFile};
use super::etcd_lines::{self, EtcdLine};
use ask::{How, Silence, UDP_OCTETS};
use check::{Broken, Check, Checker, Task, Verdict};
use compare::Ttl;
use model::{Answers, Rules, Subtree, Zone};
use report::Format;
use state::{Api, State, Store};

const EXAMPLES: &str = "\
Examples:
  skeindns verify                                         a look at the zone, this machine's name, forwarding, TCP and EDNS
  skeindns verify node1.skydns.local web.skydns.local     every type of these names
  skeindns verify --all                                   everything that is in etcd
  skeindns verify --all --conf /etc/skeindns/Dnsfile      the same; server, cluster and zones as the Dnsfile has them
  skeindns verify --all --server 10.10.10.214 --endpoint http://10.10.10.201:2379 --format json

Exit codes: 0 all is as etcd says, 1 something differs, 2 the server cannot be reached, 3 etcd cannot be reached, 64 usage.";

/// Does the server answer what etcd says?
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Names to ask for in every type; a look at the zone without any
    name: Vec<String>,

    /// Ask for everything that is in etcd
    #[arg(long, conflicts_with = "name")]
    all: bool,

    /// The server to ask; the Dnsfile's without it, then 127.0.0.1:53
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    server: Option<String>,

    /// A zone that the server answers from etcd; found out by asking it without this. Several are fine
    #[arg(long, value_name = "ZONE")]
    domain: Vec<String>,

    /// Only questions of these types, with commas
    #[arg(long = "type", value_name = "TYPE,…", value_delimiter = ',')]
    types: Vec<String>,

    /// Ask over TCP
    #[arg(long)]
    tcp: bool,

    /// What to wait for an answer; over UDP it is asked three times
    #[arg(long, default_value = "2s", value_name = "DURATION")]
    timeout: String,

    /// What a name with records below it answers, as `subtree` in the Dnsfile; on without it
    #[arg(long, value_enum)]
    subtree: Option<Subtree>,

    /// Which of etcd's two stores is read; the Dnsfile's, or auto without one
    #[arg(long, value_enum)]
    api: Option<Api>,

    /// Whose answers the server gives; recognized by its SOA record without this
    #[arg(long, value_enum)]
    answers: Option<Answers>,

    /// TTL of records that have neither one of their own nor a lease; 300 without it, like SkyDNS that of its SOA record
    #[arg(long, value_name = "SECONDS")]
    default_ttl: Option<u32>,

    /// How TTLs are compared
    #[arg(long, value_enum, default_value_t)]
    ttl: Ttl,

    /// The name to ask for as one that the server forwards
    #[arg(long, default_value = "www.example.com", value_name = "NAME")]
    forwarded: String,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// With --all: print what is right, too
    #[arg(long)]
    verbose: bool,

    #[command(flatten)]
    cluster: Cluster,
}

/// What ends the command other than by checking.
enum Failure {
    Usage(String),
    Server(String),
    Etcd(String),
}

/// Runs the command.
pub(crate) fn verify(args: &Verify, conf: Option<&Path>, port: u16) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args, conf, port)),
        Err(error) => Err(Failure::Usage(format!("cannot start: {error}"))),
    };
    let (code, what) = match result {
        Ok(checks) => {
            let failed = checks
                .iter()
                .any(|check| matches!(check.verdict, Verdict::Failed(_)));
            return ExitCode::from(u8::from(failed));
        }
        Err(Failure::Server(what)) => (2, what),
        Err(Failure::Etcd(what)) => (3, what),
        Err(Failure::Usage(what)) => (64, what),
    };
    eprintln!("skeindns verify: {what}");
    ExitCode::from(code)
}

async fn run(args: &Verify, conf: Option<&Path>, port: u16) -> Result<Vec<Check>, Failure> {
    let settings = Settings::read(args, conf, port)?;
    let (v3, v2) = settings.clients.clone();
    let store = Store::choose(settings.api, v3, v2, &settings.prefix).await;
    let store = store.map_err(|error| settings.etcd(&error))?;
    let state = State::read(&store, &settings.prefix).await;
    let state = state.map_err(|error| settings.etcd(&error))?;
    let names = state.model.names();
    let mut zones = settings.zones.clone();
    let mut notes = Vec::new();
    let silent = |silence| settings.server(&silence);
    if zones.is_empty() {
        zones = zones::discover(&settings.how, &names, &settings.rules)
            .await
            .map_err(silent)?;
    }
    if args.answers.is_none() && conf.is_none() {
        zones::recognize(&settings.how, &mut zones, args.default_ttl)
            .await
            .map_err(silent)?;
    }
    zones::add_reverse(&mut zones);
    if zones.is_empty() {
        let server = settings.how.server;
        return Err(Failure::Usage(format!(
            "{server} answers none of the {} keys below {} as an authority; name the zone with --domain, or another server with --server",
            state.model.len(),
            settings.prefix
        )));
    }
    let types = types(&args.types)?;
    let tasks = match (args.all, args.name.as_slice()) {
        (true, _) => all(&zones, &state, &names, &types, &mut notes),
        (false, []) => quick(&zones, &state, &types),
        (false, names) => named(names, &zones, &types)?,
    };
    let checker = Checker {
        store: &store,
        prefix: &settings.prefix,
        zones,
        how: settings.how,
        ttl: args.ttl,
    };
    let bar = progress(tasks.len());
    let checked = checker.run(&state, &tasks, &bar).await;
    bar.finish_and_clear();
    let mut checks = checked.map_err(|broken| match broken {
        Broken::Server(silence) => settings.server(&silence),
        Broken::Etcd(error) => settings.etcd(&error),
    })?;
    if !args.all
        && args.name.is_empty()
        && let Some(zone) = checker.zones.first()
    {
        checks.extend(quick::others(&settings.how, zone, &args.forwarded).await);
    }
    report::report(&checks, &notes, args.format, !args.all || args.verbose)
        .map_err(|error| Failure::Usage(format!("cannot write: {error}")))?;
    Ok(checks)
}

/// Where everything is.
struct Settings {
    api: Api,
    clients: (Client, V2Client),
    prefix: String,
    how: How,
    zones: Vec<Zone>,
    rules: Rules,
}

impl Settings {
    fn read(args: &Verify, conf: Option<&Path>, port: u16) -> Result<Settings, Failure> {
        let lines = match conf {
            None => Vec::new(),
            Some(path) => lines(path, port).map_err(Failure::Usage)?,
        };
        let first = lines.first().cloned().unwrap_or_default();
        let config = args
            .cluster
            .config(&first.cluster)
            .map_err(Failure::Usage)?;
        let prefix = args
            .cluster
            .prefix(&first.cluster)
            .map_err(Failure::Usage)?;
        let server = match &args.server {
            Some(text) => server_address(text, port).map_err(Failure::Usage)?,
            None => first
                .server
                .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        };
        let timeout = parse_duration(&args.timeout)
            .ok()
            .filter(|timeout| !timeout.is_zero());
        let timeout = timeout.ok_or_else(|| {
            Failure::Usage(format!(
                "--timeout {}: write a duration like 2s",
                args.timeout
            ))
        })?;
        let rules = rules(args, &first);
        let zones = match args.domain.is_empty() {
            false => zones::named(&args.domain, &rules).map_err(Failure::Usage)?,
            true => of_lines(args, &lines, &first)?,
        };
        Ok(Settings {
            api: args.api.unwrap_or(match first.word("api") {
                Some("v2") => Api::V2,
                Some("v3") => Api::V3,
                None if conf.is_some() => Api::V3,
                _ => Api::Auto,
            }),
            clients: Store::clients(&config).map_err(Failure::Usage)?,
            prefix,
            how: How {
                server,
                timeout,
                tcp: args.tcp,
                udp_octets: Some(UDP_OCTETS),
                dnssec: false,
            },
            zones,
            rules,
        })
    }

    fn server(&self, silence: &Silence) -> Failure {
        Failure::Server(format!(
            "{}: {silence}; is the server running there? Name another with --server",
            self.how.server
        ))
    }

    fn etcd(&self, error: &Error) -> Failure {
        Failure::Etcd(format!(
            "{error}; name the cluster with --endpoint or ETCD_ENDPOINTS, and see `skeindns doctor`"
        ))
    }
}

fn lines(path: &Path, port: u16) -> Result<Vec<EtcdLine>, String> {
    let file = etcd_lines::read(path)?;
    let folder: PathBuf = path.parent().map(Into::into).unwrap_or_default();
    let lines = etcd_lines::of(&file, &folder, port);
    match lines.is_empty() {
        true => Err(format!("{} has no `etcd` line", path.display())),
        false => Ok(lines),
    }
}

/// The zones of all lines that read the same keys as the first.
fn of_lines(args: &Verify, lines: &[EtcdLine], first: &EtcdLine) -> Result<Vec<Zone>, Failure> {
    let same = |a: &FromFile, b: &FromFile| a.endpoints == b.endpoints && a.path == b.path;
    let mut zones = Vec::new();
    for line in lines
        .iter()
        .filter(|line| same(&line.cluster, &first.cluster))
    {
        let mut found = zones::named(&line.zones, &rules(args, line)).map_err(Failure::Usage)?;
        for zone in &mut found {
            zone.fallthrough = line.has("fallthrough");
            zone.fallthrough_nodata = line.has("fallthrough-nodata");
        }
        zones.extend(found);
    }
    Ok(zones)
}

fn rules(args: &Verify, line: &EtcdLine) -> Rules {
    let answers = match line.word("answers") {
        Some("skydns") => Answers::Skydns,
        _ => Answers::Coredns,
    };
    let default = Rules::like(args.answers.unwrap_or(answers));
    let subtree = match line.word("subtree") {
        Some("children") => Subtree::Children,
        Some("off") => Subtree::Off,
        _ => Subtree::On,
    };
    let wildcards = line.word("wildcards");
    let seconds = |option, default| line.seconds(option).unwrap_or(default);
    let number = |option: &str| line.word(option).and_then(|word| word.parse().ok());
    let local = line.word("local").and_then(|name| Name::parse(name).ok());
    Rules {
        subtree: args.subtree.unwrap_or(subtree),
        apex_is_own: line.word("apex") == Some("own"),
        query_wildcards: wildcards != Some("records"),
        record_wildcards: matches!(wildcards, Some("records" | "both")),
        ttl: args.default_ttl.unwrap_or(seconds("ttl", default.ttl)),
        min_ttl: seconds("min-ttl", default.min_ttl),
        priority: number("priority").unwrap_or(default.priority),
        lease_ttl: (
            seconds("min-lease-ttl", default.lease_ttl.0),
            seconds("max-lease-ttl", default.lease_ttl.1),
        ),
        local: local.map(|name| name.to_lowercase().as_wire().into()),
        ndots: number("ndots").map_or(default.ndots, usize::from),
        ..default
    }
}

/// The address in `--server`.
pub(crate) fn server_address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => Ok(address),
        (_, Ok(address)) => Ok(SocketAddr::new(address, port)),
        _ => Err(format!(
            "--server {text}: write an address like 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53"
        )),
    }
}

fn types(words: &[String]) -> Result<Vec<Rtype>, Failure> {
    let read = |word: &String| {
        let known = Rtype::parse(word).filter(|rtype| TYPES.contains(rtype));
        known.ok_or_else(|| {
            let all: Vec<String> = TYPES.iter().map(ToString::to_string).collect();
            Failure::Usage(format!("--type {word}: etcd holds {}", all.join(", ")))
        })
    };
    words.iter().map(read).collect()
}

/// The types that keys amount to.
const TYPES: [Rtype; 9] = [
    Rtype::SOA,
    Rtype::NS,
    Rtype::A,
    Rtype::AAAA,
    Rtype::CNAME,
    Rtype::SRV,
    Rtype::TXT,
    Rtype::MX,
    Rtype::PTR,
];

//--- Which questions -------------------------------------------------------------------------------

/// Every name that etcd has, in every type that it could have; and in each zone a name that does not exist.
fn all(
    zones: &[Zone],
    state: &State,
    names: &[Box<[u8]>],
    types: &[Rtype],
    notes: &mut Vec<String>,
) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut elsewhere = 0;
    for name in names {
        let Some(zone) = zones::zone_of(zones, name) else {
            elsewhere += 1;
            continue;
        };
        tasks.extend(questions(zones, zone, name, types));
    }
    // What is not there may be somebody else's: then nothing is known about it.
    tasks.retain(|task| {
        let zone = zones.get(task.zone).filter(|zone| zone.fallthrough_nodata);
        zone.is_none_or(|zone| {
            let answer = state.model.answer(zones, zone, &task.question);
            !answer.records.is_empty()
        })
    });
    for (at, zone) in zones
        .iter()
        .enumerate()
        .filter(|(_, zone)| !zone.fallthrough)
    {
        // The zone itself exists even if no key is in it.
        if names.binary_search(&zone.name).is_err() {
            tasks.extend(questions(zones, at, &zone.name, types));
        }
        let missing = quick::missing_name(zone);
        tasks.extend(missing.map(|name| Task {
            question: ask::Question::new(&name, Rtype::A),
            zone: at,
        }));
    }
    if elsewhere > 0 {
        let zones: Vec<String> = zones.iter().map(zones::text).collect();
        notes.push(format!(
            "{elsewhere} names are in no zone of this server ({}) and were not asked for",
            zones.join(" ")
        ));
    }
    if state.model.malformed > 0 {
        notes.push(format!(
            "{} keys have a value that cannot be read and answer nothing; see `skeindns doctor`",
            state.model.malformed
        ));
    }
    tasks
}

fn questions(zones: &[Zone], zone: usize, name: &[u8], types: &[Rtype]) -> Vec<Task> {
    let is_apex = zones
        .get(zone)
        .is_some_and(|zone| *zone.name == *name && !zone.is_apart);
    let reverse = quick::is_reverse(name);
    let wanted = TYPES.iter().filter(|rtype| match **rtype {
        Rtype::SOA | Rtype::NS => is_apex,
        Rtype::PTR => reverse,
        _ => !reverse,
    });
    let wanted = wanted.filter(|rtype| types.is_empty() || types.contains(rtype));
    let tasks = wanted.map(|rtype| Task {
        question: ask::Question::new(name, *rtype),
        zone,
    });
    tasks.collect()
}

fn quick(zones: &[Zone], state: &State, types: &[Rtype]) -> Vec<Task> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut tasks = quick::tasks(zones, &state.model, host.trim());
    for (at, zone) in zones
        .iter()
        .enumerate()
        .filter(|(_, zone)| !zone.fallthrough)
    {
        let missing = quick::missing_name(zone).filter(|_| !quick::is_reverse(&zone.name));
        tasks.extend(missing.map(|name| Task {
            question: ask::Question::new(&name, Rtype::A),
            zone: at,
        }));
    }
    tasks.retain(|task| types.is_empty() || types.contains(&task.question.rtype));
    tasks
}

fn named(names: &[String], zones: &[Zone], types: &[Rtype]) -> Result<Vec<Task>, Failure> {
    let mut tasks = Vec::new();
    for text in names {
        let name = Name::parse(text)
            .map_err(|error| Failure::Usage(format!("`{text}` is no domain name: {error}")))?;
        let name = name.to_lowercase();
        let Some(zone) = zones::zone_of(zones, name.as_wire()) else {
            let zones: Vec<String> = zones.iter().map(zones::text).collect();
            return Err(Failure::Usage(format!(
                "{text} is in no zone that the server answers from etcd ({}); name its zone with --domain",
                zones.join(" ")
            )));
        };
        tasks.extend(questions(zones, zone, name.as_wire(), types));
    }
    Ok(tasks)
}

/// A bar on a terminal, nothing elsewhere.
fn progress(len: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() || len < check::AT_ONCE {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} questions {per_sec} {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(len as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        let read = |text| {
            server_address(text, 53)
                .ok()
                .map(|address| address.to_string())
        };
        assert_eq!(read("192.0.2.1").as_deref(), Some("192.0.2.1:53"));
        assert_eq!(read("192.0.2.1:54").as_deref(), Some("192.0.2.1:54"));
        assert_eq!(read("2001:db8::1").as_deref(), Some("[2001:db8::1]:53"));
        assert_eq!(read("[2001:db8::1]").as_deref(), Some("[2001:db8::1]:53"));
        assert_eq!(
            read("[2001:db8::1]:54").as_deref(),
            Some("[2001:db8::1]:54")
        );
        assert_eq!(read("dns.example.org"), None);
    }

    #[test]
    fn types_are_those_of_records() {
        assert_eq!(
            types(&["a".into(), "PTR".into()]).ok(),
            Some(vec![Rtype::A, Rtype::PTR])
        );
        assert!(types(&["DS".into()]).is_err());
    }
}
