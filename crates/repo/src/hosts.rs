//! Who may be asked when: connections and requests of a host, what it says of its own limits, and a pause after it failed.
//!
//! Nobody waits for a host that is left alone: the repo is asked for again later, and others are read meanwhile.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::RepoError;

/// Hosts that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 * 1024).unwrap();

/// Requests at a time, to all hosts together.
const OF_ALL: usize = 256;

/// The pauses after failures: the first, and how often it doubles.
const FIRST: Duration = Duration::from_secs(5);
const DOUBLINGS: u32 = 9;

/// The longest that a host is left alone because it asks for it.
const LONGEST: Duration = Duration::from_secs(3600);

/// A reset beyond this is not in so many seconds, but at this time.
const EPOCH: u64 = 100_000_000;

/// Says who may be asked when.
#[derive(Debug)]
pub(crate) struct Hosts {
    states: Arc<Mutex<LruCache<Box<str>, State>>>,
    all: Arc<Semaphore>,
    of_host: usize,
    rate: NonZeroU32,
    /// How long a turn is waited for.
    patience: Duration,
}

#[derive(Debug)]
struct State {
    /// When the next request may begin.
    next: Instant,
    /// Until when it is left alone, and why.
    until: Option<(Instant, Pause)>,
    failures: u32,
    in_flight: Arc<Semaphore>,
}

/// Why a host is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pause {
    Failed(Box<str>),
    Limited,
}

/// A request that may begin; the host's connection is this one's until it goes.
#[derive(Debug)]
pub(crate) struct Admitted {
    states: Arc<Mutex<LruCache<Box<str>, State>>>,
    key: Box<str>,
    since: Instant,
    _of_host: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// What a host says of its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    /// How long it asks to be left alone.
    pub(crate) pause: Option<Duration>,
}

// === impl Limit ===

impl Limit {
    /// Reads the headers of an answer: `Retry-After` where it is refused, `RateLimit-Remaining` and `RateLimit-Reset` otherwise. The
    /// reset of a PDS is a time; that of the draft is in so many seconds.
    pub(crate) fn read(
        is_refused: bool,
        retry_after: Option<Duration>,
        remaining: Option<&str>,
        reset: Option<&str>,
        now: Duration,
    ) -> Self {
        let reset = reset.and_then(|reset| reset.trim().parse::<u64>().ok()).map(|reset| match reset {
            EPOCH.. => Duration::from_secs(reset).saturating_sub(now),
            _ => Duration::from_secs(reset),
        });
        let is_spent = remaining.is_some_and(|remaining| remaining.trim().parse::<u64>() == Ok(0));
        let pause = if is_refused { retry_after.or(reset) } else { reset.filter(|_| is_spent) };
        Self { pause: pause.map(|pause| pause.min(LONGEST)) }
    }
}

// === impl Hosts ===

impl Hosts {
    pub(crate) fn new(of_host: NonZeroU32, rate: NonZeroU32, patience: Duration) -> Self {
        let states = Arc::new(Mutex::new(LruCache::new(REMEMBERED)));
        let of_host = usize::try_from(of_host.get()).unwrap_or(1);
        Self { states, all: Arc::new(Semaphore::new(OF_ALL)), of_host, rate, patience }
    }

    /// Waits for a turn, not for a host that is left alone.
    pub(crate) async fn admit(&self, key: &str) -> Result<Admitted, RepoError> {
        if let Some(left_alone) = self.left_alone(key, Instant::now()) {
            return Err(left_alone);
        }
        let busy = || RepoError::Busy { host: name(key).into(), retry_after: self.patience };
        let waited = timeout(self.patience, async {
            let own = self.in_flight(key);
            let of_host = own.acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some((of_host, of_all))
        });
        let (of_host, of_all) = waited.await.ok().flatten().ok_or_else(busy)?;
        // Only who has a connection takes a turn, and what the others have heard meanwhile counts.
        let turn = self.take_turn(key, Instant::now())?;
        sleep_until(turn).await;
        let since = Instant::now();
        if let Some(left_alone) = self.left_alone(key, since) {
            return Err(left_alone);
        }
        Ok(Admitted { states: Arc::clone(&self.states), key: key.into(), since, _of_host: of_host, _of_all: of_all })
    }

