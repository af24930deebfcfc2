//! [`Backoff`]: how long to wait before the next try.

use std::time::Duration;

use rand::Rng;

/// Waits that double, each cut short by chance: nodes that lost one datastore at one moment do not come back at one moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits up to `first`, then up to twice that, and so on up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Starts over, after a success.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next wait: by chance between nothing and the current limit.
    pub fn next_wait(&mut self) -> Duration {
        let limit = self.next;
        self.next = (limit * 2).min(self.longest);
        limit.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// Waits.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }
}

impl Default for Backoff {
    /// From 100 ms to 5 s, as flannel waits for etcd.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_under_a_limit_that_doubles_and_starts_over() {
        let mut backoff = Backoff::default();
        for limit in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert!(backoff.next_wait() <= Duration::from_millis(limit));
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let waits = |mut backoff: Backoff| (0..8).map(|_| backoff.next_wait()).collect::<Vec<_>>();
        assert_ne!(waits(Backoff::default()), waits(Backoff::default()));
    }
}
