//! The walkthroughs in docs/skydns and docs/zh/skydns, run line by line in a network of their own: five members of etcd, the DNS server, machines
//! that register themselves. What they print must be what the document promises.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use regex::Regex;

mod support;

use support::{Lines, PATIENCE, Process};

/// A command of a document, and what it must print.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
}

/// The commands of the `console` blocks.
fn steps(document: &Path) -> Vec<Step> {
    let text = fs::read_to_string(document).expect("the document is there");
    let mut steps: Vec<Step> = Vec::new();
    let mut is_inside = false;
    for (at, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            is_inside = line == "```console";
        } else if is_inside {
            match line.strip_prefix("# ") {
                Some(command) => steps.push(Step {
                    line: at + 1,
                    command: command.to_owned(),
                    output: Vec::new(),
                }),
                None => {
                    let step = steps.last_mut().expect("a block begins with a command");
                    step.output.push(line.to_owned());
                }
            }
        }
    }
    steps
}

fn document(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A shell of root in namespaces of its own: network, processes, and the folders that the document writes into.
struct Shell {
    process: Process,
    lines: Lines,
    commands: usize,
}

impl Shell {
    fn start() -> Shell {
        let folder = Path::new(env!("CARGO_BIN_EXE_skeindns")).parent();
        let folder = folder.expect("a binary is in a folder").display();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "bash"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", format!("{folder}:{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare is part of every Linux");
        let lines = Lines::of(&mut child);
        let mut shell = Shell {
            process: Process(child),
            lines,
            commands: 0,
        };
        for command in [
            "exec 2>&1",
            "mkdir -p /run/netns /run/skydns-lab",
            "mount -t tmpfs none /run/netns && mount -t tmpfs none /run/skydns-lab",
            "ip link set lo up",
        ] {
            let (status, output) = shell.run(command);
            assert_eq!(
                status, "0",
                "the walkthrough needs root and network namespaces: {command}: {output}"
            );
        }
        shell
    }

    /// Exit code and output.
    fn run(&mut self, command: &str) -> (String, String) {
        use std::io::Write;
        self.commands += 1;
        let mark = format!("end of command {}:", self.commands);
        let stdin = self.process.0.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{command}\nprintf '\\n{mark} %s\\n' $?").expect("bash reads");
        let end = self.lines.line(|line| line.starts_with(&mark));
        let status = end.trim_start_matches(&mark).trim().to_owned();
        let output = self.lines.so_far().join("\n");
        (status, output.trim_end().to_owned())
    }

    /// Runs a step, again until it prints what it must: most of them look at what is on its way.
    fn step(&mut self, document: &str, step: &Step) {
        let place = format!("{document}:{}: {}", step.line, step.command);
        if step.output.is_empty() {
            let (status, output) = self.run(&step.command);
            assert!(
                status == "0" && output.is_empty(),
                "{place}\n{status}: {output}"
            );
            return;
        }
        let wanted = step.output.join("\n");
        let pattern = regex::escape(wanted.trim_end()).replace('…', "(?s:.*)");
        let pattern = Regex::new(&format!("^{pattern}$")).expect("an escaped text");
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, output) = self.run(&step.command);
            if pattern.is_match(&output) {
                return;
            }
            assert!(
                Instant::now() < end,
                "{place}\nmust print\n{wanted}\nand prints\n{output}"
            );
        }
    }
}

fn walk(path: &str) {
    let steps = steps(&document(path));
    assert!(steps.len() > 40, "{path} has commands");
    let mut shell = Shell::start();
    for step in &steps {
        shell.step(path, step);
    }
}

#[test]
fn in_english() {
    walk("docs/skydns/walkthrough.md");
}

#[test]
fn in_chinese() {
    walk("docs/zh/skydns/walkthrough.md");
}

#[test]
fn both_have_the_same_commands() {
    let commands = |path: &str| -> Vec<(String, Vec<String>)> {
        let steps = steps(&document(path)).into_iter();
        steps.map(|step| (step.command, step.output)).collect()
    };
    assert_eq!(
        commands("docs/skydns/walkthrough.md"),
        commands("docs/zh/skydns/walkthrough.md")
    );
}
