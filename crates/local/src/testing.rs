//! Servers for tests: in a temporary folder, gone with the test process however it ends.
//!
//! ```no_run
//! # async fn test() -> Result<(), penstock_local::LocalError> {
//! use penstock_local::testing::{TestRedis, fresh_database};
//!
//! let redis = TestRedis::start().await?; // this test's own
//! let database_url = fresh_database().await?; // an empty database on the PostgreSQL that this test process shares
//! # Ok(())
//! # }
//! ```

mod kubernetes;
mod pgbouncer;
mod sentinel;
mod standby;

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use crate::{LocalError, Postgres, PostgresOptions, Redis, RedisOptions, programs};

pub use kubernetes::TestApiServer;
pub use pgbouncer::{PgBouncerOptions, TestPgBouncer};
pub use sentinel::TestSentinel;

/// A redis-server in a temporary folder, both gone when dropped.
#[derive(Debug)]
pub struct TestRedis {
    redis: Redis,
    _folder: TempFolder,
}

/// A PostgreSQL in a temporary folder, both gone when dropped.
#[derive(Debug)]
pub struct TestPostgres {
    postgres: Postgres,
    _folder: TempFolder,
}

/// A new folder under the system's temporary one, removed with all it holds when dropped.
#[derive(Debug)]
pub struct TempFolder {
    path: PathBuf,
}

static SHARED: OnceCell<TestPostgres> = OnceCell::const_new();
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// Returns the folder of the programs of a server of one of Debian's other suites (`redis-8`, `valkey-9`, `postgresql-18`, see
/// `scripts/servers.sh`), or `None` where it cannot be had, after a line on stderr that says why; a test is skipped then.
pub fn unpacked(name: &str) -> Option<PathBuf> {
    programs::unpacked_folder(name)
}

/// Makes an empty database on the test process's [shared](TestPostgres::shared) PostgreSQL, and returns its URL.
///
/// # Errors
///
/// As [`Postgres::start`] and [`Postgres::create_database`].
pub async fn fresh_database() -> Result<String, LocalError> {
    TestPostgres::shared().await?.fresh_database().await
}

// === impl TestRedis ===

impl TestRedis {
    /// Starts one that persists nothing.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`].
    pub async fn start() -> Result<Self, LocalError> {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts one with options.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`].
    pub async fn start_with(options: RedisOptions) -> Result<Self, LocalError> {
        let folder = TempFolder::new()?;
        let redis = Redis::start_in(folder.path(), options, Some(folder.path().to_owned())).await?;
        Ok(Self { redis, _folder: folder })
    }
}

impl Deref for TestRedis {
    type Target = Redis;

    fn deref(&self) -> &Redis {
        &self.redis
    }
}

impl DerefMut for TestRedis {
    fn deref_mut(&mut self) -> &mut Redis {
        &mut self.redis
    }
}

// === impl TestPostgres ===

impl TestPostgres {
    /// Starts one of the test's own, without fsync, in about two seconds; for tests that stop or kill it.
    ///
    /// # Errors
    ///
    /// As [`Postgres::start`].
    pub async fn start() -> Result<Self, LocalError> {
        Self::start_with(PostgresOptions { durable: false, ..PostgresOptions::default() }).await
    }

    /// Starts one with options.
    ///
    /// # Errors
    ///
    /// As [`Postgres::start`].
    pub async fn start_with(options: PostgresOptions) -> Result<Self, LocalError> {
        let folder = TempFolder::new()?;
        let postgres = Postgres::start_in(folder.path(), options, Some(folder.path().to_owned())).await?;
        Ok(Self { postgres, _folder: folder })
    }

    /// Returns the one that all tests of this process share, started by the first that asks.
    ///
    /// # Errors
    ///
    /// As [`Postgres::start`].
    pub async fn shared() -> Result<&'static Self, LocalError> {
        SHARED.get_or_try_init(Self::start).await
    }

    /// Makes an empty database of a new name, and returns its URL.
    ///
    /// # Errors
    ///
    /// As [`Postgres::create_database`].
    pub async fn fresh_database(&self) -> Result<String, LocalError> {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        self.create_database(&format!("test_{number}")).await
    }
}

impl Deref for TestPostgres {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        &self.postgres
    }
}

impl DerefMut for TestPostgres {
    fn deref_mut(&mut self) -> &mut Postgres {
        &mut self.postgres
    }
}

// === impl TempFolder ===

impl TempFolder {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// [`LocalError::Prepare`] when the system's temporary folder cannot be written.
    pub fn new() -> Result<Self, LocalError> {
        let path = std::env::temp_dir().join(format!("penstock-test-{:016x}", rand::random::<u64>()));
        fs::create_dir(&path).map_err(LocalError::prepare(&path))?;
        Ok(Self { path })
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn servers_of_other_suites_run_beside_the_installed_ones() {
        if let Some(programs) = unpacked("valkey-8") {
            let options = RedisOptions { programs: Some(programs), ..RedisOptions::default() };
            let redis = TestRedis::start_with(options).await.unwrap();
            assert!(redis.pid().is_some());
        }
        if let Some(programs) = unpacked("postgresql-17") {
            let options = PostgresOptions { durable: false, programs: Some(programs), ..PostgresOptions::default() };
            let postgres = TestPostgres::start_with(options).await.unwrap();
            assert!(postgres.fresh_database().await.is_ok());
        }
    }
}
