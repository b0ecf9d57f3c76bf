//! Time as the kit reads it: tokio's monotonic clock, so that a test can stop it and turn it on.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// The monotonic time.
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds and nanoseconds since 1970, by the monotonic clock from the first call on: a step of the
/// system's clock while we run makes no TTL jump.
pub fn unix_now() -> Duration {
    static START: OnceLock<(Instant, Duration)> = OnceLock::new();
    let (instant, unix) = START.get_or_init(|| {
        (
            Instant::now(),
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        )
    });
    *unix + Instant::now().saturating_duration_since(*instant)
}
