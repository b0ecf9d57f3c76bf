//! Conversations: `.dns` files that say what is configured, asked, answered and counted, in the manner of `dig`.
//!
//! ```text
//! # An answer counts down, and the upstream is asked once.
//! Dnsfile
//!     example.org {
//!         cache 3600
//!         forward . scripted
//!     }
//! upstream www.example.org. A
//!     NOERROR ra
//!     www.example.org. 60 IN A 192.0.2.1
//! ask WWW.example.org. A
//!     NOERROR qr rd ra   source upstream
//!     www.example.org. 60 IN A 192.0.2.1
//! elapse 25s
//! asked upstream 1
//! metric coredns_cache_hits_total 0
//! ```
//!
//! | step | meaning |
//! |---|---|
//! | `Dnsfile` + block | starts it at the next step; a second one is a reload |
//! | `fails with` + block | the Dnsfile's errors, as the operator sees them |
//! | `warns with` + block | its warnings |
//! | `chain` + block | each chain as it runs |
//! | `file NAME` + block | a file, relative to the Dnsfile |
//! | `env NAME VALUE` | an environment variable for the Dnsfile |
//! | `upstream [scripted-X] NAME TYPE` + block | a scripted reply, see [`reply::script`] |
//! | `upstream zone` + block | zones that the upstream knows, see [`zone::script`] |
//! | `key PATH VALUE [lease 60s]`, `delete PATH` | a key in etcd's double |
//! | `etcd away`, `etcd back` | nobody answers there |
//! | `ask NAME TYPE [+…]` + block | a question, see [`Question::parse`], and the response |
//! | `raw HEX … [+…]` + block | a packet as it is, and the response |
//! | `elapse 25s` | time passes |
//! | `asked [scripted-X] upstream N` [+ block] | queries that the upstream saw since the last `asked` |
//! | `metric NAME{label="value"} VALUE` | the sum of what matches; `LOW..HIGH` for what varies, `absent` for none |
//! | `log REGEX` [+ block] | lines logged since the last `log` that match; without a block at least one must |
//! | `nolog REGEX` | none matches |
//! | `http [ADDRESS]PATH` + block | status and body |
//!
//! The first line of a response is its rcode and flags; behind three spaces may stand `source WORD`, `by PLUGIN`, `size N`
//! and `any-order`, which are checked where they are written. `...` in an expected line stands for any text. A response that
//! never comes is `no reply`. `UPDATE=1` rewrites what came out differently.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regex::Regex;

use super::question::Question;
use super::server::{self, Answered, TestServer};
use super::world::World;
use super::{render, reply, zone};
use crate::kit::plugin::Plugin;
use crate::kit::query::Transport;

/// The table that a conversation's plugins are taken from.
pub type Table = &'static [&'static Plugin];

/// Whether expectations are to be rewritten: `UPDATE=1` in the environment.
pub fn updating() -> bool {
    std::env::var_os("UPDATE").is_some_and(|value| value == "1")
}

/// Runs a file. With `update` it is rewritten where it came out differently; otherwise every difference is in the error, with its line.
pub fn run_file(path: &Path, table: Table, update: bool) -> Result<(), String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let outcome = run_text(&text, table, update);
    if update && outcome.updated != text {
        std::fs::write(path, &outcome.updated)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    match outcome.failures.is_empty() {
        true => Ok(()),
        false => Err(outcome
            .failures
            .iter()
            .map(|failure| failure.show(path))
            .collect()),
    }
}

/// Every `.dns` file in these folders, sorted.
pub fn files(folders: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = folders.into_iter().collect();
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|ext| ext == "dns") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What came out of a conversation.
pub struct Outcome {
    /// Differences and mistakes.
    pub failures: Vec<Failure>,
    /// The file as it would be with what came out.
    pub updated: String,
}

/// One difference.
pub struct Failure {
    /// Line of the step, from 1.
    pub line: usize,
    /// The step.
    pub step: String,
    /// What is wrong.
    pub what: String,
}

