//! The engine of healing: takes repos from the queue as many at once as it may, and settles what came of each.
//!
//! In: `penstock.repairs`, and `penstock.backfills` whose repos are still to be listed. Out: rows as the repos' hosts have them.
//! The service runs it for everything that waits, `penstock backfill` for one backfill.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_core::backfill::Reason;
use penstock_core::backoff::Backoff;
use penstock_core::causes::chain;
use penstock_core::filter::Rules;
use penstock_core::settings::Settings;
use penstock_identity::Identities;
use penstock_repo::{RepoError, Repos};
use penstock_telemetry::admin::CheckHandle;
use penstock_telemetry::metrics::Metrics;
use penstock_worker::store::{DatabaseRoot, Store};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::backfills::Backfills;
use crate::carried::Carried;
use crate::error::HealError;
use crate::events::Events;
use crate::hosts::{Entry, Hosts};
use crate::policy::{Decision, Kind, Policy};
use crate::queue::{Closed, Queue, Taken};
use crate::read::{Aim, Outcome, ReadError, Reader};

/// How long there is nothing to take until it is asked again.
const IDLE: Duration = Duration::from_secs(1);

/// How long after something was taken it is asked again although nothing more was there: others may have held it for a moment.
const BUSY: Duration = Duration::from_millis(100);

/// So many are taken at once: looking for them costs as much for many as for one. A part of how many may be in hand.
const SHARE: usize = 4;

/// The pauses between tries to use the database.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a repo of a host that is being asked by others waits.
const FULL: Duration = Duration::from_secs(1);

/// How long repos in hand may take to be given back once the engine is asked to end.
const DRAIN: Duration = Duration::from_secs(4);

/// Reads and writes repos; clones share everything.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all repos are read with.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) store: Store,
    pub(crate) identities: Identities,
    pub(crate) repos: Repos,
    pub(crate) queue: Queue,
    pub(crate) backfills: Backfills,
    pub(crate) events: Events,
    /// What the filter carries.
    pub(crate) carried: Carried,
    /// This process, among all that heal.
    pub(crate) holder: Box<str>,
    /// Only repos of this backfill.
    pub(crate) only: Option<String>,
    /// Repos were listed here: there is something to take.
    pub(crate) listed: Notify,
    hosts: Mutex<Hosts>,
    policy: Policy,
    /// What is in hand, with what ends the work on it.
    held: Mutex<HashMap<Box<str>, CancellationToken>>,
}

/// A host that is being asked for a repo, until dropped.
struct Asking<'a> {
    shared: &'a Shared,
    host: Box<str>,
}

// === impl Engine ===

impl Engine {
    /// Makes the engine over an open store; for the repos of one backfill, or for all that waits.
    ///
    /// # Errors
    /// Settings with which no repo can be read.
    pub fn new(
        settings: Arc<Settings>,
        store: Store,
        metrics: &Metrics,
        only: Option<String>,
    ) -> Result<Self, HealError> {
        let identities = Identities::new(&settings, Some(store.shared_pool()), metrics)?;
        let repos = Repos::new(&settings, identities.clone(), metrics)?;
        let holder: Box<str> = format!("{}-{:08x}", name(), rand::random::<u32>()).into();
        let database = settings.postgres.url.as_ref().map(ToString::to_string).unwrap_or_default();
        let shared = Shared {
            queue: Queue::new(store.clone(), holder.clone(), settings.heal.lease_time),
            backfills: Backfills::new(store.clone()),
            events: Events::new(metrics.clone(), &database),
            carried: Carried::new(Arc::clone(&settings))?,
            listed: Notify::new(),
            hosts: Mutex::new(Hosts::new(settings.heal.of_host.get())),
            policy: Policy::from(&settings.heal),
            held: Mutex::default(),
            settings,
            store,
            identities,
            repos,
            holder,
            only,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns the table of backfills.
    #[must_use]
    pub fn backfills(&self) -> &Backfills {
        &self.shared.backfills
    }

    /// Returns the queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.shared.queue
    }

    /// Compares a repo with its host, and writes nothing.
    ///
    /// # Errors
    /// The repo cannot be read, or the database.
    pub async fn compare(&self, did: &str) -> Result<Outcome, ReadError> {
        let rules = self.shared.carried.now().await;
        let outcome = self.shared.reader(None, rules, false).read(did, Aim::Compare, None).await?;
        self.shared.events.compared(did, &outcome.differences);
        Ok(outcome)
    }

    /// Holds a repo against its host, and writes nothing: by its root, where that is enough to prove it equal, else as
    /// [`compare`](Self::compare) does.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub async fn audit(&self, did: &str) -> Result<Outcome, ReadError> {
        let rules = self.shared.carried.now().await;
        match self.shared.by_root(did, &rules).await? {
            Some(outcome) => {
                self.shared.events.proven(true);
                Ok(outcome)
            }
            None => self.compare(did).await,
        }
    }

