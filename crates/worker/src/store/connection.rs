//! Connections that are given up when the server does not answer.

use std::io;
use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use tokio::time::error::Elapsed;

use super::Store;

/// A connection of the pool, to be given back with what was [answered](Self::answered) on it.
pub(crate) struct Borrowed(PoolConnection<Postgres>);

// === impl Store ===

impl Store {
    /// Takes a connection from the pool, which waits for one no longer than its acquire timeout.
    pub(crate) async fn connection(&self) -> sqlx::Result<Borrowed> {
        self.pool.acquire().await.map(Borrowed)
    }

    /// Waits for an answer, at most for the deadline.
    pub(crate) async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::time::timeout(self.deadline, answer).await
    }
}

// === impl Borrowed ===

impl Borrowed {
    /// Gives the connection back and returns what was answered. Where nothing was in time the connection is closed: the
    /// server may be gone without a word, and the pool would wait for it without end.
    pub(crate) fn answered<T, E: From<sqlx::Error>>(mut self, answer: Result<Result<T, E>, Elapsed>) -> Result<T, E> {
        answer.unwrap_or_else(|_| {
            self.0.close_on_drop();
            Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time")).into())
        })
    }
}

impl Deref for Borrowed {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}
