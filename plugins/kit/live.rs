//! [`Live`]: a value that every worker reads and somebody replaces now and then: a table read from a file, say.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::worker::{self, WORKERS_MAX};

/// A value with a place per worker, so that no two workers write the same memory to read it.
///
/// A replacement is seen by one worker after the other; each reads the whole old value or the whole new one.
pub struct Live<T> {
    places: Box<[Place<T>]>,
}

/// Two cache lines apart: the processor fetches them in pairs.
#[repr(align(128))]
struct Place<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    /// The first value, for this many workers and everybody else.
    pub fn new(value: T, workers: usize) -> Live<T> {
        let value = Arc::new(value);
        Live {
            places: (0..(workers + 1).min(WORKERS_MAX))
                .map(|_| Place(RwLock::new(Arc::clone(&value))))
                .collect(),
        }
    }

    /// The value of this moment. Holds up a replacement: let go of it before anything that takes long, and before `next.serve`. No allocation.
    pub fn read(&self) -> RwLockReadGuard<'_, Arc<T>> {
        let at = worker::index() % self.places.len();
        self.places[at]
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another value in everybody's place. The old one is freed here, not by a worker, unless somebody has kept an `Arc` of it.
    pub fn replace(&self, value: T) {
        let value = Arc::new(value);
        for place in &self.places {
            let mut place = place.0.write().unwrap_or_else(PoisonError::into_inner);
            let old = std::mem::replace(&mut *place, Arc::clone(&value));
            drop(place);
            drop(old);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&**self.read()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sees_the_new_value_and_the_old_one_is_freed() {
        let live = Live::new(String::from("old"), 3);
        let old = Arc::downgrade(&*live.read());
        assert_eq!(live.read().as_str(), "old");
        live.replace(String::from("new"));
        assert!(old.upgrade().is_none());
        std::thread::scope(|scope| {
            for number in 0..5 {
                let live = &live;
                scope.spawn(move || {
                    worker::become_worker(number);
                    assert_eq!(live.read().as_str(), "new");
                });
            }
        });
    }
}