    /// Takes repos and reads them until asked to stop; then gives back what it has in hand.
    ///
    /// # Errors
    /// A task of it panicked.
    pub async fn run(&self, stop: CancellationToken, check: Option<CheckHandle>) -> Result<(), JoinError> {
        let shared = &self.shared;
        let most = shared.settings.heal.parallelism.get() as usize;
        let mut jobs: JoinSet<()> = JoinSet::new();
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let mut found = false;
        let mut looked: Option<Instant> = None;
        while !stop.is_cancelled() {
            let free = most.saturating_sub(jobs.len());
            let rest = looked.map_or(Duration::ZERO, |looked| BUSY.saturating_sub(looked.elapsed()));
            let pause = if free == 0 {
                None
            } else if free < most.div_ceil(SHARE) && found && !rest.is_zero() {
                Some(rest)
            } else {
                looked = Some(Instant::now());
                match shared.queue.take(u32::try_from(free).unwrap_or(u32::MAX), &shared.closed().await).await {
                    Ok(taken) => {
                        shared.events.answered();
                        if let Some(check) = &check {
                            check.ok();
                        }
                        backoff.succeed();
                        let was_found = std::mem::replace(&mut found, !taken.is_empty());
                        for one in taken {
                            let ended = shared.hold(&one.did, &stop);
                            jobs.spawn(job(Arc::clone(shared), one, ended));
                        }
                        Some(if found || was_found { BUSY } else { IDLE })
                    }
                    Err(error) => {
                        shared.events.database_failed("take a repo", &error);
                        if let (Some(check), Some(failure)) = (&check, shared.events.failure()) {
                            check.failing(failure);
                        }
                        Some(backoff.fail())
                    }
                }
            };
            shared.events.running(jobs.len());
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = jobs.join_next() => ended?,
                () = async { tokio::time::sleep(pause.unwrap_or_default()).await }, if pause.is_some() => {}
                () = shared.listed.notified(), if pause.is_some() => {}
            }
            while let Some(ended) = jobs.try_join_next() {
                ended?;
            }
        }
        self.drain(jobs).await
    }

    /// Waits a moment for what is being written, and gives everything back.
    async fn drain(&self, mut jobs: JoinSet<()>) -> Result<(), JoinError> {
        let all = async {
            while let Some(ended) = jobs.join_next().await {
                ended?;
            }
            Ok(())
        };
        let ended = tokio::time::timeout(DRAIN, all).await;
        jobs.shutdown().await;
        // What cannot be given back is taken by others when its lease is over.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.shared.queue.hand_back_all()).await;
        self.shared.events.running(0);
        ended.unwrap_or(Ok(()))
    }

    /// Renews the leases of what is in hand, until asked to stop; ends the work on what was lost.
    pub async fn renew(&self, stop: CancellationToken) {
        let every = self.shared.settings.heal.lease_time / 3;
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let held: Vec<Box<str>> = self.shared.held().keys().cloned().collect();
            if held.is_empty() {
                continue;
            }
            match self.shared.queue.renew(&held).await {
                Ok(ours) => self.shared.lose(&held, &ours),
                // Leases that are over meanwhile are found lost when what came of the repos is settled.
                Err(error) => self.shared.events.database_failed("renew leases", &error),
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn reader<'a>(&'a self, host: Option<&'a str>, rules: Arc<Rules>, must_be_signed: bool) -> Reader<'a> {
        Reader {
            must_be_signed,
            rules,
            host: host.map(|host| (&self.hosts, host)),
            lease: self.settings.heal.lease_time,
            store: &self.store,
            repos: &self.repos,
            queue: &self.queue,
            events: &self.events,
            worker: &self.holder,
        }
    }

    /// Proves by its root that a repo is stored as its host has it; none where that cannot be proven so, whatever the reason is.
    async fn by_root(&self, did: &str, rules: &Rules) -> Result<Option<Outcome>, ReadError> {
        // Of what the filter leaves out there is no root, and without the setting most repos lack CIDs.
        if !self.settings.worker.record_cids || !rules.is_everything() {
            return Ok(None);
        }
        let DatabaseRoot::Known { root, records, .. } = self.store.root_of(did).await? else { return Ok(None) };
        let head = match self.repos.head(did).await {
            Ok(head) => head,
            // The whole repo is not to be had either.
            Err(error @ (RepoError::Limited { .. } | RepoError::Busy { .. } | RepoError::Ended)) => {
                return Err(error.into());
            }
            Err(error) => {
                debug!(did, error = chain(&error), "no signed commit to be had, comparing the records");
                return Ok(None);
            }
        };
        // What came since the rows were read is no difference: the records tell.
        let is_equal = head.root == root;
        Ok(is_equal.then(|| Outcome {
            rev: head.rev.into(),
            records,
            is_signed: true,
            by_root: true,
            ..Outcome::default()
        }))
    }

    async fn closed(&self) -> Closed {
        let filter = self.carried.now().await.epoch().clone();
        Closed {
            filter,
            hosts: self.hosts().closed(Instant::now()),
            of_host: self.settings.heal.of_host.get(),
            only: self.only.clone(),
            only_asked: !self.settings.heal.enabled,
        }
    }

    fn hold(&self, did: &str, stop: &CancellationToken) -> CancellationToken {
        let ended = stop.child_token();
        self.held().insert(did.into(), ended.clone());
        ended
    }

    /// Ends the work on those of some repos that are no longer this healer's.
    fn lose(&self, asked: &[Box<str>], ours: &[String]) {
        let held = self.held();
        for did in asked.iter().filter(|did| !ours.iter().any(|one| **one == ***did)) {
            if let Some(ended) = held.get(did) {
                ended.cancel();
            }
        }
    }

    /// Works on a repo, and settles what came of it.
    async fn work(self: Arc<Self>, taken: Taken, ended: CancellationToken) -> Result<(), sqlx::Error> {
        let (shared, taken) = (Arc::clone(&self), &taken);
        let rules = self.carried.now().await;
        if let Some(by) = rules.repo(&taken.did) {
            return self.leave_out(taken, &rules.name(by)).await;
        }
        let host = match self.identities.resolve(&taken.did).await {
            Ok(identity) => identity.host,
            Err(error) => return self.failed(taken, None, RepoError::Identity(error)).await,
        };
        // One without a host is of nobody's concern; reading it says so.
        let name = host.unwrap_or_default();
        let entry = self.hosts().enter(&name, Instant::now());
        match entry {
            Entry::Open => {}
            Entry::Full => return self.hand_back(taken, FULL).await,
            Entry::Away { pause, failures } => {
                let decision = self.policy.decide(Kind::Away, taken.reason, 0, failures, Some(pause));
                if decision == Decision::GiveUp {
                    let why = "has not answered for a long time".into();
                    let error = RepoError::Unreachable { host: name, why, retry_after: pause };
                    return self.give_up(taken, &error).await;
                }
                return self.hand_back(taken, pause + jitter(FULL)).await;
            }
        }
        let asking = Asking { shared: &self, host: name.clone() };
        let read = ended.run_until_cancelled(Box::pin(read(shared, taken.clone(), name.clone(), rules))).await;
        drop(asking);
        match read {
            // Asked to stop, or the lease is lost.
            None | Some(Err(ReadError::Lost | ReadError::Repo(RepoError::Ended))) => {
                self.hand_back(taken, Duration::ZERO).await
            }
            Some(Ok(outcome)) => self.healed(taken, &outcome).await,
            Some(Err(ReadError::Repo(error))) => self.failed(taken, Some(&name), error).await,
            Some(Err(ReadError::Database(error))) => Err(error),
            Some(Err(ReadError::Store(error))) => {
                self.events.database_failed("write a repo", &error);
                self.hand_back(taken, FULL).await
            }
        }
    }

    async fn healed(&self, taken: &Taken, outcome: &Outcome) -> sqlx::Result<()> {
        if outcome.is_incomplete {
            let error = "something else wrote the repo meanwhile";
            // How far it came does not count: a range may be gone that a crash of the server took back while this healer went on.
            self.queue.again(&taken.did, jitter(self.policy.retry_min), taken.attempts, error, true).await?;
            self.events.handed_back(taken.reason);
            return Ok(());
        }
        if self.queue.done(taken, outcome.records, &outcome.rev, outcome.is_signed).await? {
            self.events.healed(&taken.did, taken.reason, outcome.records, outcome.is_signed);
        } else {
            self.events.handed_back(taken.reason);
        }
        Ok(())
    }

    async fn failed(&self, taken: &Taken, host: Option<&str>, error: RepoError) -> sqlx::Result<()> {
        let kind = Kind::of(&error);
        let failures = match (host, error.retry_after()) {
            (Some(host), Some(pause)) if matches!(kind, Kind::Away | Kind::Patience) => {
                self.hosts().rest(host, pause, kind == Kind::Away, Instant::now())
            }
            (Some(host), _) => {
                // Whatever it said of the repo, it answers.
                self.hosts().answered(host);
                0
            }
            (None, _) => 0,
        };
        match self.policy.decide(kind, taken.reason, taken.attempts, failures, error.retry_after()) {
            Decision::GiveUp => self.give_up(taken, &error).await,
            Decision::Again { pause, attempts } => {
                let pause = pause + jitter(pause / 4);
                self.queue.again(&taken.did, pause, attempts, &error.to_string(), false).await?;
                self.events.retried(&taken.did, taken.reason, &error, attempts, pause);
                Ok(())
            }
        }
    }

    async fn give_up(&self, taken: &Taken, error: &RepoError) -> sqlx::Result<()> {
        if self.queue.give_up(taken, error.word(), &error.to_string()).await? {
            self.events.given_up(&taken.did, taken.reason, error, taken.attempts + 1);
        } else {
            self.events.handed_back(taken.reason);
        }
        Ok(())
    }

    /// Ends the repair of a repo whose records the filter leaves out.
    async fn leave_out(&self, taken: &Taken, rule: &str) -> sqlx::Result<()> {
        let error = format!("the filter leaves the repo out ({rule})");
        if self.queue.give_up(taken, "left_out", &error).await? {
            self.events.left_out(&taken.did, taken.reason, rule);
        } else {
            self.events.handed_back(taken.reason);
        }
        Ok(())
    }

    async fn hand_back(&self, taken: &Taken, pause: Duration) -> sqlx::Result<()> {
        self.queue.hand_back(&taken.did, pause).await?;
        self.events.handed_back(taken.reason);
        Ok(())
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Box<str>, CancellationToken>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.shared.hosts().left(&self.host);
    }
}

/// Works on one repo; what cannot be settled is taken by somebody when its lease is over.
async fn job(shared: Arc<Shared>, taken: Taken, ended: CancellationToken) {
    let did = taken.did.clone();
    if let Err(error) = Arc::clone(&shared).work(taken, ended).await {
        shared.events.database_failed("settle a repo", &error);
    }
    shared.held().remove(&did);
}

/// Reads a repo and writes it; what is audited only where it differs.
async fn read(shared: Arc<Shared>, taken: Taken, host: Box<str>, rules: Arc<Rules>) -> Result<Outcome, ReadError> {
    let Taken { did, reason, progress, whole, verify, .. } = taken;
    let proven = if reason == Reason::Audit && !whole { shared.by_root(&did, &rules).await? } else { None };
    if let Some(proven) = proven {
        shared.events.proven(true);
        return Ok(proven);
    }
    let reader = shared.reader(Some(&host), rules, verify);
    if reason == Reason::Audit && progress.is_none() {
        let compared = reader.read(&did, Aim::Compare, None).await?;
        shared.events.compared(&did, &compared.differences);
        if compared.differences.is_empty() {
            return Ok(compared);
        }
    }
    reader.read(&did, Aim::Write, progress.as_ref()).await
}

/// Returns some time up to `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::random::<f64>())
}

fn name() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = host.map(|host| host.trim().chars().take(100).collect::<String>()).filter(|host| !host.is_empty());
    format!("healer-{}-{}", host.as_deref().unwrap_or("unknown"), std::process::id())
}
