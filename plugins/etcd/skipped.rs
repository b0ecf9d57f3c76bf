//! [`Skipped`]: says which values cannot be read, but not a hundred thousand times.

use std::time::Duration;

use crate::kit::clock::Instant;

/// Lines about single values in each [`EVERY`]: whoever mends them by hand is not helped by more.
const LINES_MAX: usize = 20;
/// After that the others are counted in one line, and single ones are said again.
const EVERY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(super) struct Skipped {
    since: Option<Instant>,
    said: usize,
    untold: usize,
}

impl Skipped {
    /// One more; whether it is worth a line.
    pub(super) fn one(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        if self.said < LINES_MAX {
            self.said += 1;
            return true;
        }
        self.untold += 1;
        false
    }

    /// From time to time: how many had no line, if it is time to say so.
    pub(super) fn untold(&mut self, now: Instant) -> Option<usize> {
        let since = self.since?;
        if now.saturating_duration_since(since) < EVERY {
            return None;
        }
        let untold = self.untold;
        *self = Skipped::default();
        (untold > 0).then_some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::clock;

    #[test]
    fn a_flood_is_twenty_lines_and_a_number() {
        let mut skipped = Skipped::default();
        let start = clock::now();
        let said = (0..100_000).filter(|_| skipped.one(start)).count();
        assert_eq!(said, 20);
        assert_eq!(skipped.untold(start), None);
        assert_eq!(skipped.untold(start + EVERY), Some(99_980));
        assert_eq!(skipped.untold(start + EVERY), None);
        assert!(skipped.one(start + EVERY));
        assert_eq!(skipped.untold(start + EVERY * 2), None);
    }
}
