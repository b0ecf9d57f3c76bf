//! What the agent is told, from flags, the environment and a TOML file, checked as a whole: a [`Config`], or every error with its place.
//!
//! A flag beats its variable, a variable beats the file, the file beats the default. The table of settings is `settings.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use skein_plugins::etcd::{Client, Config as Etcd, Credentials, TlsFiles, parse_endpoint};
use skein_plugins::kit::options::{parse_seconds, show_duration};

use super::settings::{Kind, Register, SETTINGS, Setting};

/// The file that is read if it is there and no other is named.
const DEFAULT_FILE: &str = "/etc/skeindns/register.toml";
/// Octets of a configuration file: a thousand times what one needs.
const FILE_OCTETS_MAX: u64 = 1 << 20;
/// The shortest and the longest life of records whose writer is gone: etcd's own clock is good for seconds, and a day is no longer a lease.
const LEASE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(86_400);
/// Values of a list: more is a mistake.
const LIST_MAX: usize = 256;
/// What application the owner's mark is for: sixteen octets of ours, as systemd wants them.
const APPLICATION: [u8; 16] = [
    0x5b, 0x1e, 0x0c, 0x77, 0x8a, 0x42, 0x4d, 0x19, 0x9e, 0x33, 0x61, 0xd0, 0x2f, 0xa8, 0x54, 0x06,
];

/// Everything the agent is told.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) etcd: EtcdConfig,
    pub(super) api: Api,
    /// `/skydns/`: where all keys are.
    pub(super) prefix: String,
    /// In lower case, without the dot at the end; never empty. Reverse records lead to the first.
    pub(super) domains: Vec<String>,
    /// The name below the domain; without it the first label of the system's.
    pub(super) name: Option<String>,
    pub(super) aliases: Vec<String>,
    pub(super) layout: Layout,
    pub(super) nameserver: bool,
    pub(super) services: Vec<Service>,
    pub(super) text: Option<String>,
    pub(super) group: Option<String>,
    pub(super) filter: Filter,
    /// Zero is for ever, with `once` only.
    pub(super) lease_ttl: Duration,
    pub(super) keepalive: Duration,
    /// Seconds of the records' DNS TTL.
    pub(super) ttl: u64,
    pub(super) reverse: bool,
    pub(super) settle: Duration,
    pub(super) rescan: Duration,
    pub(super) on_conflict: OnConflict,
    pub(super) ptr_conflict: PtrConflict,
    /// Whose records are ours.
    pub(super) owner: String,
    /// Zero is for ever.
    pub(super) wait: Duration,
    pub(super) on_exit: OnExit,
    pub(super) once: bool,
    pub(super) print: bool,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) status_file: Option<PathBuf>,
}

/// How to reach etcd; printed without the password.
#[derive(Clone)]
pub(super) struct EtcdConfig(pub(super) Etcd);

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.endpoints)
    }
}

/// Which of etcd's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Auto,
    V3,
    V2,
}

/// How a host's addresses are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A key below the name for each address.
    Instances,
    /// The name's own key, for the one IPv4 address.
    Single,
}

/// What to do when another owner has records at our name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnConflict {
    Join,
    Takeover,
    Fail,
}

/// What to do when another owner has the reverse record of our address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PtrConflict {
    Keep,
    Replace,
    Fail,
}

/// What becomes of the records when the agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnExit {
    Remove,
    Keep,
    KeepForever,
}

/// Which of the system's addresses are registered.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// These and no others, whatever the system has.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) interfaces: Vec<String>,
    pub(super) exclude_interfaces: Vec<String>,
    pub(super) v4: bool,
    pub(super) v6: bool,
    pub(super) cidrs: Vec<IpNet>,
    pub(super) exclude_cidrs: Vec<IpNet>,
    pub(super) temporary: bool,
    pub(super) primary_only: bool,
}

/// A service that this machine offers.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    /// Below the domain, perhaps of several labels: `_http._tcp`.
    pub(super) name: String,
    pub(super) port: u16,
    #[serde(default)]
    pub(super) priority: Option<u16>,
    #[serde(default)]
    pub(super) weight: Option<u16>,
    #[serde(default)]
    pub(super) text: Option<String>,
}

/// What the process was started with, so that a test can say it.
pub(super) struct Surroundings {
    /// The environment.
    pub(super) variables: BTreeMap<String, String>,
    /// Files that say which machine this is, the first that there is.
    pub(super) machine_id: Vec<PathBuf>,
    /// The file that is read if none is named.
    pub(super) default_file: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn of_process() -> Surroundings {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Surroundings {
            variables: variables.collect(),
            machine_id: vec!["/etc/machine-id".into(), "/var/lib/dbus/machine-id".into()],
            default_file: DEFAULT_FILE.into(),
        }
    }
}

