//! Who may be asked when: a rate for each host, a pause after it failed, and shares, so that a slow one costs nobody else.

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::Urgency;
use super::shares::{Share, Shares};
use crate::error::ResolveError;

/// Hosts that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 * 1024).unwrap();

/// Requests to one host at a time.
const OF_HOST: usize = 8;

/// Those to the directory.
const OF_DIRECTORY: usize = 64;

/// The pauses after failures double up to this often.
const DOUBLINGS: u32 = 6;

/// The directory is what everything waits for: it is asked again soon.
const FIRST_OF_DIRECTORY: Duration = Duration::from_secs(1);
const LAST_OF_DIRECTORY: Duration = Duration::from_secs(30);

/// Says who may be asked when.
#[derive(Debug)]
pub(super) struct Hosts {
    states: Arc<Mutex<LruCache<Box<str>, State>>>,
    shares: Shares,
    rate: NonZeroU32,
    patience: Duration,
    retry_after: Duration,
    directory: Box<str>,
}

#[derive(Debug)]
struct State {
    /// When the next request may begin.
    next: Instant,
    until: Option<Instant>,
    failures: u32,
    in_flight: Arc<Semaphore>,
}

/// A request that may begin.
#[derive(Debug)]
pub(super) struct Admitted {
    states: Arc<Mutex<LruCache<Box<str>, State>>>,
    host: Box<str>,
    first: Duration,
    last: Duration,
    _of_host: OwnedSemaphorePermit,
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// The host is well.
    Answered,
    /// It is not, and asks to be left alone for so long.
    Failed(Option<Duration>),
}

// === impl Hosts ===

impl Hosts {
    pub(super) fn new(rate: NonZeroU32, patience: Duration, retry_after: Duration, directory: Box<str>) -> Self {
        let states = Arc::new(Mutex::new(LruCache::new(REMEMBERED)));
        Self { states, shares: Shares::new(patience), rate, patience, retry_after, directory }
    }

    /// Waits for its turn, no longer than a request may take.
    pub(super) async fn admit(&self, host: &str, urgency: Urgency) -> Result<Admitted, ResolveError> {
        let (turn, own) = self.take_turn(host, urgency, Instant::now())?;
        let waited = timeout(self.patience, async {
            sleep_until(turn).await;
            own.acquire_owned().await.ok()
        });
        let busy = || ResolveError::Busy { host: name(host).into() };
        let of_host = waited.await.ok().flatten().ok_or_else(busy)?;
        Ok(self.admitted(host, of_host))
    }

    fn admitted(&self, host: &str, of_host: OwnedSemaphorePermit) -> Admitted {
        let (first, last) = if *self.directory == *host {
            let first = FIRST_OF_DIRECTORY.min(self.retry_after);
            (first, LAST_OF_DIRECTORY.min(self.retry_after.max(first)))
        } else {
            (self.retry_after, self.retry_after.saturating_mul(1 << DOUBLINGS))
        };
        Admitted { states: Arc::clone(&self.states), host: host.into(), first, last, _of_host: of_host }
    }

    /// Takes a share of an address, and of all requests; none where they do not come free in time.
    pub(super) async fn share_of(&self, address: IpAddr) -> Option<Share> {
        self.shares.of(address).await
    }

    fn take_turn(&self, host: &str, urgency: Urgency, now: Instant) -> Result<(Instant, Arc<Semaphore>), ResolveError> {
        let mut states = lock(&self.states);
        let state = states.get_or_insert_mut(host.into(), || State {
            next: now,
            until: None,
            failures: 0,
            in_flight: Arc::new(Semaphore::new(if *self.directory == *host { OF_DIRECTORY } else { OF_HOST })),
        });
        if let Some(until) = state.until.filter(|until| now < *until) {
            let pause = until.duration_since(now).as_secs() + 1;
            return Err(ResolveError::unreachable(name(host), format!("failed and is left alone for {pause} s")));
        }
        let every = Duration::from_secs(1) / self.rate.get();
        let turn = state.next.max(now);
        // Who does not wait leaves every other turn to those who do.
        let late = match urgency {
            Urgency::Now => turn.duration_since(now) > self.patience,
            Urgency::Background => now.duration_since(state.next) < every && state.next != now,
        };
        if late {
            return Err(ResolveError::Busy { host: name(host).into() });
        }
        state.next = turn + every;
        Ok((turn, Arc::clone(&state.in_flight)))
    }
}

// === impl Admitted ===

impl Admitted {
    /// Says what became of it, and how long that took.
    pub(super) fn done(self, outcome: Outcome, took: Duration) {
        self.done_at(outcome, took, Instant::now());
    }

    fn done_at(self, outcome: Outcome, took: Duration, now: Instant) {
        let mut states = lock(&self.states);
        let Some(state) = states.peek_mut(&self.host) else { return };
        match outcome {
            Outcome::Answered => {
                state.failures = 0;
                // A longer pause that somebody else was asked for stays.
                state.until = state.until.filter(|until| now < *until);
            }
            Outcome::Failed(asked) => {
                // Of many that failed at one time, one counts.
                let began = now.checked_sub(took).unwrap_or(now);
                let is_known = state.until.is_some_and(|until| began < until);
                let factor = 1 << state.failures.min(DOUBLINGS);
                let pause = self.first.saturating_mul(factor).min(self.last).max(asked.unwrap_or_default());
                if !is_known || asked.is_some() {
                    state.until = state.until.max(Some(now + pause));
                }
                if !is_known {
                    state.failures = state.failures.saturating_add(1);
                }
            }
        }
    }
}

