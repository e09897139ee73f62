//! Backfills that ingest owes: of what a change of the filter let in, and of what a host did not send any more.
//!
//! What is owed is written beside the cursor, by the script that writes the change, or what follows the gap. Registering it in PostgreSQL follows, under a name
//! that stays the same: so it is registered once, whatever dies in between, and however long PostgreSQL is away.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::HashesInterface;
use jiff::{SignedDuration, Timestamp};
use penstock_core::backfill::{Reason, Scope};
use penstock_core::causes::chain;
use penstock_core::filter::{Change, Epoch, Rules};
use penstock_core::live::state;
use penstock_core::script;
use penstock_core::servers::{Circumstances, Failing, is_unanswered};
use penstock_postgres::Address;
use penstock_wire::rev_text;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use thiserror::Error;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::resume::checkpoint::{self, CheckpointError};

/// How long PostgreSQL may take for all of them.
const DEADLINE: Duration = Duration::from_secs(10);

/// Whoever deletes a backfill that was registered does not get it again.
const REGISTER: &str = "\
INSERT INTO penstock.backfills (name, scope, priority, reason, filter, since) VALUES ($1, $2::jsonb, $3, $4, $5, $6)
ON CONFLICT (name) DO NOTHING";

/// Healers read for a widened filter only by the rules that are in force: see `filter` of the table.
const IN_FORCE: &str = "\
UPDATE penstock.backfills SET filter = $1 WHERE filter <> $1 AND state IN ('listing', 'running')";

/// Unless more is owed meanwhile.
const REMOVE: &str = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end";

/// How much earlier than the last event a repo may have changed that is read again: clocks differ.
const CLOCKS: SignedDuration = SignedDuration::from_hours(1);

/// What is owed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owed {
    /// What the names of its backfills begin with.
    name: String,
    /// Why: the word of a [`Reason`].
    reason: String,
    /// The rules that are in force since, where those have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<Epoch>,
    /// The rev that every repo has, or a later one, that changed in a gap; empty where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// What the backfills cover, each one of these; nothing where the rules became narrower.
    #[serde(default)]
    scopes: Vec<Scope>,
}

/// What is owed; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Debts(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    owed: Vec<Owed>,
    /// Whether Redis has something else.
    is_unstored: bool,
    /// The names of those that were registered.
    paid: BTreeSet<String>,
}

