//! Processes, their output, ports, and waiting.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How long anything here may take: generous, since machines are slow at times. Nothing waits this long when it works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal, `-HUP`.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.id().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Ends it with no time for anything.
    pub(crate) fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the process ends", || self.0.try_wait().ok().flatten())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .expect("loopback has ports")
        .port()
}

/// Waits until `what` holds; panics with its name when patience ends.
pub(crate) fn until<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < end, "waited too long until {name}");
        // Not synchronisation: only the pace at which we look.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lines that a process prints. Which comes first is often not promised, so one that was passed over can be asked for later.
pub(crate) struct Lines {
    lines: Receiver<String>,
    passed: RefCell<Vec<String>>,
}

impl Lines {
    /// Of its standard output, and of its standard error if that is a pipe too.
    pub(crate) fn of(child: &mut Child) -> Lines {
        let (sender, lines) = sync_channel(10_000);
        if let Some(errors) = child.stderr.take() {
            read(errors, sender.clone());
        }
        read(child.stdout.take().expect("it is a pipe"), sender);
        Lines {
            lines,
            passed: RefCell::default(),
        }
    }

    /// The first line that matches and was not asked for before.
    pub(crate) fn line(&self, matches: impl Fn(&str) -> bool) -> String {
        let mut passed = self.passed.borrow_mut();
        if let Some(at) = passed.iter().position(|line| matches(line)) {
            return passed.remove(at);
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("the line does not come after {passed:#?}"));
            if matches(&line) {
                return line;
            }
            passed.push(line);
        }
    }

    /// Lines that are there already and were not asked for.
    pub(crate) fn so_far(&self) -> Vec<String> {
        let mut passed = self.passed.borrow_mut();
        passed.extend(self.lines.try_iter());
        std::mem::take(&mut *passed)
    }
}

fn read(from: impl Read + Send + 'static, to: SyncSender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Nobody may be reading any more; the process must not wait for that.
            to.try_send(line).ok();
        }
    });
}