/// Where a value was written.
#[derive(Clone, Debug)]
enum Place {
    Flag,
    Variable(String),
    File(PathBuf, usize),
}

/// A value and where it was written.
#[derive(Clone, Debug)]
struct Given {
    text: String,
    place: Place,
}

/// The values of all settings that were given, each from the source that counts.
struct Sources {
    given: BTreeMap<&'static str, Vec<Given>>,
    variables: BTreeMap<String, String>,
    errors: Vec<String>,
}

impl Config {
    /// Reads and checks everything.
    pub(super) fn read(flags: &Register, around: &Surroundings) -> Result<Config, Vec<String>> {
        let mut sources = Sources::collect(flags, around);
        let config = Config::check(&mut sources, around);
        if sources.errors.is_empty()
            && let Err(what) = Client::new(&config.etcd.0)
        {
            // The files of TLS are read here, so that a wrong one is an error now and not an outage later.
            sources.errors.push(format!("cannot use etcd: {what}"));
        }
        match sources.errors.is_empty() {
            true => Ok(config),
            false => Err(sources.errors),
        }
    }

    /// Wrong values leave an error behind and count as not given, so that all errors are found at once.
    fn check(from: &mut Sources, around: &Surroundings) -> Config {
        let once = from.switch("once", false);
        let domains = from.domains();
        let name = from.name(&domains);
        let (lease_ttl, keepalive, ttl) = from.times(once);
        let layout = from.word(
            "layout",
            &[("instances", Layout::Instances), ("single", Layout::Single)],
        );
        let mut filter = from.filter();
        if layout == Layout::Single {
            if filter.v6 && from.is_given("family") && !filter.v4 {
                let place = from.place("family");
                from.errors.push(format!("{place}: --layout single holds one IPv4 address; write --family 4, or --layout instances"));
            }
            filter.v6 = false;
        }
        let services = from.services();
        let text = from.one("text", |text| match text.len() {
            0 => Err("it is empty".to_owned()),
            1..=255 => Ok(text.to_owned()),
            _ => Err("a text of more than 255 octets".to_owned()),
        });
        Config {
            etcd: EtcdConfig(from.etcd()),
            api: from.word(
                "etcd-api",
                &[("auto", Api::Auto), ("v3", Api::V3), ("v2", Api::V2)],
            ),
            prefix: from.prefix(),
            aliases: from.list("alias", |text| {
                relative(text, &domains, Underscore::Refused)
            }),
            domains,
            name,
            layout,
            nameserver: from.switch("nameserver", false),
            services,
            text,
            group: from.one("group", |text| match text {
                "" => Err("it is empty".to_owned()),
                text if text.len() > 64 => Err("a group of more than 64 octets".to_owned()),
                text => Ok(text.to_owned()),
            }),
            filter,
            lease_ttl,
            keepalive,
            ttl,
            reverse: from.switch("reverse", true),
            settle: from.duration(
                "settle",
                Duration::from_secs(2),
                Duration::ZERO..=Duration::from_secs(60),
            ),
            rescan: from.duration(
                "rescan",
                Duration::from_secs(60),
                Duration::from_secs(1)..=Duration::from_secs(86_400),
            ),
            on_conflict: from.word(
                "on-conflict",
                &[
                    ("join", OnConflict::Join),
                    ("takeover", OnConflict::Takeover),
                    ("fail", OnConflict::Fail),
                ],
            ),
            ptr_conflict: from.word(
                "ptr-conflict",
                &[
                    ("keep", PtrConflict::Keep),
                    ("replace", PtrConflict::Replace),
                    ("fail", PtrConflict::Fail),
                ],
            ),
            owner: from.owner(&around.machine_id),
            wait: from.duration(
                "wait",
                Duration::ZERO,
                Duration::ZERO..=Duration::from_secs(30 * 86_400),
            ),
            on_exit: from.word(
                "on-exit",
                &[
                    ("remove", OnExit::Remove),
                    ("keep", OnExit::Keep),
                    ("keep-forever", OnExit::KeepForever),
                ],
            ),
            once,
            print: from.switch("print", false),
            metrics: from.one("metrics", |text| {
                skein_plugins::kit::options::parse_listen(text)
            }),
            status_file: from.one("status-file", absolute),
        }
    }
}

//--- Collecting ------------------------------------------------------------------------------------

/// `SKEIN_REGISTER_LEASE_TTL` for `lease-ttl`.
pub(super) fn variable_of(name: &str) -> String {
    format!("SKEIN_REGISTER_{}", name.to_uppercase().replace('-', "_"))
}

