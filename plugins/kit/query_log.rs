//! The query log's way out: a buffer per worker and one thread that writes.
//!
//! A line is formatted straight into the buffer of its worker, whose lock nobody else holds but for the moment of a swap. When a buffer is
//! full the line is dropped and counted: a slow disk or pipe never holds an answer up.

use std::io::Write;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::metrics::{Counter, Metrics};
use super::worker;

/// Octets that wait to be written, per worker: a fifth of a second at 50,000 lines a second.
const BUFFER_OCTETS_MAX: usize = 1 << 20;
/// How long lines gather before they are written together.
const GATHER: Duration = Duration::from_millis(5);

/// Lines that a test wants to see instead of writing them: a double.
#[derive(Default)]
pub struct QueryLogCapture {
    /// Whole lines without their ends.
    pub lines: Mutex<Vec<String>>,
}

/// Where query log lines go. Kept by the process; cheap to clone.
pub struct QueryLog {
    shared: Arc<Shared>,
    capture: Option<Arc<QueryLogCapture>>,
}

struct Shared {
    buffers: Box<[Mutex<Vec<u8>>]>,
    // Set by the first line after a write; the writer sleeps while it is clear.
    pending: AtomicBool,
    wake: Mutex<()>,
    woken: Condvar,
    writing: Mutex<Vec<u8>>,
    dropped: Counter,
    ended: AtomicBool,
}

impl QueryLog {
    /// A log that writes to standard output from a thread of its own.
    pub fn new(metrics: &Metrics, workers: usize) -> QueryLog {
        let log = QueryLog::without_writer(metrics, workers, None);
        let shared = Arc::clone(&log.shared);
        let spawned = std::thread::Builder::new()
            .name("query-log".into())
            .stack_size(64 << 10)
            .spawn(move || shared.write_on());
        if let Err(error) = spawned {
            tracing::error!("plugin/log: cannot start the writer: {error}");
        }
        log
    }

    /// A log that a test reads.
    pub fn captured(metrics: &Metrics, capture: Arc<QueryLogCapture>) -> QueryLog {
        QueryLog::without_writer(metrics, 0, Some(capture))
    }

    fn without_writer(
        metrics: &Metrics,
        workers: usize,
        capture: Option<Arc<QueryLogCapture>>,
    ) -> QueryLog {
        let dropped = metrics.counter(
            "skeindns_log_dropped_total",
            "Query log lines dropped because the writer fell behind.",
            &[],
        );
        let shared = Shared {
            buffers: (0..=workers).map(|_| Mutex::default()).collect(),
            pending: AtomicBool::new(false),
            wake: Mutex::default(),
            woken: Condvar::new(),
            writing: Mutex::default(),
            dropped,
            ended: AtomicBool::new(false),
        };
        QueryLog {
            shared: Arc::new(shared),
            capture,
        }
    }

    /// Lets `write` append one line, its end included. No allocation once the buffer has grown.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = &*self.shared;
        if let Some(capture) = &self.capture {
            let mut line = Vec::new();
            write(&mut line);
            let mut lines = capture
                .lines
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            lines.push(
                String::from_utf8_lossy(&line)
                    .trim_end_matches('\n')
                    .to_owned(),
            );
            return;
        }
        let Some(buffer) = shared
            .buffers
            .get(worker::index().min(shared.buffers.len() - 1))
        else {
            return;
        };
        {
            let mut buffer = buffer
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            if buffer.len() >= BUFFER_OCTETS_MAX {
                shared.dropped.inc();
                return;
            }
            write(&mut buffer);
        }
        if !shared.pending.load(Acquire) && !shared.pending.swap(true, AcqRel) {
            drop(
                shared
                    .wake
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
            );
            shared.woken.notify_one();
        }
    }

    /// Writes what is buffered now.
    pub fn flush(&self) {
        self.shared.write_out();
    }
}

impl Drop for QueryLog {
    fn drop(&mut self) {
        self.shared.write_out();
        self.shared.ended.store(true, Release);
        self.shared.pending.store(true, Release);
        drop(
            self.shared
                .wake
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        );
        self.shared.woken.notify_one();
    }
}

impl Shared {
    fn write_on(&self) {
        loop {
            let mut guard = self
                .wake
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            while !self.pending.load(Acquire) {
                guard = self
                    .woken
                    .wait(guard)
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            drop(guard);
            if self.ended.load(Acquire) {
                return;
            }
            std::thread::sleep(GATHER);
            self.pending.store(false, Release);
            self.write_out();
        }
    }

    fn write_out(&self) {
        let mut writing = self
            .writing
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        for buffer in &self.buffers {
            {
                let mut buffer = buffer
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                if buffer.is_empty() {
                    continue;
                }
                std::mem::swap(&mut *buffer, &mut *writing);
            }
            // Whoever reads our output may have gone; the lines go with it.
            std::io::stdout().write_all(&writing).ok();
            writing.clear();
        }
        std::io::stdout().flush().ok();
    }
}
