//! How much each repo sends, in a table of fixed size; what exceeds its rate goes to the second stream.
//!
//! Each repo has a bucket that fills with what it sends and leaks its limit per minute. Once it holds more than a minute's worth,
//! all events of the repo are above the rate until half of that has leaked: if they alternated, its entries in the first stream
//! would wait for the locks of those in the second. Minutes are of event time: while ingest catches up, an hour of events arrives
//! within seconds, and no repo has sent more because of that.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// How many places a repo's bucket may take.
const WAYS: usize = 8;

/// How many sets of such places there are: 32,768 buckets of 32 bytes. A bucket that has leaked dry is free, so they suffice
/// for many more repos.
const SETS: usize = 4_096;

/// How many repos' times are sampled to tell how fast event time passes.
const SAMPLES: usize = 31;

/// How often that is judged.
const JUDGED: Duration = Duration::from_secs(1);

const MINUTE: f32 = 60_000.0;

/// What one repo may send per minute; none where unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Limit {
    events: Option<f32>,
    bytes: Option<f32>,
}

/// What one repo has sent and not yet leaked.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The hash of its DID; 0 where the place is free.
    repo: u64,
    /// When it was last looked at, in milliseconds of event time.
    at: u64,
    events: f32,
    bytes: f32,
    /// The second, counted from the first event, in which its time was last sampled: once per second at most, so that a busy repo
    /// has no more say than others. 0 for never.
    sampled: u32,
    is_above: bool,
}

/// A clock that runs like ours, and faster while the events' times do.
#[derive(Debug, Default)]
struct Flow {
    /// When the first and the last event arrived.
    first: Option<Instant>,
    last: Option<Instant>,
    millis: u64,
    /// Event times of different repos; the oldest is overwritten first.
    samples: Vec<i64>,
    next: usize,
    fresh: usize,
    judged: Option<Instant>,
    /// The greatest median of them so far, in milliseconds since the epoch.
    reached: Option<i64>,
}

/// The rates of all repos.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    limit: Limit,
    hasher: RandomState,
    sets: Vec<[Bucket; WAYS]>,
    flow: Flow,
}

/// One event, as far as rates are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    /// The repo or account.
    pub(crate) did: &'a str,
    /// Whether it is a commit. Account events are counted separately, so that a deletion is not held up by the repo's records.
    pub(crate) is_commit: bool,
    /// How many ops it has, at least 1.
    pub(crate) ops: usize,
    /// How large it is.
    pub(crate) bytes: usize,
    /// The time it claims.
    pub(crate) time: Option<Timestamp>,
}

// === impl Rates ===

impl Rates {
    /// Starts with what one repo may send per minute; 0 for unlimited.
    pub(crate) fn new(events: u64, bytes: u64) -> Self {
        let some = |limit: u64| (limit > 0).then_some(limit as f32);
        Self { limit: Limit { events: some(events), bytes: some(bytes) }, ..Self::default() }
    }

    /// Counts an event; returns whether its repo exceeds its rate.
    pub(crate) fn is_above(&mut self, sent: Sent<'_>, received: Instant, now: Timestamp) -> bool {
        if self.limit == Limit::default() {
            return false;
        }
        if self.sets.is_empty() {
            self.sets.resize(SETS, [Bucket::default(); WAYS]);
        }
        let at = self.flow.come(received);
        let seconds = self.flow.seconds();
        let repo = self.hasher.hash_one((sent.did, sent.is_commit)).max(1);
        let limit = self.limit;
        let Some(set) = self.sets.get_mut((repo as usize) % SETS) else { return false };
        let place = match set.iter().position(|bucket| bucket.repo == repo) {
            Some(place) => place,
            None => {
                set.iter_mut().for_each(|bucket| bucket.leak(limit, at));
                let load = |bucket: &Bucket| bucket.load(limit);
                let least = set.iter().enumerate().min_by(|(_, a), (_, b)| load(a).total_cmp(&load(b)));
                least.map_or(0, |(place, _)| place)
            }
        };
        let Some(bucket) = set.get_mut(place) else { return false };
        if bucket.repo != repo {
            *bucket = Bucket { repo, at, ..Bucket::default() };
        }
        if let Some(time) = sent.time
            && seconds > bucket.sampled
        {
            bucket.sampled = seconds;
            self.flow.sample(time.min(now).as_millisecond());
        }
        bucket.leak(limit, at);
        bucket.add(limit, sent.ops.max(1) as f32, sent.bytes as f32)
    }
}

