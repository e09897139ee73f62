//! A pool whose connections are each made where the database is by then, with the password that is valid by then.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool, Postgres};
use tokio::time::timeout;

use crate::address::Address;

/// How long a connection that was idle may take to answer.
const PING: Duration = Duration::from_secs(2);

/// A pool of connections to one address; clones share it.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    address: Address,
}

// === impl Pool ===

impl Pool {
    /// Makes a pool that connects when a connection is asked for; an idle one is used only where `is_good` says so.
    ///
    /// # Errors
    /// The client refuses an option of the address.
    pub fn lazy(
        address: Address,
        options: PgPoolOptions,
        is_good: impl Fn(&PoolConnectionMetadata) -> bool + Send + Sync + 'static,
    ) -> sqlx::Result<Self> {
        // Weak, because the pool holds its own callback.
        let made: Arc<OnceLock<Weak<Shared>>> = Arc::default();
        let fixed = address.is_fixed();
        let options = if fixed { options } else { options.test_before_acquire(false) };
        let (seen, next) = (Arc::clone(&made), address.clone());
        let options = options.before_acquire(move |connection, age| {
            let good = is_good(&age);
            let (seen, next) = (Arc::clone(&seen), next.clone());
            Box::pin(async move {
                if fixed || (good && matches!(timeout(PING, connection.ping()).await, Ok(Ok(())))) {
                    return Ok(good);
                }
                // The pool makes another one at once.
                if let (Some(shared), Ok(options)) = (seen.get().and_then(Weak::upgrade), next.next().await) {
                    shared.pool.set_connect_options(options);
                }
                Ok(false)
            })
        });
        let pool = options.connect_lazy_with(address.known()?);
        let shared = Arc::new(Shared { pool, address });
        let _ = made.set(Arc::downgrade(&shared));
        Ok(Self(shared))
    }

    /// Takes a connection, which waits for one no longer than the pool's acquire timeout.
    ///
    /// # Errors
    /// None is free in time, or none can be made.
    pub async fn acquire(&self) -> sqlx::Result<PoolConnection<Postgres>> {
        if self.0.address.is_fixed() {
            return self.0.pool.acquire().await;
        }
        let options = self.0.pool.options();
        let (most, patience) = (options.get_max_connections(), options.get_acquire_timeout());
        if self.0.pool.num_idle() == 0 && self.0.pool.size() < most {
            self.renew(patience).await?;
        }
        match self.0.pool.acquire().await {
            Ok(connection) => Ok(connection),
            Err(sqlx::Error::PoolTimedOut) if self.0.pool.size() >= most => Err(sqlx::Error::PoolTimedOut),
            // What it was made with may have been right a moment ago.
            Err(_) => {
                self.renew(patience).await?;
                self.0.pool.acquire().await
            }
        }
    }

    /// Finds out where the next connection goes.
    async fn renew(&self, patience: Duration) -> sqlx::Result<()> {
        let options = timeout(patience, self.0.address.next()).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        self.0.pool.set_connect_options(options);
        Ok(())
    }

    /// Makes one connection, to see that it can be made.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn connected(self) -> sqlx::Result<Self> {
        self.acquire().await?;
        Ok(self)
    }

    /// Returns the connections themselves.
    #[must_use]
    pub fn inner(&self) -> &PgPool {
        &self.0.pool
    }

    /// Returns where they lead.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Returns the options with which the last one was made, or would be.
    #[must_use]
    pub fn last_options(&self) -> Arc<PgConnectOptions> {
        self.0.pool.connect_options()
    }
}
