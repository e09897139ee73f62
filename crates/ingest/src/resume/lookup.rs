//! What PostgreSQL knows of repos, asked for many at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_core::causes::chain;
use penstock_core::entry::Root;
use penstock_postgres::{Address, Pool};
use penstock_wire::rev_number;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Row};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::intake::chain::state::State;

/// How long PostgreSQL may take: events wait for it.
const WAIT: Duration = Duration::from_secs(1);

/// For how long it is not asked again after it did not answer: nothing waits meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

/// How many connections are made at most; they are closed once they are idle.
const CONNECTIONS: u32 = 3;

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(30);

const REPOS: &str = "SELECT did, rev, root FROM penstock.repos WHERE did = ANY($1)";

/// Asks PostgreSQL for repos; clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pool: Pool,
    /// When it may be asked again.
    not_before: Arc<Mutex<Option<Instant>>>,
}

// === impl Lookup ===

impl Lookup {
    /// Prepares the connections; nothing is connected yet.
    ///
    /// # Errors
    /// The client refuses an option of the address.
    pub(crate) fn new(address: Address) -> sqlx::Result<Self> {
        let options = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(WAIT).idle_timeout(IDLE);
        let pool = Pool::lazy(address.named("penstock-ingest"), options, |_| true)?;
        Ok(Self { pool, not_before: Arc::default() })
    }

    /// Returns the connections.
    pub(crate) fn pool(&self) -> Pool {
        self.pool.clone()
    }

    /// Returns the state of each repo, [`State::NOTHING`] of one that it does not know; none where it does not answer.
    pub(crate) async fn states(&self, dids: &[Box<str>]) -> Option<HashMap<Box<str>, State>> {
        if self.lock().is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let answer = match timeout(WAIT, self.ask(dids)).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                debug!(error = chain(&error), "could not read the state of repos");
                None
            }
            Err(_) => {
                debug!("could not read the state of repos in time");
                None
            }
        };
        *self.lock() = if answer.is_none() { Some(Instant::now() + AGAIN) } else { None };
        answer
    }

    async fn ask(&self, dids: &[Box<str>]) -> sqlx::Result<HashMap<Box<str>, State>> {
        let mut connection = self.pool.acquire().await?;
        // A pooler lends a session for a transaction: only within one does what is asked follow what was prepared.
        let mut transaction = connection.begin().await?;
        let asked: Vec<&str> = dids.iter().map(|did| &**did).collect();
        let rows = sqlx::query(REPOS).persistent(false).bind(asked).fetch_all(&mut *transaction).await?;
        transaction.rollback().await?;
        let mut found: HashMap<Box<str>, State> = dids.iter().map(|did| (did.clone(), State::NOTHING)).collect();
        for row in rows {
            let did: &str = row.try_get(0)?;
            found.insert(did.into(), state(row.try_get(1)?, row.try_get(2)?));
        }
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a row; an empty root says that another program wrote the last commit.
fn state(rev: Option<&str>, root: Option<&[u8]>) -> State {
    let root = match root {
        Some([]) => return State::NOTHING,
        Some(root) => Root::try_from(root).ok().map(u64::from_be_bytes),
        None => None,
    };
    match rev.and_then(rev_number) {
        Some(rev) => State { rev, root, ..State::NOTHING },
        None => State::NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_state() {
        let rev = rev_number("3jzfcijpj2z2a").unwrap();
        let whole = State { rev, root: Some(0x0102_0304_0506_0708), ..State::NOTHING };
        assert_eq!(state(Some("3jzfcijpj2z2a"), Some(&[1, 2, 3, 4, 5, 6, 7, 8])), whole);
        assert_eq!(state(Some("3jzfcijpj2z2a"), None), State { root: None, ..whole });
        for nothing in [state(None, None), state(Some("3jzfcijpj2z2a"), Some(&[])), state(Some("no tid"), None)] {
            assert_eq!(nothing, State::NOTHING);
        }
    }
}