impl Failure {
    fn show(&self, path: &Path) -> String {
        format!(
            "\n{}:{}: {}\n{}",
            path.display(),
            self.line,
            self.step,
            self.what
        )
    }
}

/// Runs a conversation.
pub fn run_text(text: &str, table: Table, update: bool) -> Outcome {
    let steps = steps(text);
    let mut play = Play {
        table,
        world: World::new(),
        update,
        server: None,
        pending: None,
        failed: None,
        seen: Vec::new(),
        logged: Vec::new(),
    };
    let mut failures = Vec::new();
    let mut changes: Vec<(usize, Change)> = Vec::new();
    server::run(Arc::clone(&play.world.events), async {
        for (at, step) in steps.iter().enumerate() {
            match play.step(step).await {
                Ok(None) => {}
                Ok(Some(change)) => changes.push((at, change)),
                Err(what) => {
                    failures.push(Failure {
                        line: step.line,
                        step: step.head.clone(),
                        what,
                    });
                    if play.server.is_none() {
                        // Nothing that follows can say anything new.
                        break;
                    }
                }
            }
        }
        // A Dnsfile behind which nothing is asked must build nevertheless.
        if let Err(what) = play.bring_up().await {
            failures.push(Failure {
                line: 0,
                step: "Dnsfile".into(),
                what,
            });
        }
        play.server = None;
    });
    Outcome {
        failures,
        updated: rewrite(text, &steps, &changes),
    }
}

/// What a step's lines become.
enum Change {
    /// Its block.
    Block(Vec<String>),
    /// Its own line.
    Head(String),
}

/// A line at the margin with the indented lines below it.
struct Step {
    /// From 1.
    line: usize,
    head: String,
    /// Indentation removed; empty lines in the middle kept.
    block: Vec<String>,
}

impl Step {
    fn block(&self) -> Vec<&str> {
        self.block.iter().map(String::as_str).collect()
    }
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.starts_with([' ', '\t']) || line.is_empty() {
            if let Some(step) = steps.last_mut() {
                step.block.push(line.to_owned());
            }
        } else if line.starts_with('#') {
            // A comment ends a block.
            steps.push(Step {
                line: at + 1,
                head: String::new(),
                block: Vec::new(),
            });
        } else {
            steps.push(Step {
                line: at + 1,
                head: line.to_owned(),
                block: Vec::new(),
            });
        }
    }
    for step in &mut steps {
        while step.block.last().is_some_and(String::is_empty) {
            step.block.pop();
        }
        let indent = step
            .block
            .iter()
            .filter(|line| !line.is_empty())
            .map(|line| line.len() - line.trim_start().len())
            .min()
            .unwrap_or(0);
        for line in &mut step.block {
            *line = line.get(indent..).unwrap_or_default().to_owned();
        }
    }
    steps
}

