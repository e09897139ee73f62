//! What is known of recent DIDs, in bounded memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use lru::LruCache;
use penstock_wire::Key;
use tokio::time::Instant;

use crate::error::ResolveError;
use crate::policy::{Checked, Failure, Judgement, Policy, Record};

/// A power of two: callers of different DIDs seldom wait for each other.
const SHARDS: usize = 16;

/// What an entry takes beside its texts, in bytes: measured, with the map and the allocator.
const ENTRY: usize = 216;

/// What a text takes beside its letters.
const TEXT: usize = 16;

/// Hosts that many accounts share, of a shard. Others are stored with each account.
const SHARED_HOSTS: usize = 256;

/// Ticks in a second: fine enough, and 32 bits of them are eight years.
const TICKS: u32 = 16;

/// Counters of changes: two DIDs seldom share one.
const STRIPES: usize = 4_096;

/// How long before its own start the clock begins: nothing is trusted for longer.
const BEFORE: Duration = Duration::from_secs(100 * 24 * 3600);

/// Remembers recent DIDs.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    /// How often it was told that a DID changed.
    changes: Vec<AtomicU64>,
    hasher: RandomState,
    policy: Policy,
    start: Instant,
}

#[derive(Debug)]
struct Shard {
    entries: LruCache<Id, Entry>,
    hosts: HashSet<Arc<str>>,
    used: usize,
    most: usize,
}

/// A DID, small.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Id {
    Plc([u8; 15]),
    Other(Box<str>),
}

#[derive(Debug)]
struct Entry {
    key: Option<Key>,
    host: Option<Arc<str>>,
    handle: Option<Box<str>>,
    failure: Option<Box<Failed>>,
    fetched: Option<Tick>,
    checked: Option<(Tick, bool)>,
    stale: bool,
    /// When it was told last that the DID changed, if it was since this was asked for.
    told: Option<Tick>,
    asks: u8,
    weight: u32,
}

#[derive(Debug)]
struct Failed {
    error: ResolveError,
    failures: u32,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Tick(u32);

/// How many changes had been told of when something was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(u64);

/// What memory says of an account's key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KnownKey {
    /// It is this one.
    Key(Key),
    /// The account's document has none that can be used.
    None,
    /// It has to be resolved.
    Unknown,
}

// === impl Cache ===

impl Cache {
    /// Makes one of at most so many bytes.
    pub(crate) fn new(bytes: u64, policy: Policy) -> Self {
        let most = usize::try_from(bytes).unwrap_or(usize::MAX) / SHARDS;
        let shard = || {
            let entries = LruCache::unbounded_with_hasher(lru::DefaultHasher::default());
            Mutex::new(Shard { entries, hosts: HashSet::new(), used: 0, most })
        };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        let changes = (0..STRIPES).map(|_| AtomicU64::new(0)).collect();
        Self { shards, changes, hasher: RandomState::new(), policy, start: Instant::now() }
    }

    /// Returns the key of an account, and whether it should be asked for again beside that.
    pub(crate) fn key(&self, did: &str) -> (KnownKey, bool) {
        let id = Id::of(did);
        let mut shard = self.shard(&id);
        let Some(entry) = shard.entries.get(&id) else { return (KnownKey::Unknown, false) };
        let key = entry.key.map_or(KnownKey::None, KnownKey::Key);
        match entry.fetched {
            Some(at) if !entry.stale => (key, self.age(at) >= self.policy.max_age),
            _ => (KnownKey::Unknown, false),
        }
    }

    /// Returns what is known of a DID.
    pub(crate) fn get(&self, did: &str) -> Option<Record> {
        let id = Id::of(did);
        let mut shard = self.shard(&id);
        shard.entries.get(&id).map(|entry| self.record(entry))
    }

    /// Returns what to [put](Self::put) something with that is asked for from here on.
    pub(crate) fn seen(&self, did: &str) -> Seen {
        Seen(self.changes(&Id::of(did)).load(Ordering::SeqCst))
    }

    /// Remembers what is known of a DID, and says whether it is stale: it also is where somebody told of a change since it was asked
    /// for.
    pub(crate) fn put(&self, did: &str, record: &Record, seen: Seen) -> bool {
        let id = Id::of(did);
        let mut shard = self.shard(&id);
        let stale = record.stale || self.changes(&id).load(Ordering::SeqCst) != seen.0;
        let host = record.host.as_deref().map(|host| shard.share(host));
        let failure = record.failure.as_ref().map(|failure| {
            let Failure { error, failures, age } = failure.clone();
            let at = Instant::now();
            Box::new(Failed { error, failures, at: at.checked_sub(age).unwrap_or(at) })
        });
        let mut entry = Entry {
            key: record.key,
            host,
            handle: record.handle.clone(),
            failure,
            fetched: record.fetched.map(|age| self.tick(age)),
            checked: record.checked.map(|checked| (self.tick(checked.age), checked.valid)),
            stale,
            told: record.told.map(|age| self.tick(age)),
            asks: shard.entries.peek(&id).map_or(record.asks, |before| before.asks),
            weight: 0,
        };
        entry.weight = u32::try_from(weight(&id, &entry)).unwrap_or(u32::MAX);
        shard.used += entry.weight as usize;
        if let Some(before) = shard.entries.put(id, entry) {
            shard.used = shard.used.saturating_sub(before.weight as usize);
        }
        shard.shrink();
        stale
    }