impl Sources {
    fn collect(flags: &Register, around: &Surroundings) -> Sources {
        let mut sources = Sources {
            given: BTreeMap::new(),
            variables: around.variables.clone(),
            errors: Vec::new(),
        };
        let flag = |setting: &Setting| -> Option<Vec<Given>> {
            let texts = flags.given(setting.name)?;
            let place = Place::Flag;
            Some(
                texts
                    .iter()
                    .map(|text| Given {
                        text: text.clone(),
                        place: place.clone(),
                    })
                    .collect(),
            )
        };
        let file = flag(&Setting::CONFIG)
            .or_else(|| sources.variable(&Setting::CONFIG))
            .and_then(|given| given.into_iter().next());
        sources.read_file(file, &around.default_file);
        for setting in SETTINGS {
            let given = flag(setting).or_else(|| sources.variable(setting));
            if let Some(given) = given {
                sources.given.insert(setting.name, given);
            }
        }
        sources.refuse_unknown_variables();
        sources
    }

    /// An empty variable counts as not set: that is how an environment file switches one off.
    fn variable(&self, setting: &Setting) -> Option<Vec<Given>> {
        let name = variable_of(setting.name);
        let value = self
            .variables
            .get(&name)
            .filter(|value| !value.trim().is_empty())?;
        let place = Place::Variable(name);
        let given = setting.split(value).into_iter().map(|text| Given {
            text,
            place: place.clone(),
        });
        Some(given.collect())
    }

    fn refuse_unknown_variables(&mut self) {
        let known = |name: &str| {
            SETTINGS
                .iter()
                .any(|setting| variable_of(setting.name) == name)
        };
        let unknown: Vec<String> = self
            .variables
            .keys()
            .filter(|name| name.starts_with("SKEIN_REGISTER_") && !known(name))
            .cloned()
            .collect();
        for name in unknown {
            let nearest = nearest(
                &name,
                SETTINGS.iter().map(|setting| variable_of(setting.name)),
            );
            self.errors
                .push(format!("{name}: there is no such setting{nearest}"));
        }
    }

    /// Reads the file that is named, or the default one if there is one.
    fn read_file(&mut self, named: Option<Given>, default: &Path) {
        let path = named
            .as_ref()
            .map_or_else(|| default.to_owned(), |given| given.text.clone().into());
        let text = match read_small(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return,
            Err(error) => {
                self.errors
                    .push(format!("{}: cannot be read: {error}", path.display()));
                return;
            }
        };
        let line_of = |at: usize| {
            let before = text.get(..at.min(text.len())).unwrap_or_default();
            before.matches('\n').count() + 1
        };
        let table = match toml::de::DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                let line = line_of(error.span().map_or(0, |span| span.start));
                let what = error
                    .message()
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                self.errors
                    .push(format!("{}:{line}: {what}", path.display()));
                return;
            }
        };
        for (key, value) in table.get_ref() {
            let line = line_of(key.span().start);
            let place = Place::File(path.clone(), line);
            let name: &str = key.get_ref();
            let in_file = SETTINGS.iter().filter(|setting| setting.in_file);
            match in_file.clone().find(|setting| setting.name == name) {
                Some(setting) => match texts(setting, value.get_ref()) {
                    Ok(texts) => {
                        let given = texts.into_iter().map(|text| Given {
                            text,
                            place: place.clone(),
                        });
                        self.given.insert(setting.name, given.collect());
                    }
                    Err(what) => self
                        .errors
                        .push(format!("{}:{line}: {name}: {what}", path.display())),
                },
                None => {
                    let nearest = nearest(name, in_file.map(|setting| setting.name.to_owned()));
                    self.errors.push(format!(
                        "{}:{line}: `{name}`: there is no such setting{nearest}",
                        path.display()
                    ));
                }
            }
        }
    }
}

/// A value of the file as the texts that flags would have.
fn texts(setting: &Setting, value: &toml::de::DeValue<'_>) -> Result<Vec<String>, String> {
    use toml::de::DeValue;
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Boolean(yes) => Ok(yes.to_string()),
        other => Err(format!(
            "a {} is not expected here; write a text in quotes",
            other.type_str()
        )),
    };
    match value {
        DeValue::Array(values) if setting.kind == Kind::List => {
            values.iter().map(|value| scalar(value.get_ref())).collect()
        }
        DeValue::Array(_) => Err("it has one value, not a list".to_owned()),
        DeValue::String(text) => Ok(setting.split(text)),
        value => Ok(vec![scalar(value)?]),
    }
}

