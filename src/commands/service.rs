//! `skeindns service`: puts, shows, deletes, watches and moves records in etcd, or in the store of a server with `embedded`.
//!
//! A name is a key: `x.skydns.local` is `/skydns/local/skydns/x`. Exit codes: 0, 1 not found, 2 usage, 3 backend.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use data_encoding::BASE64;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use skein_plugins::etcd::{
    Client, Config, Credentials, Error, Event, KeyRange, KeyValue, ListRequest, Operation,
    TlsFiles, WatchRequest, parse_endpoint,
};
use skein_plugins::kit::options::parse_duration;
use skein_plugins::kit::wire::{Name, name};

const EXAMPLES: &str = "\
Examples:
  skeindns service put node1.skydns.local --host 192.0.2.11
  skeindns service put 11.2.0.192.in-addr.arpa --host node1.skydns.local
  skeindns service put a.web.skydns.local --host 192.0.2.11 --port 80 --lease 60s
  skeindns service list skydns.local
  skeindns service export - | skeindns service import - --endpoint http://192.0.2.201:2379

Exit codes: 0 done, 1 not found, 2 usage, 3 the store cannot be used.";

/// Entries of a transaction; etcd takes 128.
const BATCH: usize = 100;
/// Octets of a line to import: etcd's largest value in base64, with room for its key.
const LINE_OCTETS_MAX: u64 = 4 << 20;

/// Records in etcd or in the embedded store.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Service {
    #[command(subcommand)]
    action: Action,

    /// URLs of the cluster's members, with commas; without it ETCD_ENDPOINTS, then ETCD_MACHINES, then http://127.0.0.1:2379
    #[arg(long, value_name = "URL,…", value_delimiter = ',', global = true)]
    endpoint: Vec<String>,

    /// First part of every key
    #[arg(long, default_value = "skydns", global = true)]
    path: String,

    /// How to print
    #[arg(long, value_enum, default_value = "text", global = true)]
    output: Output,

    /// CA certificates to check the members against (https); the system's without it
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,

    /// Our certificate, with --key
    #[arg(long, value_name = "FILE", global = true, requires = "key")]
    cert: Option<PathBuf>,

    /// Our certificate's key
    #[arg(long, value_name = "FILE", global = true, requires = "cert")]
    key: Option<PathBuf>,

    /// User of etcd; the password is read from ETCD_PASSWORD
    #[arg(long, value_name = "NAME", global = true, env = "ETCD_USERNAME")]
    user: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Write a record; what was at the name before is replaced
    Put(Put),
    /// Show the record at a name
    Get { name: String },
    /// Show every record at or below a name, or all
    List { name: Option<String> },
    /// Delete the record at a name
    Delete {
        name: String,
        /// Everything below it as well
        #[arg(long)]
        subtree: bool,
    },
    /// Show changes at or below a name as they happen, until interrupted
    Watch { name: Option<String> },
    /// Write all records as JSON lines (key, value, lease in seconds)
    Export { file: PathBuf },
    /// Write the records of such a file
    Import { file: PathBuf },
}

#[derive(Args, Debug)]
struct Put {
    name: String,
    /// An address, or a name that this one leads to
    #[arg(long, required_unless_present = "text")]
    host: Option<String>,
    /// Port of the service (SRV)
    #[arg(long)]
    port: Option<u16>,
    /// Priority, less is first (SRV, MX); 10 without it
    #[arg(long)]
    priority: Option<u16>,
    /// Share among services of one priority (SRV); 100 without it
    #[arg(long)]
    weight: Option<u16>,
    /// Seconds that an answer may be kept
    #[arg(long)]
    ttl: Option<u32>,
    /// Text (TXT)
    #[arg(long)]
    text: Option<String>,
    /// It takes mail (MX)
    #[arg(long)]
    mail: bool,
    /// Only records of the same group are answered together
    #[arg(long)]
    group: Option<String>,
    /// Labels to remove from the front of the target (SRV, MX)
    #[arg(long)]
    targetstrip: Option<u8>,
    /// The record goes by itself after this long, at least 2 s; nobody renews it
    #[arg(long, value_name = "DURATION")]
    lease: Option<String>,
}