// === impl Bucket ===

impl Bucket {
    /// Leaks what the elapsed time allows.
    fn leak(&mut self, limit: Limit, now: u64) {
        let minutes = now.saturating_sub(self.at) as f32 / MINUTE;
        self.at = now;
        self.events = (self.events - minutes * limit.events.unwrap_or(f32::MAX)).max(0.0);
        self.bytes = (self.bytes - minutes * limit.bytes.unwrap_or(f32::MAX)).max(0.0);
    }

    /// Returns how full it is, in minutes.
    fn load(&self, limit: Limit) -> f32 {
        let of = |held: f32, limit: Option<f32>| limit.map_or(0.0, |limit| held / limit);
        of(self.events, limit.events).max(of(self.bytes, limit.bytes))
    }

    /// Adds what was sent; returns whether the repo exceeds its rate.
    fn add(&mut self, limit: Limit, events: f32, bytes: f32) -> bool {
        // Two minutes' worth at most: a repo that stops is soon below its rate again.
        self.events = (self.events + events).min(limit.events.unwrap_or_default() * 2.0);
        self.bytes = (self.bytes + bytes).min(limit.bytes.unwrap_or_default() * 2.0);
        let load = self.load(limit);
        self.is_above = if self.is_above { load > 0.5 } else { load > 1.0 };
        self.is_above
    }
}

// === impl Flow ===

impl Flow {
    /// Records an arrival; returns the event time in milliseconds.
    fn come(&mut self, received: Instant) -> u64 {
        let since =
            |earlier: Option<Instant>| earlier.map_or(Duration::ZERO, |at| received.saturating_duration_since(at));
        self.first.get_or_insert(received);
        self.millis += millis(since(self.last));
        self.last = Some(self.last.map_or(received, |last| last.max(received)));
        let judged = *self.judged.get_or_insert(received);
        if self.fresh >= SAMPLES && received.saturating_duration_since(judged) >= JUDGED {
            self.fresh = 0;
            self.judged = Some(received);
            let mut sorted = self.samples.clone();
            let median = *sorted.select_nth_unstable(SAMPLES / 2).1;
            if let Some(reached) = self.reached {
                let went = u64::try_from(median - reached).unwrap_or_default();
                self.millis += went.saturating_sub(millis(received.saturating_duration_since(judged)));
            }
            self.reached = self.reached.max(Some(median));
        }
        self.millis
    }