    fn in_flight(&self, key: &str) -> Arc<Semaphore> {
        Arc::clone(&self.state(&mut lock(&self.states), key, Instant::now()).in_flight)
    }

    fn state<'s>(&self, states: &'s mut LruCache<Box<str>, State>, key: &str, now: Instant) -> &'s mut State {
        states.get_or_insert_mut(key.into(), || State {
            next: now,
            until: None,
            failures: 0,
            in_flight: Arc::new(Semaphore::new(self.of_host)),
        })
    }

    /// Says why a host is left alone, if it is.
    pub(crate) fn left_alone(&self, key: &str, now: Instant) -> Option<RepoError> {
        let states = lock(&self.states);
        states.peek(key).and_then(|state| state.left_alone(key, now))
    }

    fn take_turn(&self, key: &str, now: Instant) -> Result<Instant, RepoError> {
        let mut states = lock(&self.states);
        let state = self.state(&mut states, key, now);
        if let Some(left_alone) = state.left_alone(key, now) {
            return Err(left_alone);
        }
        let turn = state.next.max(now);
        let wait = turn.duration_since(now);
        if wait > self.patience {
            return Err(RepoError::Busy { host: name(key).into(), retry_after: wait });
        }
        state.next = turn + Duration::from_secs(1) / self.rate.get();
        Ok(turn)
    }
}

// === impl State ===

impl State {
    fn left_alone(&self, key: &str, now: Instant) -> Option<RepoError> {
        let (until, pause) = self.until.as_ref().filter(|(until, _)| now < *until)?;
        let retry_after = until.duration_since(now);
        let host = name(key).into();
        Some(match pause {
            Pause::Limited => RepoError::Limited { host, retry_after },
            Pause::Failed(why) => RepoError::Unreachable { host, why: why.clone(), retry_after },
        })
    }
}

// === impl Admitted ===

impl Admitted {
    /// The host answered; it may have said something of its limits.
    pub(crate) fn answered(&self, limit: Limit) {
        let now = Instant::now();
        let mut states = lock(&self.states);
        let Some(state) = states.peek_mut(&self.key) else { return };
        state.failures = 0;
        if let Some(pause) = limit.pause {
            state.leave_alone(now + pause, Pause::Limited);
        }
    }

    /// The host refuses for a while. Returns how long it is left alone.
    pub(crate) fn limited(&self, limit: Limit) -> RepoError {
        let now = Instant::now();
        let mut states = lock(&self.states);
        let host = name(&self.key).into();
        let Some(state) = states.peek_mut(&self.key) else {
            return RepoError::Limited { host, retry_after: FIRST };
        };
        // One that does not say for how long is asked again later each time.
        let retry_after = match limit.pause {
            Some(pause) => pause.max(Duration::from_secs(1)),
            None => state.next_pause(self.since),
        };
        state.leave_alone(now + retry_after, Pause::Limited);
        RepoError::Limited { host, retry_after }
    }

    /// The host failed, and asks to be left alone for so long.
    pub(crate) fn failed(&self, why: &str, asked: Option<Duration>) -> RepoError {
        let now = Instant::now();
        let mut states = lock(&self.states);
        let host: Box<str> = name(&self.key).into();
        let Some(state) = states.peek_mut(&self.key) else {
            return RepoError::Unreachable { host, why: why.into(), retry_after: FIRST };
        };
        let retry_after = state.next_pause(self.since).max(asked.unwrap_or_default().min(LONGEST));
        state.leave_alone(now + retry_after, Pause::Failed(why.into()));
        RepoError::Unreachable { host, why: why.into(), retry_after }
    }
}

impl State {
    /// Returns the pause after a failure of a request that began then. Of many that failed at one time, one counts.
    fn next_pause(&mut self, began: Instant) -> Duration {
        let is_known = self.until.as_ref().is_some_and(|(until, _)| began < *until);
        if !is_known {
            self.failures = self.failures.saturating_add(1);
        }
        FIRST.saturating_mul(1 << self.failures.saturating_sub(1).min(DOUBLINGS)).min(LONGEST)
    }

    /// Leaves it alone; a longer pause that stands already stays.
    fn leave_alone(&mut self, until: Instant, pause: Pause) {
        if self.until.as_ref().is_none_or(|(held, _)| *held < until) {
            self.until = Some((until, pause));
        }
    }
}