    /// Notes that what is known of a DID is no longer right. What failed before may be asked for again.
    pub(crate) fn mark_stale(&self, did: &str) {
        let id = Id::of(did);
        let now = self.tick(Duration::ZERO);
        let mut shard = self.shard(&id);
        self.changes(&id).fetch_add(1, Ordering::SeqCst);
        if let Some(entry) = shard.entries.peek_mut(&id) {
            entry.stale = true;
            entry.told = Some(now);
            entry.failure = None;
            entry.checked = None;
        }
    }

    /// Notes that a DID's document is asked for now.
    pub(crate) fn asking(&self, did: &str) {
        let id = Id::of(did);
        if let Some(entry) = self.shard(&id).entries.peek_mut(&id) {
            let is_in_a_row = entry.fetched.is_some_and(|at| self.age(at) < self.policy.retry_after);
            entry.asks = if is_in_a_row { entry.asks.saturating_add(1) } else { 1 };
        }
    }

    /// Notes whether a handle led back to the DID, if it is still the one that is claimed.
    pub(crate) fn check(&self, did: &str, handle: &str, valid: bool) {
        let id = Id::of(did);
        let now = self.tick(Duration::ZERO);
        if let Some(entry) = self.shard(&id).entries.peek_mut(&id)
            && entry.handle.as_deref() == Some(handle)
        {
            entry.checked = Some((now, valid));
        }
    }

    fn record(&self, entry: &Entry) -> Record {
        let failure = entry.failure.as_ref().map(|failed| Failure {
            error: failed.error.clone(),
            failures: failed.failures,
            age: failed.at.elapsed(),
        });
        Record {
            key: entry.key,
            host: entry.host.as_deref().map(Box::from),
            handle: entry.handle.clone(),
            fetched: entry.fetched.map(|at| self.age(at)),
            stale: entry.stale,
            told: entry.told.map(|at| self.age(at)),
            failure,
            checked: entry.checked.map(|(at, valid)| Checked { valid, age: self.age(at) }),
            asks: entry.asks,
        }
    }

    fn shard(&self, id: &Id) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).unwrap_or_default();
        lock(&self.shards[at])
    }

    fn changes(&self, id: &Id) -> &AtomicU64 {
        let at = usize::try_from(self.hasher.hash_one((id, "changes")) % STRIPES as u64).unwrap_or_default();
        &self.changes[at]
    }

    fn tick(&self, age: Duration) -> Tick {
        let at = (BEFORE + self.start.elapsed()).saturating_sub(age);
        Tick(u32::try_from(at.as_millis() * u128::from(TICKS) / 1_000).unwrap_or(u32::MAX))
    }

    fn age(&self, at: Tick) -> Duration {
        let ticks = self.tick(Duration::ZERO).0.saturating_sub(at.0);
        Duration::from_secs(u64::from(ticks / TICKS)) + Duration::from_secs(u64::from(ticks % TICKS)) / TICKS
    }
}

impl Policy {
    /// Says what to do with what is known, if anything is.
    pub(crate) fn judge_known(&self, record: Option<&Record>) -> Judgement {
        record.map_or(Judgement::Ask, |record| self.judge(record))
    }
}

// === impl Shard ===

impl Shard {
    /// Returns a host's name, one for all accounts there while it is not one of very many.
    fn share(&mut self, host: &str) -> Arc<str> {
        if let Some(shared) = self.hosts.get(host) {
            return Arc::clone(shared);
        }
        if self.hosts.len() >= SHARED_HOSTS {
            self.hosts.retain(|host| Arc::strong_count(host) > 1);
        }
        let made = Arc::<str>::from(host);
        if self.hosts.len() < SHARED_HOSTS {
            self.hosts.insert(Arc::clone(&made));
        }
        made
    }

    fn shrink(&mut self) {
        while self.used > self.most {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.used = self.used.saturating_sub(entry.weight as usize);
        }
    }
}

// === impl Id ===

