//! `skeindns migrate`: moves the keys of etcd's v2 store into its v3 store, byte for byte under the same names.
//!
//! ```text
//!   v2 ─▶ hidden.rs ─▶ plan.rs: new, the same, different ─▶ write.rs ─▶ v3 ─▶ everything is read back
//! ```
//! What is there already is left alone, so a second run goes on where the first one stopped.

mod hidden;
mod plan;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use skein_plugins::etcd::{
    Client, Config, Error, KeyRange, KeyValue, V2Client, V2Node, parse_endpoint,
};

use super::cluster::{Cluster, FromFile};
use super::verify::report::Format;
use plan::{Moved, Source, Standing, shown};
use write::Written;

const EXAMPLES: &str = "\
Examples:
  skeindns migrate                                  show what would be moved, write nothing
  skeindns migrate --write                          move it
  skeindns migrate --write --overwrite replace      and let v2's value count where v3 has another one
  skeindns migrate --write --to http://192.0.2.11:2379   into another cluster

Exit codes: 0 all of v2 is in v3, or would be; 1 it is not; 2 usage; 3 etcd cannot be used.";

/// Moves keys from etcd's v2 store into its v3 store; shows what it would do unless --write is given.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Migrate {
    /// Do it
    #[arg(long)]
    write: bool,

    /// What becomes of keys that v3 has with another value
    #[arg(long, value_enum, default_value_t)]
    overwrite: Overwrite,

    /// Names with a leading `_` to look for besides the usual ones: v2 leaves them out of its lists
    #[arg(long, value_name = "_NAME,…", value_delimiter = ',')]
    hidden: Vec<String>,

    /// The cluster to write to, if it is another one
    #[arg(long, value_name = "URL,…", value_delimiter = ',')]
    to: Vec<String>,

    /// Name every key
    #[arg(long)]
    verbose: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    cluster: Cluster,
}

/// What becomes of keys that v3 has with another value.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Overwrite {
    /// Nothing is written at all
    #[default]
    Refuse,
    /// v3's value stays
    Keep,
    /// v2's value counts
    Replace,
}

/// What ends the command other than by doing it.
enum Failure {
    Usage(String),
    Etcd(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Etcd(format!("{error}; see `skeindns doctor`"))
    }
}

/// Runs the command.
pub(crate) fn migrate(args: &Migrate) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(Failure::Etcd(format!("cannot start: {error}"))),
    };
    let (code, what) = match result {
        Ok(report) => return ExitCode::from(u8::from(!report.is_whole())),
        Err(Failure::Usage(what)) => (2, what),
        Err(Failure::Etcd(what)) => (3, what),
    };
    eprintln!("skeindns migrate: {what}");
    ExitCode::from(code)
}

/// What was found and done.
struct Report {
    prefix: String,
    source: Source,
    hidden: usize,
    before: usize,
    standing: BTreeMap<String, Standing>,
    overwrite: Overwrite,
    written: Option<Written>,
    /// Keys that are not in v3 as they are in v2, when everything was read back.
    missing: Vec<String>,
    after: usize,
    /// Keys that changed in v2 while it ran.
    moved_on: usize,
}

async fn run(args: &Migrate) -> Result<Report, Failure> {
    let file = FromFile::default();
    let config = args.cluster.config(&file).map_err(Failure::Usage)?;
    let prefix = args.cluster.prefix(&file).map_err(Failure::Usage)?;
    for name in &args.hidden {
        if !name.starts_with('_') || name.contains('/') {
            return Err(Failure::Usage(format!(
                "--hidden {name}: hidden names start with `_`, one segment each; write _tcp,_myservice"
            )));
        }
    }
    let v2 = V2Client::new(&config).map_err(Failure::Usage)?;
    let v3 = Client::new(&target(args, &config)?).map_err(Failure::Usage)?;
    let (nodes, hidden) = read(&v2, &prefix, &args.hidden).await?;
    let source = Source::of(&nodes);
    let there = v3.list(KeyRange::prefix(prefix.clone())).await?;
    let standing = plan::compare(&source, &there);
    let mut report = Report {
        before: there.len(),
        after: there.len(),
        prefix,
        source,
        hidden,
        standing,
        overwrite: args.overwrite,
        written: None,
        missing: Vec::new(),
        moved_on: 0,
    };
    if args.write && !report.is_refused() {
        let todo = report.todo();
        let bar = progress(todo.len());
        let written = write::write(&v3, &todo, &bar).await;
        bar.finish_and_clear();
        report.written = Some(written?);
        report.read_back(&v2, &v3, &args.hidden).await?;
    }
    print(&report, args).map_err(|error| Failure::Usage(format!("cannot write: {error}")))?;
    Ok(report)
}