fn rewrite(text: &str, steps: &[Step], changes: &[(usize, Change)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (at, change) in changes.iter().rev() {
        let Some(step) = steps.get(*at) else { continue };
        match change {
            Change::Head(head) => lines[step.line - 1] = head.clone(),
            Change::Block(block) => {
                let block = block.iter().map(|line| match line.as_str() {
                    "" => String::new(),
                    line => format!("    {line}"),
                });
                lines.splice(step.line..step.line + step.block.len(), block);
            }
        }
    }
    let mut out = lines.join("\n");
    out.push('\n');
    out
}

/// A conversation under way.
struct Play {
    table: Table,
    world: World,
    update: bool,
    server: Option<TestServer>,
    // A Dnsfile that has not been started yet.
    pending: Option<String>,
    // The errors of the last start, until `fails with` has looked at them.
    failed: Option<String>,
    // Queries that upstreams saw and no `asked` has looked at.
    seen: Vec<super::upstream::Seen>,
    // Lines that no `log` has taken.
    logged: Vec<String>,
}

impl Play {
    async fn step(&mut self, step: &Step) -> Result<Option<Change>, String> {
        let words: Vec<&str> = step.head.split_whitespace().collect();
        let rest = |n: usize| words.get(n..).unwrap_or_default().join(" ");
        match words.as_slice() {
            [] => Ok(None),
            ["Dnsfile"] => {
                self.bring_up().await?;
                self.pending = Some(step.block.join("\n") + "\n");
                Ok(None)
            }
            ["fails", "with"] => self.fails(step).await,
            ["warns", "with"] => {
                let warnings = self.server().await?.warnings().to_owned();
                self.compare(step, lines_of(&warnings))
            }
            ["chain"] => {
                let chains = self.server().await?.chains();
                self.compare(step, chains.iter().map(|names| names.join(" ")).collect())
            }
            ["file", name] => self.write_file(name, &step.block),
            ["env", name, ..] => {
                self.world.environment.insert((*name).to_owned(), rest(2));
                Ok(None)
            }
            ["upstream", "zone"] => {
                let script = zone::script(&step.block())?;
                self.world.upstream.script_last(script);
                Ok(None)
            }
            ["upstream", ..] => {
                let script = reply::script(&rest(1), &step.block.join("\n"))?;
                self.world.upstream.script(script);
                Ok(None)
            }
            ["key", key, ..] => self.put_key(key, &step.head).await,
            ["delete", key] => {
                self.world.store.delete(key.as_bytes());
                server::settle().await;
                Ok(None)
            }
            ["etcd", what @ ("away" | "back")] => {
                self.world
                    .store
                    .change(|store| store.away = *what == "away");
                server::settle().await;
                Ok(None)
            }
            ["ask", ..] => self.ask(step, Question::parse(&rest(1))?).await,
            ["raw", ..] => self.ask(step, Question::parse_raw(&rest(1))?).await,
            ["elapse", time] => {
                let time = reply::duration(time)?;
                self.server().await?;
                // Asleep and not advanced: what waits in between wakes in its order.
                tokio::time::sleep(time).await;
                server::settle().await;
                Ok(None)
            }
            ["asked", upstream, "upstream", count] => self.asked(step, upstream, count).await,
            ["asked", "upstream", count] => self.asked(step, "scripted", count).await,
            ["metric", name, value] => self.metric(step, name, value).await,
            ["log", pattern @ ..] if !pattern.is_empty() => self.log(step, &rest(1), true).await,
            ["nolog", pattern @ ..] if !pattern.is_empty() => self.log(step, &rest(1), false).await,
            ["http", target] => {
                let (status, body) = self.server().await?.http(target);
                let mut lines = vec![status.to_string()];
                lines.extend(lines_of(&body));
                self.compare(step, lines)
            }
            _ => Err(
                "no such step; the list is at the top of plugins/kit/testing/scenario.rs".into(),
            ),
        }
    }

    //--- Starting ----------------------------------------------------------------------------

    /// Starts what waits to be started.
    async fn bring_up(&mut self) -> Result<(), String> {
        if let Some(dnsfile) = self.pending.take() {
            self.failed = None;
            let outcome = match &mut self.server {
                Some(server) => server.reload(&self.world, self.table, &dnsfile).await,
                None => TestServer::start(&self.world, self.table, &dnsfile)
                    .await
                    .map(|server| self.server = Some(server)),
            };
            self.failed = outcome.err();
            server::settle().await;
        }
        match self.failed.take() {
            Some(errors) => Err(format!("the Dnsfile has errors:\n{errors}")),
            None => Ok(()),
        }
    }

    async fn server(&mut self) -> Result<&TestServer, String> {
        self.bring_up().await?;
        self.server
            .as_ref()
            .ok_or_else(|| "no Dnsfile has been started".to_owned())
    }

    async fn fails(&mut self, step: &Step) -> Result<Option<Change>, String> {
        match self.bring_up().await {
            Ok(()) => Err("the Dnsfile has no errors".into()),
            Err(errors) => {
                let errors = errors.strip_prefix("the Dnsfile has errors:\n");
                self.compare(step, lines_of(errors.unwrap_or_default()))
            }
        }
    }

    fn write_file(&self, name: &str, block: &[String]) -> Result<Option<Change>, String> {
        let path = self.world.folder().join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        std::fs::write(&path, block.join("\n") + "\n").map_err(|error| error.to_string())?;
        Ok(None)
    }

    /// `key PATH VALUE [lease 60s]`: the value is the rest of the line as it stands.
    async fn put_key(&self, key: &str, head: &str) -> Result<Option<Change>, String> {
        let rest = head.split_once(key).map_or("", |(_, rest)| rest).trim();
        let (value, lease) = match rest.rsplit_once(" lease ") {
            Some((value, lease)) => (value.trim(), Some(reply::duration(lease.trim())?)),
            None => (rest, None),
        };
        let store = &self.world.store;
        store.put(key.as_bytes(), value.as_bytes(), lease);
        server::settle().await;
        Ok(None)
    }

    //--- Asking ------------------------------------------------------------------------------

    async fn ask(&mut self, step: &Step, question: Question) -> Result<Option<Change>, String> {
        let raw = step.head.starts_with("raw");
        let server = self.server().await?;
        let answers = match question.together {
            0 | 1 => {
                let mut answers = Vec::new();
                for _ in 0..question.times {
                    answers.push(server.ask(&question).await);
                }
                answers
            }
            together => {
                let asking = (0..together).map(|_| server.ask(&question));
                futures_util::future::join_all(asking).await
            }
        };
        server::settle().await;
        let mut first: Option<Change> = None;
        for (at, answered) in answers.iter().enumerate() {
            judge(&question, answered, raw)?;
            let expected = step.block();
            let lines = response_lines(&question, answered, expected.first().copied());
            match self.compare(step, lines) {
                Ok(change) => first = first.or(change),
                Err(what) if answers.len() > 1 => {
                    return Err(format!("answer {} of {}:\n{what}", at + 1, answers.len()));
                }
                Err(what) => return Err(what),
            }
        }
        Ok(first)
    }

    async fn asked(
        &mut self,
        step: &Step,
        upstream: &str,
        count: &str,
    ) -> Result<Option<Change>, String> {
        self.server().await?;
        self.seen.extend(self.world.upstream.take_seen());
        let (mine, others) = std::mem::take(&mut self.seen)
            .into_iter()
            .partition(|seen| seen.upstream == upstream);
        self.seen = others;
        let lines: Vec<String> = mine
            .iter()
            .map(|seen| {
                let transport = match seen.transport {
                    Transport::Udp => "udp",
                    Transport::Tcp => "tcp",
                };
                render::query(transport, &seen.packet)
            })
            .collect();
        if count == lines.len().to_string() {
            return match step.block.is_empty() {
                true => Ok(None),
                false => self.compare(step, lines),
            };
        }
        if self.update {
            return Ok(Some(replaced_last_word(step, &lines.len().to_string())));
        }
        Err(format!(
            "it was asked {} times:\n{}",
            lines.len(),
            indented(&lines)
        ))
    }

    //--- Counting and logging ------------------------------------------------------------------

    async fn metric(
        &mut self,
        step: &Step,
        series: &str,
        expected: &str,
    ) -> Result<Option<Change>, String> {
        self.server().await?;
        let (name, labels) = parse_series(series)?;
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(label, value)| (label.as_str(), value.as_str()))
            .collect();
        let value = self.world.metrics.value(&name, &labels);
        let actual = value.map_or_else(|| "absent".to_owned(), |value| value.to_string());
        let between = expected
            .split_once("..")
            .and_then(|(low, high)| Some(low.parse::<f64>().ok()?..=high.parse::<f64>().ok()?));
        let fits = between
            .zip(value)
            .is_some_and(|(range, value)| range.contains(&value));
        if fits || actual == expected {
            return Ok(None);
        }
        if self.update {
            return Ok(Some(replaced_last_word(step, &actual)));
        }
        let text = self.world.metrics.text();
        let alike: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with(&name))
            .map(str::to_owned)
            .collect();
        Err(format!("it is {actual}\n{}", indented(&alike)))
    }

    async fn log(
        &mut self,
        step: &Step,
        pattern: &str,
        wanted: bool,
    ) -> Result<Option<Change>, String> {
        self.server().await?;
        let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
        self.logged.extend(self.world.take_logged());
        let (matching, others): (Vec<String>, Vec<String>) = std::mem::take(&mut self.logged)
            .into_iter()
            .partition(|line| pattern.is_match(line));
        self.logged = others;
        match (wanted, matching.is_empty()) {
            (false, true) => Ok(None),
            (false, false) => Err(format!("was logged:\n{}", indented(&matching))),
            (true, true) => Err(format!(
                "was not logged; this was:\n{}",
                indented(&self.logged)
            )),
            (true, false) if step.block.is_empty() => Ok(None),
            (true, false) => self.compare(step, matching),
        }
    }

    //--- Comparing -----------------------------------------------------------------------------

    fn compare(&self, step: &Step, actual: Vec<String>) -> Result<Option<Change>, String> {
        let expected = step.block();
        // A line that an expected one with `...` stands for is shown as that, here and after an update.
        let shown: Vec<String> = actual
            .iter()
            .enumerate()
            .map(|(at, line)| match expected.get(at) {
                Some(pattern) if stands_for(pattern, line) => (*pattern).to_owned(),
                _ => line.clone(),
            })
            .collect();
        if shown == expected {
            return Ok(None);
        }
        if self.update {
            return Ok(Some(Change::Block(shown)));
        }
        let mut out = String::new();
        for line in similar(&expected, &shown) {
            // Writing into a String cannot fail.
            writeln!(out, "    {line}").ok();
        }
        Err(out)
    }
}