impl Id {
    fn of(did: &str) -> Self {
        let plc =
            did.strip_prefix("did:plc:").filter(|id| id.len() == 24 && !id.bytes().any(|b| b.is_ascii_uppercase()));
        let bytes = plc.and_then(|id| BASE32_NOPAD.decode(id.to_ascii_uppercase().as_bytes()).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or_else(|| Self::Other(did.into()), Self::Plc)
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn weight(id: &Id, entry: &Entry) -> usize {
    let text = |text: Option<&str>| text.map_or(0, |text| text.len() + TEXT);
    let did = match id {
        Id::Plc(_) => 0,
        Id::Other(did) => did.len() + TEXT,
    };
    // A host that many share weighs a word; the name counts where this is its only account.
    let host = entry.host.as_ref().filter(|host| Arc::strong_count(host) <= 2).map(|host| host.len() + 2 * TEXT);
    let failure =
        entry.failure.as_ref().map_or(0, |failed| size_of::<Failed>() + TEXT + failed.error.to_string().len() + TEXT);
    ENTRY + did + text(entry.handle.as_deref()) + host.unwrap_or_default() + failure
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const POLICY: Policy = Policy { max_age: DAY, retry_after: Duration::from_secs(60) };
    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    fn record() -> Record {
        let key = Key::from_multikey("zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme").unwrap();
        let age = Duration::from_secs(5);
        Record {
            key: Some(key),
            host: Some("https://pds.example.com".into()),
            handle: Some("alice.example.com".into()),
            fetched: Some(age),
            checked: Some(Checked { valid: true, age }),
            ..Record::default()
        }
    }

    /// Without what passes while the test runs.
    fn rounded(record: Option<Record>) -> Option<Record> {
        let whole = |age: Duration| Duration::from_secs(age.as_secs() / 60 * 60);
        record.map(|record| Record {
            fetched: record.fetched.map(whole),
            checked: record.checked.map(|checked| Checked { age: whole(checked.age), ..checked }),
            ..record
        })
    }

    #[test]
    fn what_was_put_is_got_and_ages() {
        let cache = Cache::new(1 << 20, POLICY);
        let hour = Duration::from_secs(3600);
        let known = Record { fetched: Some(hour), checked: Some(Checked { valid: true, age: 2 * hour }), ..record() };
        for did in [DID, "did:web:example.com", "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ", "did:plc:short"] {
            assert_eq!(cache.get(did), None, "{did}");
            assert!(!cache.put(did, &known, cache.seen(did)));
            assert_eq!(rounded(cache.get(did)), Some(known.clone()), "{did}");
            assert_eq!(cache.key(did), (KnownKey::Key(known.key.unwrap()), false));
        }
        for (age, is_old) in [(DAY - hour, false), (DAY, true), (90 * DAY, true)] {
            cache.put(DID, &Record { fetched: Some(age), ..record() }, cache.seen(DID));
            assert_eq!(cache.key(DID), (KnownKey::Key(record().key.unwrap()), is_old), "{age:?}");
        }
        // Longer than memory counts: old in any case.
        cache.put(DID, &Record { fetched: Some(Duration::MAX), ..record() }, cache.seen(DID));
        assert!(cache.key(DID).1);
        let mut failed = Record::of_failure(ResolveError::NotFound, None);
        for (age, judgement) in [(0, Judgement::Wait(ResolveError::NotFound)), (60, Judgement::Ask)] {
            failed.failure.as_mut().unwrap().age = Duration::from_secs(age);
            cache.put(DID, &failed, cache.seen(DID));
            assert_eq!(POLICY.judge_known(cache.get(DID).as_ref()), judgement);
            assert_eq!(cache.key(DID), (KnownKey::Unknown, false));
        }
    }

    #[test]
    fn word_of_a_change_is_not_lost_to_what_was_asked_for_before() {
        let cache = Cache::new(1 << 20, POLICY);
        let seen = cache.seen(DID);
        cache.mark_stale(DID);
        assert!(cache.put(DID, &record(), seen));
        assert_eq!(cache.key(DID), (KnownKey::Unknown, false));
        assert!(!cache.put(DID, &record(), cache.seen(DID)));
        assert!(matches!(cache.key(DID), (KnownKey::Key(_), false)));
        cache.mark_stale(DID);
        let stale = cache.get(DID).unwrap();
        assert!(stale.stale && stale.checked.is_none());
    }

    #[test]
    fn a_check_counts_for_the_handle_it_was_of() {
        let cache = Cache::new(1 << 20, POLICY);
        cache.put(DID, &Record { checked: None, ..record() }, cache.seen(DID));
        cache.check(DID, "other.example.com", true);
        assert_eq!(cache.get(DID).unwrap().checked, None);
        cache.check(DID, "alice.example.com", false);
        assert!(!cache.get(DID).unwrap().checked.unwrap().valid);
    }

    #[test]
    fn the_least_recent_go_first_and_large_ones_count_for_more() {
        let cache = Cache::new(1 << 20, POLICY);
        let did = |n: usize| format!("did:web:{n}.example.com");
        for n in 0..20_000 {
            cache.put(&did(n), &record(), cache.seen(&did(n)));
            // Asked for all the time.
            assert!(cache.get(&did(0)).is_some(), "{n}");
        }
        let count = |cache: &Cache| (0..20_000).filter(|n| cache.get(&did(*n)).is_some()).count();
        let small = count(&cache);
        assert!((1_500..5_000).contains(&small), "{small}");
        assert!(cache.get(&did(19_999)).is_some());
        let large = Record { handle: Some("a".repeat(2_000).into()), ..record() };
        for n in 0..20_000 {
            cache.put(&did(n), &large, cache.seen(&did(n)));
        }
        assert!(count(&cache) < small / 3);
    }
}