/// The cluster to write to.
fn target(args: &Migrate, config: &Config) -> Result<Config, Failure> {
    if args.to.is_empty() {
        return Ok(config.clone());
    }
    let endpoints = args.to.iter().map(|url| parse_endpoint(url, "http"));
    Ok(Config {
        endpoints: endpoints
            .collect::<Result<_, _>>()
            .map_err(Failure::Usage)?,
        ..config.clone()
    })
}

/// Everything in v2, and how many keys of it were hidden.
async fn read(
    v2: &V2Client,
    prefix: &str,
    more: &[String],
) -> Result<(Vec<V2Node>, usize), Failure> {
    let root = prefix.trim_end_matches('/');
    let reply = v2.list(root).await?;
    let mut nodes: Vec<V2Node> = match reply {
        Some(reply) => std::iter::once(reply.node).chain(reply.below).collect(),
        None => Vec::new(),
    };
    let directories = nodes
        .iter()
        .filter(|node| node.dir)
        .map(|node| node.key.clone());
    let directories: BTreeSet<String> = directories.collect();
    let hidden = hidden::find(v2, directories, more).await?;
    let count = hidden.iter().filter(|node| !node.dir).count();
    nodes.extend(hidden);
    Ok((nodes, count))
}

impl Report {
    /// Whether a key with another value in v3 forbids to write anything.
    fn is_refused(&self) -> bool {
        self.overwrite == Overwrite::Refuse && self.count(is_different) > 0
    }

    fn count(&self, wanted: fn(&Standing) -> bool) -> usize {
        self.standing
            .values()
            .filter(|standing| wanted(standing))
            .count()
    }

    /// What is to be written.
    fn todo(&self) -> Vec<(&Moved, &Standing)> {
        let all = self.source.keys.values().filter_map(|moved| {
            let standing = self.standing.get(&moved.key)?;
            let wanted = match standing {
                Standing::New => true,
                Standing::Same => false,
                Standing::Different { .. } => self.overwrite == Overwrite::Replace,
            };
            wanted.then_some((moved, standing))
        });
        all.collect()
    }

    /// Reads everything back: each key in v3, and v2 again for what changed meanwhile.
    async fn read_back(
        &mut self,
        v2: &V2Client,
        v3: &Client,
        more: &[String],
    ) -> Result<(), Failure> {
        let there: Vec<KeyValue> = v3.list(KeyRange::prefix(self.prefix.clone())).await?;
        self.after = there.len();
        let there: BTreeMap<&[u8], &KeyValue> =
            there.iter().map(|kv| (kv.key.as_slice(), kv)).collect();
        let (nodes, _) = read(v2, &self.prefix, more).await?;
        let now = Source::of(&nodes);
        for moved in self.source.keys.values() {
            let is_there = there
                .get(moved.key.as_bytes())
                .is_some_and(|kv| kv.value == moved.value.as_bytes());
            let kept = self.overwrite == Overwrite::Keep
                && self.standing.get(&moved.key).is_some_and(is_different);
            // What had an end may have reached it.
            let is_over = moved.ttl.is_some() && !now.keys.contains_key(&moved.key);
            if !is_there && !kept && !is_over {
                self.missing.push(moved.key.clone());
            }
        }
        let value =
            |source: &Source, key: &String| source.keys.get(key).map(|moved| moved.value.clone());
        let keys: BTreeSet<&String> = now.keys.keys().chain(self.source.keys.keys()).collect();
        let moved_on = keys
            .into_iter()
            .filter(|key| value(&now, key) != value(&self.source, key));
        self.moved_on = moved_on.count();
        Ok(())
    }

    /// Whether all of v2 is in v3, or would be.
    fn is_whole(&self) -> bool {
        let changed = self
            .written
            .as_ref()
            .map_or(0, |written| written.changed.len());
        !self.is_refused() && self.missing.is_empty() && changed == 0 && self.moved_on == 0
    }
}