/// What ends a command other than by doing it.
enum Failure {
    NotFound(String),
    Usage(String),
    Backend(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Backend(format!(
            "{error}; name the cluster with --endpoint or ETCD_ENDPOINTS, or start a server with `embedded`"
        ))
    }
}

/// Runs the command.
pub(crate) fn service(args: Service) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(&args)),
        Err(error) => Err(Failure::Backend(format!("cannot start: {error}"))),
    };
    let (code, what) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::NotFound(what)) => (1, what),
        Err(Failure::Usage(what)) => (2, what),
        Err(Failure::Backend(what)) => (3, what),
    };
    eprintln!("skeindns service: {what}");
    ExitCode::from(code)
}

async fn run(args: &Service) -> Result<(), Failure> {
    let store = Store {
        client: Client::new(&config(args)?).map_err(Failure::Usage)?,
        prefix: prefix(&args.path)?,
        output: args.output,
    };
    match &args.action {
        Action::Put(put) => store.put(put).await,
        Action::Get { name } => store.get(name).await,
        Action::List { name } => store.list(name.as_deref()).await,
        Action::Delete { name, subtree } => store.delete(name, *subtree).await,
        Action::Watch { name } => store.watch(name.as_deref()).await,
        Action::Export { file } => store.export(file).await,
        Action::Import { file } => store.import(file).await,
    }
}

fn config(args: &Service) -> Result<Config, Failure> {
    let mut endpoints = args.endpoint.clone();
    for variable in ["ETCD_ENDPOINTS", "ETCD_MACHINES"] {
        if endpoints.is_empty() {
            let value = std::env::var(variable).unwrap_or_default();
            endpoints = value
                .split(',')
                .map(str::trim)
                .filter(|url| !url.is_empty())
                .map(str::to_owned)
                .collect();
        }
    }
    if endpoints.is_empty() {
        endpoints.push("http://127.0.0.1:2379".into());
    }
    let endpoints = endpoints
        .iter()
        .map(|url| parse_endpoint(url, "http"))
        .collect::<Result<_, _>>()
        .map_err(Failure::Usage)?;
    let credentials = match &args.user {
        None => None,
        Some(user) => {
            let password = std::env::var("ETCD_PASSWORD");
            let password = password
                .map_err(|_| Failure::Usage("--user needs the password in ETCD_PASSWORD".into()))?;
            Some(Credentials {
                user: user.clone(),
                password,
            })
        }
    };
    let identity = args.cert.clone().zip(args.key.clone());
    Ok(Config {
        endpoints,
        credentials,
        tls: TlsFiles {
            ca: args.ca.clone(),
            identity,
        },
    })
}

/// `/skydns/`: where all keys are.
fn prefix(path: &str) -> Result<String, Failure> {
    match path.trim_matches('/') {
        "" => Err(Failure::Usage(
            "--path is empty; write the first part of the keys, like skydns".into(),
        )),
        path => Ok(format!("/{path}/")),
    }
}

/// `/skydns/local/skydns/x` for `x.skydns.local`.
fn key_of(prefix: &str, text: &str) -> Result<String, Failure> {
    let name = Name::parse(text)
        .map_err(|error| Failure::Usage(format!("`{text}` is no domain name: {error}")))?;
    let mut labels = Vec::new();
    for label in name::labels(name.as_wire()) {
        match std::str::from_utf8(label) {
            Ok(label) if !label.contains(['/', '\0', '.']) => labels.push(label.to_lowercase()),
            _ => {
                return Err(Failure::Usage(format!(
                    "`{text}` has a label that no key can hold: no `/`, no dot, UTF-8"
                )));
            }
        }
    }
    if labels.is_empty() {
        return Err(Failure::Usage(
            "the root has no record of its own; write a name like x.skydns.local".into(),
        ));
    }
    labels.reverse();
    Ok(format!("{prefix}{}", labels.join("/")))
}