/// Returns the name within the key of a host.
pub(crate) fn name(key: &str) -> &str {
    key.split_once("://").map_or(key, |(_, name)| name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "https://pds.example.com";
    const SECOND: Duration = Duration::from_secs(1);

    fn hosts(of_host: u32, rate: u32) -> Hosts {
        Hosts::new(NonZeroU32::new(of_host).unwrap(), NonZeroU32::new(rate).unwrap(), 30 * SECOND)
    }

    /// How long a host is left alone, in whole seconds.
    fn pause(hosts: &Hosts) -> u64 {
        let left = hosts.left_alone(HOST, Instant::now()).and_then(|error| error.retry_after());
        left.map_or(0, |left| left.as_secs_f64().round() as u64)
    }

    #[test]
    fn limits_are_read_as_hosts_write_them() {
        let now = Duration::from_secs(1_700_000_000);
        let read = |is_refused, retry_after: Option<u64>, remaining, reset| {
            let limit = Limit::read(is_refused, retry_after.map(Duration::from_secs), remaining, reset, now);
            limit.pause.map(|pause| pause.as_secs())
        };
        // A PDS: the reset is a time.
        assert_eq!(read(true, None, Some("0"), Some("1700000090")), Some(90));
        assert_eq!(read(false, None, Some("0"), Some("1700000090")), Some(90));
        assert_eq!(read(false, None, Some("1"), Some("1700000090")), None);
        assert_eq!(read(true, None, Some("0"), Some("1699999999")), Some(0));
        // The draft: it is in so many seconds.
        assert_eq!(read(true, None, Some("0"), Some("90")), Some(90));
        assert_eq!(read(true, Some(7), Some("0"), Some("1700000090")), Some(7));
        assert_eq!(read(true, None, None, None), None);
        assert_eq!(read(false, Some(7), None, None), None);
        assert_eq!(read(true, Some(1_000_000), None, None), Some(3600));
        assert_eq!(read(true, None, None, Some("soon")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_fails_is_left_alone_for_longer_each_time() {
        let hosts = hosts(2, 1000);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            hosts.admit(HOST).await.unwrap().failed("answered 502", None);
            assert!(matches!(hosts.admit(HOST).await, Err(RepoError::Unreachable { .. })));
            pauses.push(pause(&hosts));
            tokio::time::advance(LONGEST).await;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 2560, 2560]);
        hosts.admit(HOST).await.unwrap().answered(Limit::default());
        hosts.admit(HOST).await.unwrap().failed("answered 502", Some(Duration::from_secs(100)));
        assert_eq!(pause(&hosts), 100);
        assert!(hosts.admit("https://other.example.com").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_fail_at_one_time_are_one_failure() {
        let hosts = hosts(8, 1000);
        let mut admitted = Vec::new();
        for _ in 0..8 {
            admitted.push(hosts.admit(HOST).await.unwrap());
        }
        for admitted in admitted {
            admitted.failed("answered 502", None);
        }
        assert_eq!(pause(&hosts), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_refuses_is_left_alone_as_long_as_it_says() {
        let hosts = hosts(2, 1000);
        let limit = Limit { pause: Some(90 * SECOND) };
        assert_eq!(hosts.admit(HOST).await.unwrap().limited(limit).retry_after(), Some(90 * SECOND));
        assert!(matches!(hosts.admit(HOST).await, Err(RepoError::Limited { .. })));
        tokio::time::advance(90 * SECOND).await;
        // Spent, though it answered.
        hosts.admit(HOST).await.unwrap().answered(Limit { pause: Some(30 * SECOND) });
        assert_eq!(pause(&hosts), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn one_host_has_so_many_connections_and_so_many_requests_a_second() {
        let hosts = hosts(2, 10);
        let held = (hosts.admit(HOST).await.unwrap(), hosts.admit(HOST).await.unwrap());
        assert!(matches!(hosts.admit(HOST).await, Err(RepoError::Busy { .. })));
        drop(held);
        let since = Instant::now();
        for _ in 0..21 {
            drop(hosts.admit(HOST).await.unwrap());
        }
        let took = since.elapsed();
        assert!(took >= 2 * SECOND && took < 3 * SECOND, "{took:?}");
    }
}