fn is_different(standing: &Standing) -> bool {
    matches!(standing, Standing::Different { .. })
}

//--- Output ------------------------------------------------------------------------------------------

fn print(report: &Report, args: &Migrate) -> io::Result<()> {
    let text = match args.format {
        Format::Text => text(report, args),
        Format::Json => format!("{}\n", object(report)),
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads may stop reading.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn text(report: &Report, args: &Migrate) -> String {
    let source = &report.source;
    let ending = source
        .keys
        .values()
        .filter(|moved| moved.ttl.is_some())
        .count();
    let mut lines = vec![
        format!(
            "v2: {} keys in {} directories below {}, {ending} of them with an end",
            source.keys.len(),
            source.directories,
            report.prefix
        ),
        format!(
            "v2: {} hidden keys found by their usual names; lists leave out what starts with `_`, so name others with --hidden",
            report.hidden
        ),
    ];
    if source.empty > 0 {
        lines.push(format!(
            "v2: {} empty directories have no counterpart in v3",
            source.empty
        ));
    }
    if source.expired > 0 {
        lines.push(format!(
            "v2: {} keys whose time is over are left out",
            source.expired
        ));
    }
    lines.push(format!("v3: {} keys before", report.before));
    lines.push(format!(
        "{} new, {} the same already, {} with another value in v3",
        report.count(|standing| *standing == Standing::New),
        report.count(|standing| *standing == Standing::Same),
        report.count(is_different)
    ));
    for (key, standing) in &report.standing {
        let ours = report
            .source
            .keys
            .get(key)
            .map(|moved| shown(moved.value.as_bytes()));
        match standing {
            Standing::Different { what, .. } => {
                lines.push(format!(
                    "  other  {key}  v2 {}  v3 {what}",
                    ours.unwrap_or_default()
                ));
            }
            Standing::New if args.verbose => {
                lines.push(format!("  new    {key}  {}", ours.unwrap_or_default()))
            }
            Standing::Same if args.verbose => lines.push(format!("  same   {key}")),
            _ => {}
        }
    }
    lines.extend(outcome(report, args));
    lines.join("\n") + "\n"
}

fn outcome(report: &Report, args: &Migrate) -> Vec<String> {
    if report.is_refused() {
        return vec![
            "nothing is written: some keys have another value in v3; choose with --overwrite keep or --overwrite replace".into(),
        ];
    }
    let Some(written) = &report.written else {
        return vec![format!(
            "dry run: {} keys would be written; do it with --write",
            report.todo().len()
        )];
    };
    let mut lines = vec![format!(
        "written: {} keys, {} leases",
        written.keys, written.leases
    )];
    for key in &written.changed {
        lines.push(format!(
            "  somebody wrote {key} in v3 meanwhile; it is left as it is"
        ));
    }
    for key in report
        .missing
        .iter()
        .take(if args.verbose { usize::MAX } else { 20 })
    {
        lines.push(format!("  {key} is not in v3 as it is in v2"));
    }
    if report.moved_on > 0 {
        lines.push(format!(
            "{} keys changed in v2 meanwhile: run it again, best after the writers of v2 have been stopped",
            report.moved_on
        ));
    }
    lines.push(format!(
        "v3: {} keys now; read back: {} differ",
        report.after,
        report.missing.len()
    ));
    lines
}

fn object(report: &Report) -> serde_json::Value {
    let written = report.written.as_ref();
    let different = report
        .standing
        .iter()
        .filter(|(_, standing)| is_different(standing));
    json!({
        "prefix": report.prefix,
        "v2": {
            "keys": report.source.keys.len(),
            "directories": report.source.directories,
            "empty": report.source.empty,
            "expired": report.source.expired,
            "hidden": report.hidden,
        },
        "v3": {"before": report.before, "after": report.after},
        "new": report.count(|standing| *standing == Standing::New),
        "same": report.count(|standing| *standing == Standing::Same),
        "different": different.map(|(key, _)| key).collect::<Vec<_>>(),
        "written": written.map(|written| written.keys),
        "leases": written.map(|written| written.leases),
        "changed": written.map(|written| &written.changed),
        "missing": report.missing,
        "moved_on": report.moved_on,
    })
}

/// A bar on a terminal, nothing elsewhere.
fn progress(len: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} keys {elapsed}");
    ProgressBar::new(len as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