/// `; did you mean …?` if something is near enough.
fn nearest(word: &str, known: impl Iterator<Item = String>) -> String {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    let best = known
        .map(|name| (distance(&word, &plain(&name)), name))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    best.map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

/// Letters to change, add or leave out to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (b, cell) in other.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            let changed = corner + usize::from(a != *b);
            left = changed.min(above + 1).min(left + 1);
            corner = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// A file of a size that makes sense, as text.
pub(super) fn read_small(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(FILE_OCTETS_MAX + 1)
        .read_to_string(&mut text)?;
    match text.len() as u64 > FILE_OCTETS_MAX {
        true => Err(std::io::Error::other("larger than 1 MiB")),
        false => Ok(text),
    }
}

//--- Checking --------------------------------------------------------------------------------------

impl Sources {
    fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    fn place(&self, name: &str) -> String {
        match self.given.get(name).and_then(|given| given.first()) {
            Some(given) => show(name, given),
            None => format!("--{name}"),
        }
    }

    fn list<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let given = self.given.get(name).cloned().unwrap_or_default();
        if given.len() > LIST_MAX {
            self.errors
                .push(format!("--{name}: more than {LIST_MAX} values"));
        }
        let mut values = Vec::new();
        for given in given.iter().take(LIST_MAX) {
            match read(given.text.trim()) {
                Ok(value) => values.push(value),
                Err(what) => self.errors.push(format!("{}: {what}", show(name, given))),
            }
        }
        values
    }

    fn one<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.list(name, read).pop()
    }

    fn switch(&mut self, name: &str, default: bool) -> bool {
        let value = self.one(name, |text| match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("write true or false".to_owned()),
        });
        value.unwrap_or(default)
    }

    /// One of some words; the first is the default.
    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> T {
        let value = self.one(name, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                format!("write one of {}", words.join(", "))
            })
        });
        match words {
            [(_, first), ..] => value.unwrap_or(*first),
            [] => unreachable!("every setting of this kind has words"),
        }
    }

    fn duration(
        &mut self,
        name: &str,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let value = self.one(name, |text| {
            let value = parse_seconds(text)?;
            match range.contains(&value) {
                true => Ok(value),
                false => Err(format!(
                    "it is from {} to {}",
                    show_duration(*range.start()),
                    show_duration(*range.end())
                )),
            }
        });
        value.unwrap_or(default)
    }

    fn etcd(&mut self) -> Etcd {
        let mut endpoints = self.list("etcd", |url| parse_endpoint(url, "http"));
        for name in ["ETCD_ENDPOINTS", "ETCD_MACHINES"] {
            if !endpoints.is_empty() || self.is_given("etcd") {
                break;
            }
            let value = self.variables.get(name).cloned().unwrap_or_default();
            for url in value
                .split(',')
                .map(str::trim)
                .filter(|url| !url.is_empty())
            {
                match parse_endpoint(url, "http") {
                    Ok(url) => endpoints.push(url),
                    Err(what) => self.errors.push(format!("{name}: {what}")),
                }
            }
        }
        if endpoints.is_empty() {
            endpoints.push("http://127.0.0.1:2379".to_owned());
        }
        let ca = self.file("tls-ca", "ETCD_CACERT");
        let certificate = self.file("tls-cert", "ETCD_TLSPEM");
        let key = self.file("tls-key", "ETCD_TLSKEY");
        if certificate.is_some() != key.is_some() {
            self.errors
                .push("--tls-cert and --tls-key are given together".to_owned());
        }
        Etcd {
            endpoints,
            credentials: self.credentials(),
            tls: TlsFiles {
                ca,
                identity: certificate.zip(key),
            },
        }
    }

    /// A setting, else the variable that SkyDNS has for it.
    fn file(&mut self, name: &str, variable: &str) -> Option<PathBuf> {
        let given = self.one(name, |text| Ok(PathBuf::from(text)));
        given.or_else(|| {
            let value = self.variables.get(variable)?;
            (!value.is_empty()).then(|| PathBuf::from(value))
        })
    }

    fn credentials(&mut self) -> Option<Credentials> {
        let user = self.one("username", |text| Ok(text.to_owned()));
        let user = user.or_else(|| {
            self.variables
                .get("ETCD_USERNAME")
                .filter(|user| !user.is_empty())
                .cloned()
        })?;
        let named = self.one("password-file", |text| Ok(PathBuf::from(text)));
        let password = match named {
            Some(path) => match read_small(&path) {
                Ok(text) => Some(text),
                Err(error) => {
                    self.errors
                        .push(format!("--password-file: {}: {error}", path.display()));
                    Some(String::new())
                }
            },
            // What `LoadCredential=etcd-password:…` of the unit makes.
            None => self.variables.get("ETCD_PASSWORD").cloned().or_else(|| {
                let folder = self.variables.get("CREDENTIALS_DIRECTORY")?;
                read_small(&Path::new(folder).join("etcd-password")).ok()
            }),
        };
        let Some(password) = password else {
            self.errors.push("--username: a password is needed as well; write --password-file FILE, or set ETCD_PASSWORD".to_owned());
            return None;
        };
        Some(Credentials {
            user,
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
        })
    }

    fn prefix(&mut self) -> String {
        let prefix = self.one("path-prefix", |text| {
            let path = text.trim_matches('/');
            let segments = path.split('/');
            match segments
                .clone()
                .all(|segment| !segment.is_empty() && !segment.contains(['\0', ' ']))
            {
                true => Ok(format!("/{path}/")),
                false => Err(
                    "write segments with slashes between them, like skydns or dns/site1".to_owned(),
                ),
            }
        });
        prefix.unwrap_or_else(|| "/skydns/".to_owned())
    }

    fn domains(&mut self) -> Vec<String> {
        let mut domains = self.list("domain", |text| dotted(text, Underscore::Allowed));
        if domains.is_empty() {
            domains.push("skydns.local".to_owned());
        }
        let mut seen = Vec::new();
        domains.retain(|domain| {
            let new = !seen.contains(domain);
            seen.push(domain.clone());
            new
        });
        domains
    }

    fn name(&mut self, domains: &[String]) -> Option<String> {
        let hostname = self.one("hostname", |text| {
            let name = relative(text, domains, Underscore::Refused)?;
            match name.contains('.') {
                true => Err(format!(
                    "it has several labels; write --name {name} if that is meant"
                )),
                false => Ok(name),
            }
        });
        let name = self.one("name", |text| relative(text, domains, Underscore::Refused));
        if name.is_some() && hostname.is_some() {
            let place = self.place("name");
            self.errors.push(format!(
                "{place}: --hostname says the name already; write one of them"
            ));
        }
        name.or(hostname)
    }

    fn times(&mut self, once: bool) -> (Duration, Duration, u64) {
        let lease = self.one("lease-ttl", |text| match parse_seconds(text)? {
            Duration::ZERO if once => Ok(Duration::ZERO),
            Duration::ZERO => Err("records for ever are for --once; write at least 10s".to_owned()),
            ttl if LEASE.contains(&ttl) => Ok(Duration::from_secs(ttl.as_secs())),
            _ => Err("it is from 10s to 24h, or 0 with --once for records that stay".to_owned()),
        });
        let lease = lease.unwrap_or(Duration::from_secs(60));
        let second = Duration::from_secs(1);
        // Two renewals have to fit, or one that is lost loses the records.
        let keepalive_max = (lease / 2).max(second);
        let keepalive = self.one("keepalive", |text| match parse_seconds(text)? {
            every if every >= second && every <= keepalive_max => Ok(every),
            _ => Err(format!(
                "it is from 1s to half of --lease-ttl, {}",
                show_duration(keepalive_max)
            )),
        });
        let ttl_max = if lease.is_zero() {
            86_400
        } else {
            lease.as_secs()
        };
        let ttl = self.one("ttl", |text| match parse_seconds(text)?.as_secs() {
            ttl if (1..=ttl_max).contains(&ttl) => Ok(ttl),
            _ => Err(format!(
                "it is from 1s to {ttl_max}s: resolvers must not keep a record longer than it lives"
            )),
        });
        let default = if lease.is_zero() {
            30
        } else {
            (lease.as_secs() / 2).min(30)
        };
        (
            lease,
            keepalive.unwrap_or(lease / 3),
            ttl.unwrap_or(default),
        )
    }

    fn filter(&mut self) -> Filter {
        let net = |text: &str| -> Result<IpNet, String> {
            let net: Option<IpNet> = text.parse().ok();
            let host = || text.parse().ok().map(|address: IpAddr| address.into());
            net.or_else(host)
                .ok_or_else(|| "write a network like 10.10.0.0/16 or 2001:db8::/32".to_owned())
        };
        let glob = |text: &str| match text {
            "" => Err("it is empty".to_owned()),
            text if text.contains('/') => Err("interfaces have no slash".to_owned()),
            text => Ok(text.to_owned()),
        };
        let (v4, v6) = self.word(
            "family",
            &[
                ("both", (true, true)),
                ("4", (true, false)),
                ("6", (false, true)),
            ],
        );
        let addresses = self.list("address", |text| {
            let address: IpAddr = text
                .parse()
                .map_err(|_| "write an address like 10.10.10.201 or 2001:db8::1".to_owned())?;
            match address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                true => Err("no other machine reaches this one by it".to_owned()),
                false => Ok(address),
            }
        });
        let filter = Filter {
            addresses,
            interfaces: self.list("interface", glob),
            exclude_interfaces: self.list("exclude-interface", glob),
            v4,
            v6,
            cidrs: self.list("cidr", net),
            exclude_cidrs: self.list("exclude-cidr", net),
            temporary: self.switch("ipv6-temporary", false),
            primary_only: self.switch("primary-only", false),
        };
        if !filter.addresses.is_empty() {
            for other in [
                "interface",
                "exclude-interface",
                "primary-only",
                "cidr",
                "exclude-cidr",
            ] {
                if self.is_given(other) {
                    let place = self.place(other);
                    self.errors.push(format!(
                        "{place}: --address says all addresses already; leave one out"
                    ));
                }
            }
        }
        filter
    }

    fn services(&mut self) -> Vec<Service> {
        let mut services = self.list("service", read_service);
        let folder = self.one("service-dir", |text| Ok(PathBuf::from(text)));
        if let Some(folder) = folder {
            match read_services(&folder) {
                Ok(more) => services.extend(more),
                Err(what) => self.errors.push(what),
            }
        }
        let mut names: Vec<(&str, u16)> = services
            .iter()
            .map(|service| (service.name.as_str(), service.port))
            .collect();
        names.sort_unstable();
        let twice: Vec<String> = names
            .windows(2)
            .filter_map(|pair| match pair {
                [(one, _), (other, _)] if one == other => {
                    Some(format!("--service {one}: it is there twice"))
                }
                _ => None,
            })
            .collect();
        self.errors.extend(twice);
        services
    }

    fn owner(&mut self, machine_id: &[PathBuf]) -> String {
        let given = self.one("instance-id", |text| {
            match (1..=64).contains(&text.len())
                && text
                    .bytes()
                    .all(|octet| octet.is_ascii_graphic() && octet != b'"' && octet != b'\\')
            {
                true => Ok(text.to_owned()),
                false => Err("write 1 to 64 letters, digits or signs".to_owned()),
            }
        });
        if let Some(given) = given {
            return given;
        }
        let found = machine_id.iter().find_map(|path| {
            let text = read_small(path).ok()?;
            let text = text.trim();
            (text.len() >= 16).then(|| owner_of(text))
        });
        found.unwrap_or_else(|| {
            self.errors.push("--instance-id: this machine has no /etc/machine-id; write something that no other machine has".to_owned());
            String::new()
        })
    }
}