/// `x.skydns.local.` for `/skydns/local/skydns/x`.
fn name_of(prefix: &str, key: &[u8]) -> String {
    let key = String::from_utf8_lossy(key);
    let rest = key.strip_prefix(prefix).unwrap_or(&key);
    let mut labels: Vec<&str> = rest.split('/').filter(|label| !label.is_empty()).collect();
    labels.reverse();
    format!("{}.", labels.join("."))
}

fn lease_seconds(text: &str) -> Result<Duration, Failure> {
    let what = match parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(2) => return Ok(duration),
        Ok(_) => "the shortest lease is 2s".to_owned(),
        Err(what) => what,
    };
    Err(Failure::Usage(format!(
        "--lease {text}: {what}; write a duration like 60s"
    )))
}

impl Put {
    fn value(&self) -> Value {
        let mut record = Map::new();
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                record.insert(field.to_owned(), value);
            }
        };
        set("host", self.host.clone().map(Value::from));
        set("port", self.port.map(Value::from));
        set("priority", self.priority.map(Value::from));
        set("weight", self.weight.map(Value::from));
        set("ttl", self.ttl.map(Value::from));
        set("text", self.text.clone().map(Value::from));
        set("mail", self.mail.then_some(Value::Bool(true)));
        set("group", self.group.clone().map(Value::from));
        set("targetstrip", self.targetstrip.map(Value::from));
        Value::Object(record)
    }
}

/// A line of an export.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key: Option<String>,
    /// A key that is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    value: Option<String>,
    /// A value that is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    value_base64: Option<String>,
    /// Seconds that its lease was granted for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    lease: Option<u64>,
}

/// Octets as text where they are UTF-8, else in base64.
fn text_or_base64(octets: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(octets) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(octets))),
    }
}

fn octets(text: Option<String>, base64: Option<String>, field: &str) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => BASE64
            .decode(base64.as_bytes())
            .map_err(|error| format!("{field}_base64: {error}")),
        _ => Err(format!("one of `{field}` and `{field}_base64` is needed")),
    }
}

/// A record to write: key, value, seconds of its lease.
type Record = (Vec<u8>, Vec<u8>, Option<u64>);

struct Store {
    client: Client,
    prefix: String,
    output: Output,
}

