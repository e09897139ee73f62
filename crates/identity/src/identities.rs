//! Resolves DIDs: from memory, from the table, from the network; each DID once at a time, whoever asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use penstock_core::settings::{self, Settings};
use penstock_postgres::Pool;
use penstock_telemetry::metrics::Metrics;
use penstock_wire::Key;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cache::{Cache, KnownKey, Seen};
use crate::error::{ResolveError, SettingsError};
use crate::events::Events;
use crate::fetch::{Fetcher, Options, Owner, Status, Urgency};
use crate::policy::{Judgement, Policy, Record, SPACING};
use crate::table::{Claim, Table};

/// DIDs that are asked for at a time.
const FLIGHTS: usize = 4_096;

/// Of these, those that nobody waits for.
const REVALIDATIONS: usize = 64;

/// DIDs of one call that are asked for at a time.
const AT_A_TIME: usize = 64;

/// Resolves DIDs and handles, for all of a service; clones share everything.
#[derive(Clone, Debug)]
pub struct Identities {
    shared: Arc<Shared>,
    /// When the last one goes, what is under way ends.
    _ending: Arc<DropGuard>,
}

#[derive(Debug)]
struct Shared {
    cache: Cache,
    table: Table,
    fetcher: Fetcher,
    policy: Policy,
    events: Events,
    flights: Mutex<HashMap<Box<str>, Flight>>,
    ending: CancellationToken,
}

/// A DID that is being asked for.
type Flight = watch::Receiver<Option<Landed>>;

type Landed = Result<Record, ResolveError>;

/// What an account's document says.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Whose it is.
    pub did: Box<str>,
    /// The key that its commits are signed with; none where the document has none that can be used.
    pub key: Option<Key>,
    /// Its host, such as `https://pds.example.com`; none where the document names none that can be used.
    pub host: Option<Box<str>>,
    /// The handle that it claims; [`Identities::handle`] checks it.
    pub handle: Option<Box<str>>,
    /// How long ago the document was asked for.
    pub age: Duration,
}

/// An account's handle, checked both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handle {
    /// The account claims it, and its owner says the same.
    Valid(Box<str>),
    /// The account claims none, or one whose owner says something else, or nothing.
    Invalid,
}

/// What an account's present host says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoStatus {
    /// It hosts the account, and shows it.
    Active {
        /// The rev of its repo.
        rev: Option<Box<str>>,
    },
    /// It hosts the account, and does not show it.
    Inactive {
        /// Why, such as `deactivated`, `takendown`, `suspended` or `deleted`.
        status: Option<Box<str>>,
        /// The rev of its repo.
        rev: Option<Box<str>>,
    },
    /// It has no such account.
    NotFound,
    /// The account's document names no host.
    NoHost,
}

// === impl Identities ===

impl Identities {
    /// Makes what a service resolves with; without a database, memory is all there is. Nothing is connected to yet.
    ///
    /// # Errors
    /// A setting that cannot be used, or a system without certificate authorities or name servers.
    pub fn new(settings: &Settings, database: Option<Pool>, metrics: &Metrics) -> Result<Self, SettingsError> {
        Self::with(&settings.identity, database, metrics, Options::default())
    }

    pub(crate) fn with(
        settings: &settings::Identity,
        database: Option<Pool>,
        metrics: &Metrics,
        options: Options,
    ) -> Result<Self, SettingsError> {
        let policy = Policy { max_age: settings.max_age, retry_after: settings.retry_after };
        let events = Events::new(metrics, &settings.plc_url);
        let ending = CancellationToken::new();
        let shared = Shared {
            cache: Cache::new(settings.memory, policy),
            table: Table::new(database, events.clone()),
            fetcher: Fetcher::new(settings, options, events.clone())?,
            policy,
            events,
            flights: Mutex::default(),
            ending: ending.clone(),
        };
        Ok(Self { shared: Arc::new(shared), _ending: Arc::new(ending.drop_guard()) })
    }

