//! Which upstream is asked next.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::config::Order;

/// The upstreams for one query, in the order of the policy, over and over. No allocation.
pub(super) struct Choices {
    order: Order,
    upstreams: usize,
    // Where round_robin starts.
    first: usize,
    // How many of this round were looked at, and for `random` which: a bit each.
    seen: usize,
    drawn: u64,
}

/// An upstream to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// One that is not known to be down.
    Healthy(usize),
    /// All are down: this one, at random.
    AllDown(usize),
}

impl Choices {
    /// `turn` is where the worker's round_robin stands.
    pub(super) fn new(order: Order, upstreams: usize, turn: &AtomicUsize) -> Choices {
        let first = match order {
            // The worker is the only one that writes it.
            Order::RoundRobin => {
                let next = turn.load(Relaxed).wrapping_add(1);
                turn.store(next, Relaxed);
                next % upstreams.max(1)
            }
            Order::Random | Order::Sequential => 0,
        };
        Choices {
            order,
            upstreams: upstreams.min(u64::BITS as usize),
            first,
            seen: 0,
            drawn: 0,
        }
    }

    /// The next one that is not down; after the last one it starts again.
    pub(super) fn next(&mut self, is_down: impl Fn(usize) -> bool) -> Choice {
        for _ in 0..self.upstreams {
            let at = self.draw();
            if !is_down(at) {
                return Choice::Healthy(at);
            }
        }
        Choice::AllDown(random_below(self.upstreams))
    }

    fn draw(&mut self) -> usize {
        if self.seen >= self.upstreams {
            self.seen = 0;
            self.drawn = 0;
        }
        let at = match self.order {
            Order::Sequential => self.seen,
            Order::RoundRobin => (self.first + self.seen) % self.upstreams.max(1),
            Order::Random => {
                let mut skip = random_below(self.upstreams - self.seen);
                let is_left = |at: &usize| self.drawn & (1 << at) == 0;
                let mut left = (0..self.upstreams).filter(is_left);
                let mut at = left.next().unwrap_or(0);
                while skip > 0 {
                    skip -= 1;
                    at = left.next().unwrap_or(at);
                }
                self.drawn |= 1 << at;
                at
            }
        };
        self.seen += 1;
        at
    }
}

fn random_below(n: usize) -> usize {
    match n {
        0 | 1 => 0,
        _ => rand::random_range(0..n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(order: Order, turn: &AtomicUsize) -> Vec<usize> {
        let mut choices = Choices::new(order, 4, turn);
        (0..4)
            .map(|_| match choices.next(|_| false) {
                Choice::Healthy(at) => at,
                Choice::AllDown(_) => unreachable!("nobody is down"),
            })
            .collect()
    }

    #[test]
    fn sequential_is_the_order_written() {
        let turn = AtomicUsize::new(0);
        assert_eq!(round(Order::Sequential, &turn), [0, 1, 2, 3]);
        assert_eq!(round(Order::Sequential, &turn), [0, 1, 2, 3]);
    }

    #[test]
    fn round_robin_starts_one_further_each_time() {
        let turn = AtomicUsize::new(0);
        assert_eq!(round(Order::RoundRobin, &turn), [1, 2, 3, 0]);
        assert_eq!(round(Order::RoundRobin, &turn), [2, 3, 0, 1]);
    }

    #[test]
    fn random_draws_each_once_and_begins_with_any() {
        let turn = AtomicUsize::new(0);
        let mut first = [0; 4];
        for _ in 0..400 {
            let mut drawn = round(Order::Random, &turn);
            first[drawn[0]] += 1;
            drawn.sort_unstable();
            assert_eq!(drawn, [0, 1, 2, 3]);
        }
        assert!(first.iter().all(|n| *n > 40), "{first:?}");
    }

    #[test]
    fn those_that_are_down_are_passed_over() {
        let turn = AtomicUsize::new(0);
        let mut choices = Choices::new(Order::Sequential, 3, &turn);
        assert_eq!(choices.next(|at| at == 0), Choice::Healthy(1));
        assert_eq!(choices.next(|at| at == 0), Choice::Healthy(2));
        assert_eq!(choices.next(|at| at == 0), Choice::Healthy(1));
        assert!(matches!(choices.next(|_| true), Choice::AllDown(0..3)));
    }
}