/// The machine's number is a secret of sorts, so what is published is its keyed hash, as in machine-id(5).
fn owner_of(machine_id: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, machine_id.as_bytes());
    let hash = ring::hmac::sign(&key, &APPLICATION);
    let half = hash.as_ref().get(..16).unwrap_or_default();
    data_encoding::HEXLOWER.encode(half)
}

/// `--lease-ttl 5s`, `SKEIN_REGISTER_LEASE_TTL=5s`, `/etc/skeindns/register.toml:3: lease-ttl = 5s`.
fn show(name: &str, given: &Given) -> String {
    match &given.place {
        Place::Flag => format!("--{name} {}", given.text),
        Place::Variable(variable) => format!("{variable}={}", given.text),
        Place::File(path, line) => format!("{}:{line}: {name} = {:?}", path.display(), given.text),
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    match text.starts_with('/') {
        true => Ok(PathBuf::from(text)),
        false => Err("write a path that begins with a slash".to_owned()),
    }
}

/// `name:port[:priority[:weight]]`.
fn read_service(text: &str) -> Result<Service, String> {
    let number = |text: &str, what: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("`{text}` is no {what}; write name:port[:priority[:weight]], like web:80 or _http._tcp:80:10:100"))
    };
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let port = parts
        .next()
        .ok_or("it has no port; write name:port, like web:80")?;
    let service = Service {
        name: dotted(name, Underscore::Allowed)?,
        port: number(port, "port")?,
        priority: parts
            .next()
            .map(|text| number(text, "priority"))
            .transpose()?,
        weight: parts
            .next()
            .map(|text| number(text, "weight"))
            .transpose()?,
        text: None,
    };
    match parts.next() {
        Some(extra) => Err(format!(
            "`{extra}` is too much; write name:port[:priority[:weight]]"
        )),
        None => Ok(service),
    }
}