impl Store {
    async fn put(&self, put: &Put) -> Result<(), Failure> {
        let key = key_of(&self.prefix, &put.name)?;
        let lease = match &put.lease {
            None => 0,
            Some(text) => self.client.lease_grant(lease_seconds(text)?, 0).await?.id,
        };
        let value = put.value();
        self.client
            .put(key.as_bytes(), value.to_string().as_bytes(), lease)
            .await?;
        let kv = KeyValue {
            key: key.into_bytes(),
            value: value.to_string().into_bytes(),
            lease,
            ..KeyValue::default()
        };
        if self.output == Output::Json {
            self.print(&kv)?;
        }
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<(), Failure> {
        let key = key_of(&self.prefix, name)?;
        let page = self
            .client
            .range(&ListRequest::new(KeyRange::key(key.clone())))
            .await?;
        if let Some(kv) = page.kvs.first() {
            return self.print(kv);
        }
        let below = ListRequest {
            count_only: true,
            ..ListRequest::new(KeyRange::prefix(format!("{key}/")))
        };
        let what = match self.client.range(&below).await?.count {
            0 => format!("{name} has no record ({key})"),
            count => format!(
                "{name} has no record of its own, but {count} below it; show them with `list {name}`"
            ),
        };
        Err(Failure::NotFound(what))
    }

    async fn list(&self, name: Option<&str>) -> Result<(), Failure> {
        let kvs = self.subtree(name).await?;
        for kv in &kvs {
            self.print(kv)?;
        }
        match (kvs.is_empty(), name) {
            (true, Some(name)) => Err(Failure::NotFound(format!(
                "there is no record at or below {name}"
            ))),
            _ => Ok(()),
        }
    }

    async fn delete(&self, name: &str, subtree: bool) -> Result<(), Failure> {
        let key = key_of(&self.prefix, name)?;
        let mut deleted = self
            .client
            .delete_range(&KeyRange::key(key.clone()))
            .await?;
        if subtree {
            deleted += self
                .client
                .delete_range(&KeyRange::prefix(format!("{key}/")))
                .await?;
        }
        if deleted == 0 {
            return Err(Failure::NotFound(format!("{name} has no record ({key})")));
        }
        match self.output {
            Output::Text => print(format_args!("{deleted} deleted\n")),
            Output::Json => print(format_args!("{}\n", json!({ "deleted": deleted }))),
        }
    }

    async fn watch(&self, name: Option<&str>) -> Result<(), Failure> {
        // What is not ours by name is left out here: one range covers the name itself and everything below it only as a prefix.
        let key = name.map(|name| key_of(&self.prefix, name)).transpose()?;
        let range = KeyRange::prefix(key.clone().unwrap_or_else(|| self.prefix.clone()));
        let ours = |found: &[u8]| match &key {
            None => true,
            Some(key) => found
                .strip_prefix(key.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")),
        };
        let page = self
            .client
            .range(&ListRequest {
                count_only: true,
                ..ListRequest::new(range.clone())
            })
            .await?;
        let mut next = page.header.revision + 1;
        loop {
            let request = WatchRequest {
                range: range.clone(),
                start_revision: next,
                deletes_only: false,
            };
            let mut watch = self.client.open_watch(&request).await?;
            loop {
                let message = match watch.message().await {
                    Ok(message) => message,
                    // The next member goes on where this one stopped; if there is none, opening says so.
                    Err(error) if error.is_outage() => break,
                    Err(error) => return Err(error.into()),
                };
                if let Some(canceled) = message.canceled {
                    return Err(Failure::Backend(format!(
                        "the watch was cancelled: {}",
                        canceled.reason
                    )));
                }
                for event in &message.events {
                    next = next.max(event.revision() + 1);
                    self.print_event(event, &ours)?;
                }
            }
        }
    }

    fn print_event(&self, event: &Event, ours: &impl Fn(&[u8]) -> bool) -> Result<(), Failure> {
        match event {
            Event::Put(kv) if ours(&kv.key) => match self.output {
                Output::Text => print(format_args!(
                    "put     {}  {}\n",
                    self.name(kv),
                    printable(&kv.value)
                )),
                Output::Json => {
                    let mut object = self.object(kv);
                    object.insert("event".into(), "put".into());
                    print(format_args!("{}\n", Value::Object(object)))
                }
            },
            Event::Delete { key, revision, .. } if ours(key) => match self.output {
                Output::Text => print(format_args!("delete  {}\n", name_of(&self.prefix, key))),
                Output::Json => {
                    let object = json!({"event": "delete", "name": name_of(&self.prefix, key), "key": String::from_utf8_lossy(key), "revision": revision});
                    print(format_args!("{object}\n"))
                }
            },
            _ => Ok(()),
        }
    }

    async fn export(&self, file: &PathBuf) -> Result<(), Failure> {
        let kvs = self.subtree(None).await?;
        let mut out: Box<dyn Write> = match file.as_os_str() == "-" {
            true => Box::new(io::stdout().lock()),
            false => Box::new(io::BufWriter::new(
                File::create(file).map_err(|error| cannot("write", file.display(), &error))?,
            )),
        };
        let progress = progress(kvs.len());
        let mut leases: HashMap<i64, Option<u64>> = HashMap::new();
        for kv in &kvs {
            let lease = match leases.get(&kv.lease) {
                _ if kv.lease == 0 => None,
                Some(known) => *known,
                None => {
                    let granted = self
                        .client
                        .lease_timetolive(kv.lease)
                        .await?
                        .map(|lease| lease.granted.as_secs());
                    leases.insert(kv.lease, granted);
                    granted
                }
            };
            let (key, key_base64) = text_or_base64(&kv.key);
            let (value, value_base64) = text_or_base64(&kv.value);
            let line = Line {
                key,
                key_base64,
                value,
                value_base64,
                lease,
            };
            let text = serde_json::to_string(&line)
                .map_err(|error| Failure::Backend(error.to_string()))?;
            writeln!(out, "{text}").map_err(|error| cannot("write", file.display(), &error))?;
            progress.inc(1);
        }
        out.flush()
            .map_err(|error| cannot("write", file.display(), &error))?;
        progress.finish_and_clear();
        eprintln!("{} records exported", kvs.len());
        Ok(())
    }

    async fn import(&self, file: &PathBuf) -> Result<(), Failure> {
        let entries = self.read_entries(file)?;
        // All is read and checked before anything is written. Records with the same lease time share a lease.
        let mut leases: HashMap<u64, i64> = HashMap::new();
        for seconds in entries.iter().filter_map(|(_, _, lease)| *lease) {
            if let Entry::Vacant(free) = leases.entry(seconds) {
                let lease = self
                    .client
                    .lease_grant(Duration::from_secs(seconds), 0)
                    .await?;
                free.insert(lease.id);
            }
        }
        let progress = progress(entries.len());
        for batch in entries.chunks(BATCH) {
            let puts = batch.iter().map(|(key, value, lease)| {
                let lease = lease
                    .and_then(|seconds| leases.get(&seconds).copied())
                    .unwrap_or(0);
                Operation::Put(key.clone(), value.clone(), lease)
            });
            let puts: Vec<Operation> = puts.collect();
            self.client.txn(&[], &puts, &[]).await?;
            progress.inc(batch.len() as u64);
        }
        progress.finish_and_clear();
        eprintln!("{} records imported", entries.len());
        Ok(())
    }

    fn read_entries(&self, file: &PathBuf) -> Result<Vec<Record>, Failure> {
        let mut input: Box<dyn BufRead> = match file.as_os_str() == "-" {
            true => Box::new(io::stdin().lock()),
            false => Box::new(BufReader::new(
                File::open(file).map_err(|error| cannot("read", file.display(), &error))?,
            )),
        };
        // A key may be put once in a transaction; of several lines with one key the last counts.
        let mut entries: Vec<Record> = Vec::new();
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        for number in 1.. {
            let mut line = String::new();
            let read = input
                .by_ref()
                .take(LINE_OCTETS_MAX)
                .read_line(&mut line)
                .map_err(|error| cannot("read", file.display(), &error))?;
            if read == 0 {
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            let entry = self
                .read_line(&line)
                .map_err(|what| Failure::Usage(format!("{}:{number}: {what}", file.display())))?;
            match places.get(&entry.0) {
                Some(place) => entries[*place] = entry,
                None => {
                    places.insert(entry.0.clone(), entries.len());
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }

    fn read_line(&self, text: &str) -> Result<Record, String> {
        let line: Line = serde_json::from_str(text)
            .map_err(|error| format!("not a line of an export: {error}"))?;
        let key = octets(line.key, line.key_base64, "key")?;
        if !key.starts_with(self.prefix.as_bytes()) {
            return Err(format!(
                "the key {} is not below {}; name its first part with --path",
                String::from_utf8_lossy(&key),
                self.prefix
            ));
        }
        Ok((
            key,
            octets(line.value, line.value_base64, "value")?,
            line.lease.filter(|seconds| *seconds > 0),
        ))
    }

    /// The record at a name and all below it; all records without a name.
    async fn subtree(&self, name: Option<&str>) -> Result<Vec<KeyValue>, Failure> {
        let Some(name) = name else {
            return Ok(self
                .client
                .list(KeyRange::prefix(self.prefix.clone()))
                .await?);
        };
        let key = key_of(&self.prefix, name)?;
        let mut kvs = self.client.list(KeyRange::key(key.clone())).await?;
        kvs.extend(
            self.client
                .list(KeyRange::prefix(format!("{key}/")))
                .await?,
        );
        Ok(kvs)
    }

    fn name(&self, kv: &KeyValue) -> String {
        name_of(&self.prefix, &kv.key)
    }

    fn object(&self, kv: &KeyValue) -> Map<String, Value> {
        let text = String::from_utf8_lossy(&kv.value);
        let mut object = Map::new();
        object.insert("name".into(), self.name(kv).into());
        object.insert("key".into(), String::from_utf8_lossy(&kv.key).into());
        // A malformed value is shown as it is.
        object.insert(
            "value".into(),
            serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text)),
        );
        // As text: JSON's numbers have 53 bits.
        if kv.lease != 0 {
            object.insert("lease".into(), kv.lease.to_string().into());
        }
        if kv.mod_revision != 0 {
            object.insert("revision".into(), kv.mod_revision.into());
        }
        object
    }

    fn print(&self, kv: &KeyValue) -> Result<(), Failure> {
        match self.output {
            Output::Text => print(format_args!(
                "{}  {}\n",
                self.name(kv),
                printable(&kv.value)
            )),
            Output::Json => print(format_args!("{}\n", Value::Object(self.object(kv)))),
        }
    }
}

/// A value as text; control characters must not reach a terminal.
fn printable(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let safe = text.chars().map(|c| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    });
    safe.collect()
}

/// Writes to standard output; whoever reads it may stop reading, and that is no failure.
fn print(text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    match io::stdout().write_fmt(text) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::Usage(format!("cannot write: {error}"))),
    }
}

fn cannot(what: &str, file: impl Display, error: &io::Error) -> Failure {
    Failure::Usage(format!("cannot {what} {file}: {error}"))
}

/// A bar on a terminal, nothing elsewhere.
fn progress(len: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records {elapsed}");
    ProgressBar::new(len as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_keys_and_back() {
        let key = key_of("/skydns/", "X.skydns.Local").ok();
        assert_eq!(key.as_deref(), Some("/skydns/local/skydns/x"));
        assert_eq!(
            name_of("/skydns/", b"/skydns/local/skydns/x"),
            "x.skydns.local."
        );
        assert!(key_of("/skydns/", ".").is_err());
        assert!(key_of("/skydns/", "a/b.local").is_err());
        assert!(key_of("/skydns/", r"a\.b.local").is_err());
        assert_eq!(prefix("/a/b/").ok().as_deref(), Some("/a/b/"));
        assert!(prefix("/").is_err());
    }

    #[test]
    fn a_record_has_only_what_was_said() {
        let put = Put {
            name: "x.skydns.local".into(),
            host: Some("192.0.2.1".into()),
            port: Some(80),
            priority: None,
            weight: None,
            ttl: Some(60),
            text: None,
            mail: false,
            group: None,
            targetstrip: None,
            lease: None,
        };
        assert_eq!(
            put.value(),
            json!({"host": "192.0.2.1", "port": 80, "ttl": 60})
        );
    }

    #[test]
    fn octets_that_are_no_text_survive_an_export() {
        let (text, base64) = text_or_base64(&[0xff, 0]);
        assert_eq!((text.as_deref(), base64.as_deref()), (None, Some("/wA=")));
        assert_eq!(octets(text, base64, "value"), Ok(vec![0xff, 0]));
        assert!(octets(None, None, "value").is_err());
    }
}