/// `...` stands for any text.
fn stands_for(pattern: &str, line: &str) -> bool {
    if !pattern.contains("...") {
        return pattern == line;
    }
    let mut pieces = pattern.split("...");
    let Some(mut rest) = pieces.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// The two as one list: ` ` both, `-` expected, `+` came out.
fn similar(expected: &[&str], actual: &[String]) -> Vec<String> {
    // The longest common run of lines, by the textbook's table: blocks are short.
    let (n, m) = (expected.len(), actual.len());
    let mut common = vec![vec![0_usize; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            common[i][j] = if expected[i] == actual[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < n || j < m {
        if i < n && j < m && expected[i] == actual[j] {
            out.push(format!("  {}", expected[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < n && (j == m || common[i + 1][j] >= common[i][j + 1]) {
            out.push(format!("- {}", expected[i]));
            i += 1;
        } else {
            out.push(format!("+ {}", actual[j]));
            j += 1;
        }
    }
    out
}

/// What holds for every response, whatever a conversation expects: it can be read, and it fits.
fn judge(question: &Question, answered: &Answered, raw: bool) -> Result<(), String> {
    let Some(bytes) = &answered.bytes else {
        return Ok(());
    };
    if bytes.len() > question.size_max {
        return Err(format!(
            "the response has {} octets, the client takes {}",
            bytes.len(),
            question.size_max
        ));
    }
    // An odd question is echoed as it came, which hickory-proto may rightly not like.
    match hickory_proto::op::Message::from_vec(bytes) {
        Err(error) if !raw => Err(format!(
            "hickory-proto cannot read the response: {error}\n    {}",
            render::hex(bytes)
        )),
        _ => Ok(()),
    }
}

/// The response as lines, its first with the annotations that the expectation has.
fn response_lines(
    question: &Question,
    answered: &Answered,
    expected_head: Option<&str>,
) -> Vec<String> {
    let Some(bytes) = &answered.bytes else {
        return vec![match answered.source {
            "edge" | "local" | "policy" => "no reply".to_owned(),
            source => format!("no reply from {source}"),
        }];
    };
    let rendered = render::response(&question.packet, bytes);
    let mut head = rendered.head;
    let mut lines = rendered.lines;
    let annotations = expected_head
        .and_then(|head| head.split_once("   "))
        .map_or("", |(_, annotations)| annotations);
    let mut words = annotations.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "source" => write!(head, "   source {}", answered.source),
            "by" => write!(head, "   by {}", answered.link),
            "size" => write!(head, "   size {}", rendered.size),
            "any-order" => {
                let section = |line: &String| match line.split(' ').next() {
                    Some("authority") => 1,
                    Some("additional") => 2,
                    Some("edns") => 3,
                    _ => 0,
                };
                lines.sort_by(|a, b| section(a).cmp(&section(b)).then_with(|| a.cmp(b)));
                write!(head, "   any-order")
            }
            _ => continue,
        }
        // Writing into a String cannot fail.
        .ok();
        if word != "any-order" {
            words.next();
        }
    }
    lines.insert(0, head);
    lines
}

/// `NAME{label="value",…}`.
fn parse_series(text: &str) -> Result<(String, Vec<(String, String)>), String> {
    let Some((name, labels)) = text.split_once('{') else {
        return Ok((text.to_owned(), Vec::new()));
    };
    let labels = labels
        .strip_suffix('}')
        .ok_or("a series is NAME{label=\"value\",…} without spaces")?;
    let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (label, value) = pair.split_once("=\"").ok_or("a label is name=\"value\"")?;
        Ok((label.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    let pairs: Result<Vec<_>, &str> = pairs.collect();
    Ok((name.to_owned(), pairs?))
}

fn replaced_last_word(step: &Step, word: &str) -> Change {
    let head = match step.head.rsplit_once(' ') {
        Some((head, _)) => format!("{head} {word}"),
        None => step.head.clone(),
    };
    Change::Head(head)
}

fn lines_of(text: &str) -> Vec<String> {
    text.trim_end().lines().map(str::to_owned).collect()
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOAMI: &str = "\
Dnsfile
    example.org {
        whoami
    }
ask example.org. A
    NOERROR qr aa rd   source synthesized
    additional example.org. 0 IN A 127.0.0.1
    additional _udp.example.org. 0 IN SRV 0 0 ... .
ask example.com. A
    REFUSED qr rd
";

    fn failures(text: &str) -> Vec<(usize, String)> {
        let outcome = run_text(text, crate::PLUGINS, false);
        let failures = outcome.failures.into_iter();
        failures
            .map(|failure| (failure.line, failure.what))
            .collect()
    }

    #[test]
    fn a_conversation_that_comes_out_has_no_failures() {
        assert_eq!(failures(WHOAMI), []);
    }

    #[test]
    fn a_difference_is_told_with_its_line() {
        let text = WHOAMI.replace("127.0.0.1", "127.0.0.2");
        let failures = failures(&text);
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].0, 5);
        let what = &failures[0].1;
        assert!(
            what.contains("    - additional example.org. 0 IN A 127.0.0.2\n    + additional example.org. 0 IN A 127.0.0.1\n"),
            "{what}"
        );
    }

    #[test]
    fn every_kind_of_expectation_can_fail() {
        for (step, what) in [
            ("asked upstream 1", "asked 0 times"),
            ("metric skeindns_nothing 1", "it is absent"),
            ("log plugin/whoami", "was not logged"),
            ("http /ready\n    200", "404"),
            ("fails with\n    x", "has no errors"),
            ("warns with\n    x", "- x"),
            ("chain\n    log", "+ whoami"),
            ("ask example.org. A\n    no reply", "+ NOERROR"),
            ("raw 00\n    FORMERR qr", "+ no reply"),
            ("nonsense", "no such step"),
        ] {
            let failures = failures(&format!("{WHOAMI}{step}\n"));
            assert_eq!(failures.len(), 1, "{step}");
            assert!(failures[0].1.contains(what), "{step}: {}", failures[0].1);
        }
    }

    #[test]
    fn an_update_writes_what_came_out_and_keeps_what_stands_for_it() {
        let text = WHOAMI.replace("REFUSED qr rd", "NOERROR qr");
        let outcome = run_text(&text, crate::PLUGINS, true);
        assert_eq!(outcome.updated, WHOAMI);
    }

    #[test]
    fn dots_stand_for_any_text() {
        assert!(stands_for("a ... c", "a b b c"));
        assert!(stands_for("...", ""));
        assert!(stands_for("...s", "1.5s"));
        assert!(!stands_for("a ... c", "a b"));
        assert!(!stands_for("a...a", "a"));
        assert!(!stands_for("a", "b"));
    }
}