/// Returns the name within the key of a host.
fn name(key: &str) -> &str {
    key.split_once("://").map_or(key, |(_, name)| name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::shares::OF_ADDRESS;
    use super::*;

    const DIRECTORY: &str = "https://plc.example.com";
    const HOST: &str = "https://pds.example.com";
    const SECOND: Duration = Duration::from_secs(1);

    fn hosts(rate: u32, patience: Duration) -> Hosts {
        Hosts::new(NonZeroU32::new(rate).unwrap(), patience, 60 * SECOND, DIRECTORY.into())
    }

    fn admit(hosts: &Hosts, host: &str, now: Instant) -> Option<Admitted> {
        let (_, own) = hosts.take_turn(host, Urgency::Now, now).ok()?;
        Some(hosts.admitted(host, own.try_acquire_owned().ok()?))
    }

    /// For how many seconds a host is left alone from now on; passes them.
    fn pause(hosts: &Hosts, host: &str, now: &mut Instant) -> u64 {
        let since = *now;
        while admit(hosts, host, *now).is_none() {
            *now += SECOND;
        }
        now.duration_since(since).as_secs()
    }

    #[test]
    fn a_host_that_fails_is_left_alone_for_longer_each_time() {
        let hosts = hosts(10_000, 10 * SECOND);
        let mut now = Instant::now();
        for (host, expected) in
            [(HOST, [60, 120, 240, 480, 960, 1_920, 3_840, 3_840]), (DIRECTORY, [1, 2, 4, 8, 16, 30, 30, 30])]
        {
            let mut pauses = Vec::new();
            for _ in 0..expected.len() {
                admit(&hosts, host, now).unwrap().done_at(Outcome::Failed(None), Duration::ZERO, now);
                pauses.push(pause(&hosts, host, &mut now));
            }
            assert_eq!(pauses, expected);
            admit(&hosts, host, now).unwrap().done_at(Outcome::Answered, Duration::ZERO, now);
            admit(&hosts, host, now).unwrap().done_at(Outcome::Failed(None), Duration::ZERO, now);
            assert_eq!(pause(&hosts, host, &mut now), expected[0]);
        }
        let asked = Outcome::Failed(Some(600 * SECOND));
        admit(&hosts, DIRECTORY, now).unwrap().done_at(asked, Duration::ZERO, now);
        assert_eq!(pause(&hosts, DIRECTORY, &mut now), 600);
    }

    #[test]
    fn many_that_fail_at_one_time_are_one_failure() {
        let hosts = hosts(10_000, 10 * SECOND);
        let mut now = Instant::now();
        let admitted: Vec<_> = (0..8).map(|_| admit(&hosts, HOST, now).unwrap()).collect();
        now += 3 * SECOND;
        for admitted in admitted {
            admitted.done_at(Outcome::Failed(None), 3 * SECOND, now);
        }
        assert_eq!(pause(&hosts, HOST, &mut now), 60);
    }

    #[test]
    fn requests_have_their_turns_and_no_more_wait_than_can_come_in_time() {
        let hosts = hosts(2, 3 * SECOND);
        let now = Instant::now();
        let turns: Vec<_> = (0..9).map(|_| hosts.take_turn(HOST, Urgency::Now, now).ok()).collect();
        let waits: Vec<_> = turns.iter().flatten().map(|(turn, _)| turn.duration_since(now).as_millis()).collect();
        assert_eq!(waits, [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000]);
        assert!(hosts.take_turn("https://other.example.com", Urgency::Now, now).is_ok());
    }

    #[test]
    fn who_does_not_wait_takes_no_turn_from_those_who_do() {
        let hosts = hosts(1, 10 * SECOND);
        let now = Instant::now();
        let take = |urgency, after: u32| hosts.take_turn(DIRECTORY, urgency, now + SECOND * after / 10).is_ok();
        assert!(take(Urgency::Background, 0));
        assert!(!take(Urgency::Background, 1));
        assert!(take(Urgency::Now, 1));
        // The next turn is free at two seconds, and is left free for one more.
        assert!(!take(Urgency::Background, 25));
        assert!(take(Urgency::Background, 31));
    }

    #[tokio::test]
    async fn one_host_has_so_many_requests_at_a_time_and_one_address_too() {
        let hosts = hosts(10_000, Duration::from_millis(200));
        let mut held = Vec::new();
        for _ in 0..OF_HOST {
            held.push(hosts.admit(HOST, Urgency::Now).await.unwrap());
        }
        let busy = ResolveError::Busy { host: "pds.example.com".into() };
        assert_eq!(hosts.admit(HOST, Urgency::Now).await.unwrap_err(), busy);
        drop(held);
        assert!(hosts.admit(HOST, Urgency::Now).await.is_ok());
        let mut shares = Vec::new();
        for n in 0..OF_ADDRESS {
            shares.push(hosts.share_of(format!("2001:db8:1:{n}::1").parse().unwrap()).await.unwrap());
        }
        assert!(hosts.share_of("2001:db8:1::2".parse().unwrap()).await.is_none());
        assert!(hosts.share_of("2001:db8:2::1".parse().unwrap()).await.is_some());
    }
}