    /// Returns an account's key as far as memory knows it: without waiting, for the hot path.
    #[must_use]
    pub fn known_key(&self, did: &str) -> KnownKey {
        let (key, is_old) = self.shared.cache.key(did);
        if is_old {
            self.shared.revalidate(did);
        }
        key
    }

    /// Returns what an account's document says. What is only old is returned too, and asked for again beside that; what is marked
    /// stale is asked for again first.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn resolve(&self, did: &str) -> Result<Identity, ResolveError> {
        let record = self.shared.resolve(did, None).await?;
        Ok(Identity::of(did, record))
    }

    /// Resolves several DIDs, in their order: the table is asked once for all of them.
    pub async fn resolve_many(&self, dids: &[&str]) -> Vec<Result<Identity, ResolveError>> {
        let unknown: Vec<&str> = dids.iter().copied().filter(|did| !self.shared.is_known(did)).collect();
        let seen: HashMap<&str, Seen> = unknown.iter().map(|did| (*did, self.shared.cache.seen(did))).collect();
        let mut rows = self.shared.table.read(&unknown).await;
        let resolving = dids.iter().map(|did| {
            // Who was looked for in the table is not looked for there again.
            let row = seen.get(did).map(|seen| (rows.remove(*did), *seen));
            async move {
                let record = self.shared.resolve(did, row).await?;
                Ok(Identity::of(did, record))
            }
        });
        let resolving: Vec<_> = resolving.collect();
        stream::iter(resolving).buffered(AT_A_TIME).collect().await
    }

    /// Marks what is known of an account as changed, in memory and in the table: for an `#identity` event.
    pub async fn invalidate(&self, did: &str) {
        self.invalidate_many(&[did]).await;
    }

    /// Marks what is known of several accounts as changed, with one statement.
    pub async fn invalidate_many(&self, dids: &[&str]) {
        dids.iter().for_each(|did| self.shared.cache.mark_stale(did));
        self.shared.table.mark_stale(dids, "identity").await;
    }

    /// Asks for an account's document again, because a signature does not hold; none where that was done within
    /// `identity.retryAfter`, by any process. What it returns is newer than what was known.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn refresh_after_failure(&self, did: &str) -> Result<Option<Identity>, ResolveError> {
        let every = self.shared.policy.retry_after;
        let known = self.shared.cache.get(did);
        let is_recent = |record: &Record| record.fetched.is_some_and(|age| age < every) && !record.stale;
        if known.as_ref().is_some_and(is_recent) {
            return Ok(None);
        }
        match self.shared.policy.judge_known(known.as_ref()) {
            Judgement::Wait(error) => return Err(error),
            Judgement::Ask | Judgement::Fresh | Judgement::Old => {}
        }
        // Another process may have asked since.
        let seen = self.shared.cache.seen(did);
        let row = self.shared.table.read(&[did]).await.remove(did);
        let is_newer = |row: &Record| match &known {
            Some(known) if known.stale => row.is_after_change_of(known),
            known => {
                let known = known.as_ref().and_then(|known| known.fetched).unwrap_or(Duration::MAX);
                row.fetched.is_some_and(|age| age + SPACING < known)
            }
        };
        if let Some(row) = row.filter(|row| !row.stale && is_newer(row)) {
            self.shared.cache.put(did, &row, seen);
            return Ok(Some(Identity::of(did, row)));
        }
        if known.is_some_and(|known| !known.stale) && self.shared.table.claim(did, every).await == Claim::Taken {
            return Ok(None);
        }
        // Until there is an answer, what was known stays: it may be the commit that is wrong.
        let record = self.shared.fly(did, Urgency::Now).await?;
        Ok(Some(Identity::of(did, record)))
    }

    /// Asks the account's present host about it. The host is that of a document not older than `identity.retryAfter`, because a host
    /// that the account has left may say anything.
    ///
    /// # Errors
    /// [`ResolveError`], of the document or of the host.
    pub async fn repo_status(&self, did: &str) -> Result<RepoStatus, ResolveError> {
        let record = self.shared.resolve_recent(did).await?;
        let Some(host) = record.host else { return Ok(RepoStatus::NoHost) };
        Ok(match self.shared.fetcher.status(&host, did).await? {
            Status::Known { active: true, rev, .. } => RepoStatus::Active { rev },
            Status::Known { active: false, status, rev } => RepoStatus::Inactive { status, rev },
            Status::NotFound => RepoStatus::NotFound,
        })
    }

    /// Returns an account's handle, checked both ways.
    ///
    /// # Errors
    /// [`ResolveError`]: the document cannot be had, or nobody who could say whose the handle is answers.
    pub async fn handle(&self, did: &str) -> Result<Handle, ResolveError> {
        let record = self.shared.resolve(did, None).await?;
        let Some(handle) = record.handle else { return Ok(Handle::Invalid) };
        if let Some(checked) = record.checked.filter(|checked| self.shared.policy.counts(*checked)) {
            return Ok(if checked.valid { Handle::Valid(handle) } else { Handle::Invalid });
        }
        let owner = self.shared.fetcher.owner(&handle).await?;
        let valid = matches!(&owner, Owner::Did(owner) if owner == did);
        self.shared.cache.check(did, &handle, valid);
        self.shared.table.check(did, &handle, valid).await;
        Ok(if valid { Handle::Valid(handle) } else { Handle::Invalid })
    }

    /// Returns the account that the owner of a handle says is its; none where it says nothing. Whether the account says the same is not
    /// looked at.
    ///
    /// # Errors
    /// [`ResolveError`]: nobody who could say whose the handle is answers.
    pub async fn account_of(&self, handle: &str) -> Result<Option<String>, ResolveError> {
        match self.shared.fetcher.owner(handle).await? {
            Owner::Did(did) => Ok(Some(did)),
            Owner::Nobody => Ok(None),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn is_known(&self, did: &str) -> bool {
        let known = self.cache.get(did);
        !matches!(self.policy.judge_known(known.as_ref()), Judgement::Ask)
    }

    /// Resolves a DID. `row` is what the table has, where it was asked.
    async fn resolve(self: &Arc<Self>, did: &str, row: Option<(Option<Record>, Seen)>) -> Landed {
        let known = self.cache.get(did);
        match (self.judge(did, known.as_ref()), &known) {
            (Judgement::Wait(error), _) => {
                self.events.looked_up("memory");
                return Err(error);
            }
            (Judgement::Fresh | Judgement::Old, Some(known)) => {
                self.events.looked_up("memory");
                return Ok(known.clone());
            }
            _ => {}
        }
        let (row, seen) = match row {
            Some(row) => row,
            None => {
                let seen = self.cache.seen(did);
                (self.table.read(&[did]).await.remove(did), seen)
            }
        };
        let row = row.map(|mut row| {
            // What memory knows to be stale, the table may not know yet.
            row.stale |= known.is_some_and(|known| known.stale && !row.is_after_change_of(&known));
            // How often it failed before decides how long it is left alone.
            row.stale = self.cache.put(did, &row, seen);
            row
        });
        match (self.judge(did, row.as_ref()), row) {
            (Judgement::Wait(error), _) => {
                self.events.looked_up("table");
                Err(error)
            }
            (Judgement::Fresh | Judgement::Old, Some(row)) => {
                self.events.looked_up("table");
                Ok(row)
            }
            _ => {
                self.events.looked_up("miss");
                self.fly(did, Urgency::Now).await
            }
        }
    }

    /// Resolves a DID by a document that is not older than a retry.
    async fn resolve_recent(self: &Arc<Self>, did: &str) -> Landed {
        let recent = |record: &Record| {
            let is_recent = record.fetched.is_some_and(|age| age < self.policy.retry_after);
            is_recent && !record.stale && self.policy.judge(record) == Judgement::Fresh
        };
        if let Some(record) = self.cache.get(did).filter(recent) {
            return Ok(record);
        }
        let seen = self.cache.seen(did);
        if let Some(record) = self.table.read(&[did]).await.remove(did).filter(recent)
            && !self.cache.put(did, &record, seen)
        {
            return Ok(record);
        }
        if let Judgement::Wait(error) = self.policy.judge_known(self.cache.get(did).as_ref()) {
            return Err(error);
        }
        self.fly(did, Urgency::Now).await
    }

    fn judge(self: &Arc<Self>, did: &str, record: Option<&Record>) -> Judgement {
        let judgement = self.policy.judge_known(record);
        if judgement == Judgement::Old {
            self.revalidate(did);
        }
        judgement
    }

    /// Asks for a DID that nobody waits for, if there is room.
    fn revalidate(self: &Arc<Self>, did: &str) {
        if runtime::Handle::try_current().is_ok() && self.flights().len() < REVALIDATIONS {
            let _ = self.depart(did, Urgency::Background);
        }
    }

    /// Asks the network, or waits for whoever asks already.
    async fn fly(self: &Arc<Self>, did: &str, urgency: Urgency) -> Landed {
        let lost = || ResolveError::unreachable(did, "was not resolved, because the process ends");
        let mut landed = Err(lost());
        for _ in 0..2 {
            let mut flight = self.depart(did, urgency)?;
            landed = flight.wait_for(Option::is_some).await.map_err(|_| lost())?.clone().unwrap_or_else(|| Err(lost()));
            // One that nobody waited for may have been put off, and one that began before a change was told of has missed it.
            let is_missed = landed.as_ref().is_ok_and(|record| record.stale);
            if !is_missed && !matches!(landed, Err(ResolveError::Busy { .. })) {
                break;
            }
        }
        landed
    }

    fn depart(self: &Arc<Self>, did: &str, urgency: Urgency) -> Result<Flight, ResolveError> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(did) {
            return Ok(flight.clone());
        }
        if flights.len() >= FLIGHTS {
            return Err(ResolveError::Busy { host: did.into() });
        }
        let (land, landed) = watch::channel(None);
        flights.insert(did.into(), landed.clone());
        let (shared, did) = (Arc::clone(self), Box::<str>::from(did));
        let ending = self.ending.clone();
        // Not the caller's: others wait for it when the caller does no longer.
        tokio::spawn(async move {
            let landed = ending.run_until_cancelled(shared.ask(&did, urgency)).await;
            shared.flights().remove(&did);
            if let Some(landed) = landed {
                land.send_replace(Some(landed));
            }
        });
        Ok(landed)
    }

    /// Asks the network, and remembers what it says.
    async fn ask(self: &Arc<Self>, did: &str, urgency: Urgency) -> Landed {
        let known = self.cache.get(did);
        if let Some(known) = known.as_ref().filter(|known| self.policy.is_spent(known)) {
            return Ok(known.clone());
        }
        self.cache.asking(did);
        // What was told before this moment is in the answer.
        let (seen, since) = (self.cache.seen(did), Instant::now());
        match self.fetcher.document(did, urgency).await {
            Ok(document) => {
                let age = since.elapsed();
                let mut record = Record::of_document(document, age);
                if let Some(known) = known.filter(|known| known.handle == record.handle && !known.stale) {
                    record.checked = known.checked;
                }
                record.stale = self.cache.put(did, &record, seen);
                self.table.write(did, &record, since).await;
                if record.stale {
                    self.table.mark_stale(&[did], "identity").await;
                }
                Ok(record)
            }
            Err(error) if error.is_final() => {
                let before = known.and_then(|known| known.failure);
                self.cache.put(did, &Record::of_failure(error.clone(), before.as_ref()), seen);
                self.table.fail(did, &error).await;
                Err(error)
            }
            // What is known of the host is enough: it is not asked again too soon.
            Err(error) => Err(error),
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Box<str>, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Identity ===

impl Identity {
    fn of(did: &str, record: Record) -> Self {
        let Record { key, host, handle, fetched, .. } = record;
        Self { did: did.into(), key, host, handle, age: fetched.unwrap_or_default() }
    }
}