/// The services of a folder's `*.json` files: each an object or a list of them.
fn read_services(folder: &Path) -> Result<Vec<Service>, String> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Content {
        Many(Vec<Service>),
        One(Service),
    }
    let cannot = |what: &dyn fmt::Display| format!("--service-dir {}: {what}", folder.display());
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|error| cannot(&error))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .take(LIST_MAX)
        .collect();
    files.sort();
    let mut services = Vec::new();
    for file in files {
        let bad = |what: &dyn fmt::Display| format!("{}: {what}", file.display());
        let text = read_small(&file).map_err(|error| bad(&error))?;
        // An object's own error says more than that of the choice between the two.
        let content = match text.trim_start().starts_with('[') {
            true => serde_json::from_str(&text).map(Content::Many),
            false => serde_json::from_str(&text).map(Content::One),
        };
        let found = match content.map_err(|error| bad(&error))? {
            Content::Many(many) => many,
            Content::One(one) => vec![one],
        };
        for mut service in found {
            service.name = dotted(&service.name, Underscore::Allowed).map_err(|what| bad(&what))?;
            if service.text.as_ref().is_some_and(|text| text.len() > 255) {
                return Err(bad(&"a text of more than 255 octets"));
            }
            services.push(service);
        }
    }
    match services.len() > LIST_MAX {
        true => Err(cannot(&format_args!("more than {LIST_MAX} services"))),
        false => Ok(services),
    }
}