    /// Returns the seconds since the first event, at least 1.
    fn seconds(&self) -> u32 {
        let long =
            self.first.zip(self.last).map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first));
        u32::try_from(long.as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn sample(&mut self, time: i64) {
        self.fresh += 1;
        match self.samples.get_mut(self.next) {
            Some(oldest) => *oldest = time,
            None => self.samples.push(time),
        }
        self.next = (self.next + 1) % SAMPLES;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(millis: u64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis.cast_signed()).unwrap()
    }

    fn sent(did: &str, time: Timestamp) -> Sent<'_> {
        Sent { did, is_commit: true, ops: 1, bytes: 500, time: Some(time) }
    }

    /// Sends so many events a minute of each repo, evenly; `speed` minutes of them in one minute of ours. Returns how many of
    /// each were above.
    fn send(rates: &mut Rates, repos: &[(&str, u64)], minutes: u64, speed: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut above = vec![0; repos.len()];
        for millis in 0..minutes * 60_000 {
            let time = wall(millis);
            let received = start + Duration::from_millis(millis / speed);
            for (repo, (did, rate)) in repos.iter().enumerate() {
                let due = |millis: u64| millis * rate / 60_000;
                for _ in due(millis)..due(millis + 1) {
                    above[repo] += u64::from(rates.is_above(sent(did, time), received, wall(minutes * 60_000)));
                }
            }
        }
        above
    }

    #[test]
    fn only_who_sends_more_than_the_rate_is_above_and_with_all_it_sends() {
        let above = send(&mut Rates::new(600, 0), &[("calm", 590), ("loud", 60_000), ("rare", 2)], 3, 1);
        assert_eq!((above[0], above[2]), (0, 0));
        let below = 3 * 60_000 - above[1];
        assert!((600..620).contains(&below), "{below} before it was above, then none");
    }

    #[test]
    fn a_burst_of_a_minutes_worth_is_free_and_who_stops_is_not_above_for_long() {
        let (mut rates, start) = (Rates::new(600, 0), Instant::now());
        let mut at = |seconds: u64| {
            rates.is_above(sent("a", wall(seconds * 1000)), start + Duration::from_secs(seconds), wall(seconds * 1000))
        };
        assert_eq!((0..600).filter(|_| at(0)).count(), 0);
        assert_eq!((0..60_000).filter(|_| at(0)).count(), 60_000);
        assert!(at(80), "it leaks half a minute's worth from the second");
        assert!(!at(95));
    }

    #[test]
    fn ops_and_bytes_count_and_what_tells_of_the_account_counts_by_itself() {
        let (mut rates, start) = (Rates::new(600, 100_000), Instant::now());
        let mut send = |did, ops, bytes, is_commit| {
            rates.is_above(Sent { did, is_commit, ops, bytes, time: None }, start, wall(0))
        };
        assert!(!send("ops", 200, 1, true) && !send("ops", 200, 1, true) && !send("ops", 200, 1, true));
        assert!(send("ops", 1, 1, true));
        assert!(!send("ops", 1, 1, false), "its account");
        assert!(send("bytes", 1, 100_001, true));
        assert!((0..600).all(|_| !send("accounts", 0, 1, false)) && send("accounts", 0, 1, false));
        let mut off = Rates::new(0, 0);
        assert!(!(0..10_000).any(|_| off.is_above(sent("a", wall(0)), start, wall(0))));
    }

    #[test]
    fn catching_up_is_not_sending_more() {
        let names: Vec<String> = (0..200).map(|repo| format!("did:plc:{repo}")).collect();
        let mut repos: Vec<(&str, u64)> = names.iter().map(|did| (did.as_str(), 2)).collect();
        repos.extend([("busy", 300), ("loud", 6_000)]);
        // An hour in a minute: without regard to their times the busy one sends 18,000 a minute.
        let above = send(&mut Rates::new(600, 0), &repos, 60, 60);
        assert_eq!(above[..201].iter().sum::<u64>(), 0);
        assert!(above[201] > 350_000, "{}", above[201]);
    }

    #[test]
    fn one_repo_s_times_do_not_make_the_clock_go_faster() {
        let names: Vec<String> = (0..50).map(|repo| format!("did:plc:{repo}")).collect();
        let (mut rates, start) = (Rates::new(600, 0), Instant::now());
        let mut above = 0;
        for second in 0..60 {
            let received = start + Duration::from_secs(second);
            for did in &names {
                assert!(!rates.is_above(sent(did, wall(second * 1000)), received, wall(60_000)));
            }
            for event in 0..1_000 {
                // A minute for each of its events.
                let time = wall((second * 1_000 + event) * 60_000);
                above += u64::from(rates.is_above(sent("loud", time), received, wall(1 << 40)));
            }
        }
        assert!(above > 59_000, "{above}");
    }

    #[test]
    fn a_full_table_forgets_who_sent_least() {
        let (mut rates, start) = (Rates::new(600, 0), Instant::now());
        for _ in 0..1_000 {
            rates.is_above(sent("loud", wall(0)), start, wall(0));
        }
        for repo in 0..300_000 {
            rates.is_above(sent(&format!("did:plc:{repo}"), wall(0)), start, wall(0));
        }
        assert_eq!(rates.sets.len() * WAYS, 32_768);
        assert!(rates.is_above(sent("loud", wall(0)), start, wall(0)));
        assert!(!rates.is_above(sent("did:plc:7", wall(0)), start, wall(0)));
    }
}
