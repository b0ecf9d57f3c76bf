//! Our own binary at work.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use super::client::{ask, query};
use super::process::{Lines, Process};

/// The binary; measures name another one than the tests' in `SKEINDNS_BINARY`.
pub(crate) fn binary() -> Command {
    let named = std::env::var_os("SKEINDNS_BINARY");
    Command::new(named.unwrap_or_else(|| env!("CARGO_BIN_EXE_skeindns").into()))
}

/// A running server, its output read line by line.
pub(crate) struct Skeindns {
    pub(crate) process: Process,
    pub(crate) lines: Lines,
    /// Of the first listener that it names.
    pub(crate) port: u16,
}

impl Skeindns {
    /// Writes the Dnsfile into the folder and starts.
    pub(crate) fn start(dir: &Path, dnsfile: &str) -> Skeindns {
        let path = dir.join("Dnsfile");
        fs::write(&path, dnsfile).expect("our folder");
        Skeindns::start_by(binary().arg("--conf").arg(path))
    }

    /// Starts by this command, which ends in the binary.
    pub(crate) fn start_by(command: &mut Command) -> Skeindns {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("our binary is built");
        let lines = Lines::of(&mut child);
        let process = Process(child);
        let line = lines.line(|line| port(line).is_some());
        let port = port(&line).expect("just seen");
        Skeindns {
            process,
            lines,
            port,
        }
    }

    /// The first line of its output that matches and was not asked for before.
    pub(crate) fn line(&self, matches: impl Fn(&str) -> bool) -> String {
        self.lines.line(matches)
    }

    /// Asks over UDP.
    pub(crate) fn ask(&self, name: &str, rtype: RecordType) -> Message {
        ask(self.port, &query(name, rtype))
    }
}

/// The port of a start-up line, `example.org.:1053 on 127.0.0.1`.
fn port(line: &str) -> Option<u16> {
    let (key, _) = line.split_once(" on ").unwrap_or((line, ""));
    let (zone, port) = key.rsplit_once(':')?;
    let is_key = zone.ends_with('.') && !zone.contains(' ');
    is_key.then(|| port.parse().ok()).flatten()
}