//--- Names -----------------------------------------------------------------------------------------

/// Whether a label may begin with an underscore, as those of services do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Underscore {
    Allowed,
    Refused,
}

/// A name of labels that hosts may have (RFC 1123 §2.1), in lower case without the dot at the end.
fn dotted(text: &str, underscore: Underscore) -> Result<String, String> {
    let name = text.trim_end_matches('.').to_lowercase();
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.len() > 253 {
        return Err("a name of more than 253 octets".to_owned());
    }
    for label in name.split('.') {
        let plain = match underscore {
            Underscore::Allowed => label.strip_prefix('_').unwrap_or(label),
            Underscore::Refused => label,
        };
        check_label(plain).map_err(|what| format!("`{label}` {what}"))?;
    }
    Ok(name)
}

fn check_label(label: &str) -> Result<(), &'static str> {
    match label {
        "" => Err("is an empty label"),
        // Whoever asks for it asks for all names at its place.
        "any" => Err("stands for every name in a query and cannot be registered"),
        _ if label.len() > 63 => Err("has more than 63 octets"),
        _ if label.starts_with('-') || label.ends_with('-') => Err("begins or ends with a hyphen"),
        _ if !label
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') =>
        {
            Err("has other signs than letters, digits and hyphens")
        }
        _ => Ok(()),
    }
}

/// A name below the domain; one that has the domain at its end is accepted without it.
fn relative(text: &str, domains: &[String], underscore: Underscore) -> Result<String, String> {
    let name = dotted(text, underscore)?;
    let below = domains
        .iter()
        .find_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'));
    let name = below.unwrap_or(&name).to_owned();
    match name == "dns" || name.ends_with(".dns") {
        // Name servers and stub zones are there.
        true => Err("what is below dns is the server's own".to_owned()),
        false => Ok(name),
    }
}