/// Why it was not registered.
#[derive(Debug, Error)]
enum RegisterError {
    #[error(transparent)]
    Connect(#[from] CheckpointError),
    #[error("could not write penstock.backfills")]
    Write(#[source] sqlx::Error),
    #[error("postgresql did not answer within {DEADLINE:?}")]
    Deadline,
    #[error("could not encode the scope of a backfill")]
    Encode(#[source] serde_json::Error),
}

// === impl Owed ===

impl Owed {
    /// Says what a change of the rules behind a cursor owes.
    pub(crate) fn by(change: &Change, rules: &Rules, cursor: u64) -> Self {
        let epoch = rules.epoch().as_str();
        let epoch = if epoch.is_empty() { "none" } else { epoch };
        let name = format!("filter-{epoch}-{cursor}");
        let scopes = if change.widens() { change.scopes(rules) } else { Vec::new() };
        let reason = Reason::Filter.word().to_owned();
        Self { name, reason, filter: Some(rules.epoch().clone()), since: None, scopes }
    }

    /// Says what a gap behind the last event of `time` owes: every repo that has changed since and of which nothing newer came.
    pub(crate) fn by_gap(after: u64, first: u64, time: Option<Timestamp>) -> Self {
        let since = time.and_then(|time| u64::try_from((time - CLOCKS).as_microsecond()).ok());
        let since = since.map(|micros| rev_text(micros << 10)).unwrap_or_default();
        let (name, reason) = (format!("seam-{after}-{first}"), Reason::Seam.word().to_owned());
        Self { name, reason, filter: None, since: Some(since), scopes: vec![Scope::All(true)] }
    }

    /// Names its backfills.
    pub(crate) fn backfills(&self) -> impl Iterator<Item = (String, &Scope)> {
        self.scopes.iter().map(|scope| {
            let what = match scope {
                Scope::All(_) => "all",
                Scope::Collection(collection) => collection,
                Scope::Repos(_) => "repos",
            };
            (format!("{}/{what}", self.name), scope)
        })
    }
}

// === impl Debts ===

impl Debts {
    /// Takes what stands beside the cursor of a connection that begins.
    pub(crate) fn resume(&self, stored: Option<&str>) {
        let stored: Vec<Owed> = stored.and_then(|stored| serde_json::from_str(stored).ok()).unwrap_or_default();
        let mut held = self.held();
        let mut owed: Vec<Owed> = stored.into_iter().filter(|one| !held.paid.contains(&one.name)).collect();
        let further = std::mem::take(&mut held.owed);
        // Whether the last batch of the connection before was written is seen only now.
        held.is_unstored = further.iter().any(|one| !owed.contains(one));
        owed.extend(further.into_iter().filter(|one| !owed.contains(one)).collect::<Vec<_>>());
        held.owed = owed;
    }

    /// Adds what a change or a gap owes, once; returns the names of its backfills.
    pub(crate) fn add(&self, owed: Owed) -> Vec<String> {
        let names = owed.backfills().map(|(name, _)| name).collect();
        let mut held = self.held();
        // The same gap is met again where the batch behind it was not written.
        if !held.paid.contains(&owed.name) && !held.owed.iter().any(|one| one.name == owed.name) {
            held.owed.push(owed);
            held.is_unstored = true;
        }
        names
    }

    /// Returns what is to stand beside the cursor with the next batch, where something else does.
    pub(crate) fn take_unstored(&self) -> Option<String> {
        let mut held = self.held();
        std::mem::take(&mut held.is_unstored).then(|| serde_json::to_string(&held.owed).ok()).flatten()
    }

    fn registered(&self, owed: &[Owed]) {
        let mut held = self.held();
        held.owed.retain(|one| !owed.contains(one));
        held.paid.extend(owed.iter().map(|one| one.name.clone()));
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers what stands beside the cursor, for as long as it takes each time.
pub(crate) async fn register(client: Client, key: String, address: Address, debts: Debts, every: Duration) {
    let mut failing = Failing::default();
    loop {
        tokio::time::sleep(every).await;
        // While Redis does not answer, others say so.
        let Ok(Some(text)) = client.hget::<Option<String>, _, _>(&key, state::OWED).await else { continue };
        let owed: Vec<Owed> = match serde_json::from_str(&text) {
            Ok(owed) => owed,
            Err(error) => {
                debug!(error = chain(&error), "cannot read what backfills are owed");
                continue;
            }
        };
        match timeout(DEADLINE, write(&address, &owed)).await.unwrap_or(Err(RegisterError::Deadline)) {
            Ok(registered) => {
                failing.over(Instant::now());
                for (name, reason) in registered {
                    info!(backfill = name, reason, "registered a backfill");
                }
            }
            Err(error) => {
                let how = Circumstances { is_away: false, is_unanswered: error.is_unanswered() };
                if let Some(failures) = failing.failed(Instant::now(), how) {
                    let error = chain(&error);
                    warn!(failures, error, "could not register a backfill, trying again");
                }
                continue;
            }
        }
        debts.registered(&owed);
        // Where it stays it is registered again, which does nothing.
        let _: Result<(), _> = script::run(&client, REMOVE, key.clone(), vec![state::OWED.into(), text.into()]).await;
    }
}

/// Registers all of them; returns the names of those that were not there, and their reasons.
async fn write(address: &Address, owed: &[Owed]) -> Result<Vec<(String, String)>, RegisterError> {
    let mut connection = checkpoint::connect(address).await?;
    let registered = write_through(&mut connection, owed).await;
    let _ = timeout(DEADLINE, connection.close()).await;
    registered
}

async fn write_through(connection: &mut PgConnection, owed: &[Owed]) -> Result<Vec<(String, String)>, RegisterError> {
    let mut transaction = connection.begin().await.map_err(RegisterError::Write)?;
    let mut registered = Vec::new();
    for one in owed {
        for (name, scope) in one.backfills() {
            let insert = sqlx::query(REGISTER)
                .persistent(false)
                .bind(&name)
                .bind(serde_json::to_string(scope).map_err(RegisterError::Encode)?)
                .bind(Reason::of(&one.reason).unwrap_or(Reason::Backfill).priority())
                .bind(&one.reason)
                .bind(one.filter.as_ref().map(Epoch::as_str))
                .bind(&one.since);
            let inserted = insert.execute(&mut *transaction).await.map_err(RegisterError::Write)?;
            if inserted.rows_affected() > 0 {
                registered.push((name, one.reason.clone()));
            }
        }
    }
    if let Some(filter) = owed.iter().rev().find_map(|one| one.filter.as_ref()) {
        let update = sqlx::query(IN_FORCE).persistent(false).bind(filter.as_str());
        update.execute(&mut *transaction).await.map_err(RegisterError::Write)?;
    }
    transaction.commit().await.map_err(RegisterError::Write)?;
    Ok(registered)
}

// === impl RegisterError ===

impl RegisterError {
    fn is_unanswered(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_unanswered(),
            Self::Write(error) => is_unanswered(error),
            Self::Deadline => true,
            Self::Encode(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: Option<String>) -> Option<Vec<String>> {
        let owed: Vec<Owed> = serde_json::from_str(&text?).unwrap();
        Some(owed.into_iter().map(|one| one.name).collect())
    }

    #[test]
    fn what_is_owed_is_kept_until_it_is_registered_and_owed_once() {
        let (a, b) = (Owed::by_gap(7, 9, None), Owed::by_gap(20, 30, None));
        let debts = Debts::default();
        assert_eq!(debts.add(a.clone()), ["seam-7-9/all"]);
        let stored = debts.take_unstored();
        assert_eq!((names(stored.clone()), debts.take_unstored()), (Some(vec![a.name.clone()]), None));
        // The batch was not written, and the gap is met again.
        debts.resume(None);
        debts.add(a.clone());
        assert_eq!(names(debts.take_unstored()), Some(vec![a.name.clone()]));
        // It was.
        debts.resume(stored.as_deref());
        assert_eq!(debts.take_unstored(), None);
        // Another process keeps what the one before owed.
        let next = Debts::default();
        next.resume(stored.as_deref());
        next.add(b.clone());
        assert_eq!(names(next.take_unstored()), Some(vec![a.name.clone(), b.name.clone()]));
        // Once it is registered it is owed no more, though it could not be removed, and is met again.
        next.registered(std::slice::from_ref(&a));
        next.resume(stored.as_deref());
        next.add(a);
        assert_eq!(names(next.take_unstored()), Some(vec![b.name]));
    }

    #[test]
    fn a_gap_is_dated_an_hour_before_the_last_event() {
        let time: Timestamp = "2026-07-04T14:38:08Z".parse().unwrap();
        let since = Owed::by_gap(1, 3, Some(time)).since.unwrap();
        let micros = penstock_wire::rev_number(&since).unwrap() >> 10;
        assert_eq!(Timestamp::from_microsecond(micros as i64).unwrap(), time - CLOCKS);
        assert_eq!(Owed::by_gap(1, 3, None).since.as_deref(), Some(""), "every rev is later");
    }
}
