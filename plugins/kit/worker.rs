//! Which worker this thread is: the index of its cells in per-worker tables.

use std::cell::Cell;

/// Workers at most; more threads than this share cells, correctly but slower.
pub const WORKERS_MAX: usize = 256;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// This thread's index: 0 for any thread that is no worker, 1.. for workers.
pub fn index() -> usize {
    INDEX.get()
}

/// Makes this thread worker `number` (counted from 0).
pub fn become_worker(number: usize) {
    INDEX.set(1 + number % (WORKERS_MAX - 1));
}