/// The first label of the system's name, if a host may have it.
pub(super) fn name_of_system(system: &str) -> Result<String, String> {
    let first = system
        .trim()
        .split('.')
        .next()
        .unwrap_or_default()
        .to_lowercase();
    let bad = |what: &str| {
        format!(
            "the system's host name `{}` {what}; write --hostname NAME",
            system.trim()
        )
    };
    match first.as_str() {
        "" | "localhost" | "(none)" | "dns" => Err(bad("names no machine")),
        first => match check_label(first) {
            Ok(()) => Ok(first.to_owned()),
            Err(what) => Err(bad(what)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(variables: &[(&str, &str)], file: &Path) -> Result<Config, Vec<String>> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut variables: BTreeMap<String, String> = variables.collect();
        variables
            .entry("SKEIN_REGISTER_INSTANCE_ID".into())
            .or_insert("us".into());
        let around = Surroundings {
            variables,
            machine_id: Vec::new(),
            default_file: file.to_owned(),
        };
        Config::read(&Register::default(), &around)
    }

    /// One variable, and what is said about it.
    fn check(name: &str, value: &str, expected: &str) {
        let variable = variable_of(name);
        let errors = read(&[(&variable, value)], Path::new("/nowhere")).expect_err(value);
        let expected = format!("{variable}={expected}");
        assert_eq!(errors, [expected]);
    }

    #[test]
    fn a_wrong_value_is_told_what_to_write_instead() {
        check(
            "etcd",
            "ftp://x",
            "ftp://x: `ftp://x`: an endpoint starts with http:// or https://, not ftp://",
        );
        check("etcd-api", "v4", "v4: write one of auto, v3, v2");
        check(
            "hostname",
            "a.b",
            "a.b: it has several labels; write --name a.b if that is meant",
        );
        check(
            "hostname",
            "any",
            "any: `any` stands for every name in a query and cannot be registered",
        );
        check(
            "name",
            "x.ns.dns",
            "x.ns.dns: what is below dns is the server's own",
        );
        check("alias", "-a", "-a: `-a` begins or ends with a hyphen");
        check("domain", "a..b", "a..b: `` is an empty label");
        check(
            "address",
            "127.0.0.1",
            "127.0.0.1: no other machine reaches this one by it",
        );
        check(
            "cidr",
            "10/8",
            "10/8: write a network like 10.10.0.0/16 or 2001:db8::/32",
        );
        check(
            "lease-ttl",
            "2d",
            "2d: unknown unit `d` in `2d`; units are ns, us, ms, s, m, h",
        );
        check(
            "lease-ttl",
            "0",
            "0: records for ever are for --once; write at least 10s",
        );
        check(
            "keepalive",
            "40s",
            "40s: it is from 1s to half of --lease-ttl, 30s",
        );
        check(
            "service",
            "web:80:1:2:3",
            "web:80:1:2:3: `3` is too much; write name:port[:priority[:weight]]",
        );
        check(
            "service",
            "web:99999",
            "web:99999: `99999` is no port; write name:port[:priority[:weight]], like web:80 or _http._tcp:80:10:100",
        );
        check("reverse", "maybe", "maybe: write true or false");
        check(
            "status-file",
            "state",
            "state: write a path that begins with a slash",
        );
        check(
            "path-prefix",
            "a//b",
            "a//b: write segments with slashes between them, like skydns or dns/site1",
        );
    }

    #[test]
    fn what_is_given_is_taken_from_the_strongest_source() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("register.toml");
        std::fs::write(
            &file,
            "ttl = 7\nrescan = \"5m\"\ndomain = [\"A.example.\", \"b.example\"]\n",
        )
        .expect("our folder");
        let variables = [
            ("SKEIN_REGISTER_RESCAN", "9s"),
            ("SKEIN_REGISTER_TTL", ""),
            ("SKEIN_REGISTER_HOSTNAME", "Node1.b.Example"),
            ("ETCD_MACHINES", "http://192.0.2.1:2379, 192.0.2.2"),
            ("ETCD_USERNAME", "me"),
            ("ETCD_PASSWORD", "secret\n"),
        ];
        let config = read(&variables, &file).expect("good settings");
        assert_eq!(config.ttl, 7);
        assert_eq!(config.rescan, Duration::from_secs(9));
        assert_eq!(config.domains, ["a.example", "b.example"]);
        assert_eq!(config.name.as_deref(), Some("node1"));
        assert_eq!(config.lease_ttl, Duration::from_secs(60));
        assert_eq!(config.keepalive, Duration::from_secs(20));
        let etcd = &config.etcd.0;
        assert_eq!(
            etcd.endpoints,
            ["http://192.0.2.1:2379", "http://192.0.2.2:2379"]
        );
        let credentials = etcd.credentials.clone().expect("a user");
        assert_eq!(
            (credentials.user.as_str(), credentials.password.as_str()),
            ("me", "secret")
        );
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn services_of_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        std::fs::write(path.join("a.json"), r#"{"name": "web", "port": 80}"#).expect("ours");
        std::fs::write(
            path.join("b.json"),
            r#"[{"name": "_ssh._tcp", "port": 22, "weight": 5}]"#,
        )
        .expect("ours");
        std::fs::write(path.join("c.txt"), "not one of them").expect("ours");
        let services = read_services(path).expect("good files");
        let names: Vec<&str> = services
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        assert_eq!(names, ["web", "_ssh._tcp"]);
        std::fs::write(path.join("b.json"), r#"{"name": "x", "prot": 22}"#).expect("ours");
        let what = read_services(path).expect_err("a wrong field");
        assert!(what.contains("b.json: unknown field `prot`"), "{what}");
    }

    #[test]
    fn names_of_systems() {
        assert_eq!(
            name_of_system("Node1.example.org\n").as_deref(),
            Ok("node1")
        );
        for bad in ["", "localhost", "(none)", "a_b", "dns"] {
            let what = name_of_system(bad).expect_err(bad);
            assert!(what.contains("--hostname"), "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_file_and_no_variable_panics(text in "\\PC{0,60}", name in 0..SETTINGS.len(), value in "\\PC{0,20}") {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("register.toml");
            let setting = &SETTINGS[name];
            std::fs::write(&file, format!("{} = {value}\n{text}", setting.name)).expect("our folder");
            read(&[(&variable_of(setting.name), &value)], &file).ok();
        }
    }
}
