//! What befalls the workers and PostgreSQL.

use fred::interfaces::LuaInterface;
use penstock_local::testing::TestPostgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Duration, Instant, sleep};

use super::crew::Crew;
use super::plan::{Fault, Who};
use super::run::Lane;
use super::stage::Links;
use crate::rig::Rig;

/// The lower half of the pipeline.
pub(crate) struct Downstream<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) links: &'a Links,
    pub(crate) postgres: TestPostgres,
    pub(crate) workers: Crew<'a>,
    /// How many entries were delivered once more at most.
    pub(crate) redelivered: u64,
}

/// Sets a group back by so many entries.
const BACK: &str = "
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if info[2] == ARGV[1] then
    local before = redis.call('XREVRANGE', KEYS[1], info[8], '-', 'COUNT', ARGV[2] + 1)
    return redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], before[#before][1])
  end
end
return redis.error_reply('NOGROUP')";

/// Gives pending entries to another consumer.
const STEAL: &str = "
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[2])
local taken = 0
for _, entry in ipairs(pending) do
  taken = taken + #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, entry[1], 'JUSTID')
end
return taken";

/// Ends the sessions of all workers.
const TERMINATE: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'penstock-worker'";

// === impl Downstream ===

impl Lane for Downstream<'_> {
    async fn strike(&mut self, fault: &Fault) -> Result<bool, String> {
        match fault {
            Fault::Blow(Who::Worker(which), blow, pause) => self.workers.strike(*which, *blow, *pause).await,
            Fault::PostgresDown { kill, pause } => {
                if *kill {
                    self.postgres.kill();
                } else {
                    self.postgres.stop().await.unwrap();
                }
                sleep(*pause).await;
                self.postgres.restart().await.unwrap();
            }
            Fault::Redelivered(entries) => return Ok(self.redeliver(*entries).await.is_some()),
            Fault::Stolen(entries) => return Ok(self.steal(*entries).await.is_some_and(|stolen| stolen > 0)),
            Fault::DiskFull(table, pause) => return Ok(self.fill_disk(table, *pause).await.is_ok()),
            Fault::ReadOnly(pause) => return Ok(self.read_only(*pause).await.is_ok()),
            Fault::Terminated => return Ok(self.execute(TERMINATE).await.is_ok()),
            Fault::PlansGone => {
                let widened = self.execute("ALTER TABLE likes ALTER COLUMN uri TYPE varchar(513)").await;
                sleep(Duration::from_millis(100)).await;
                let narrowed = self.execute("ALTER TABLE likes ALTER COLUMN uri TYPE varchar(512)").await;
                return Ok(widened.and(narrowed).is_ok());
            }
            Fault::Deadlocks(pause) => {
                let until = Instant::now() + *pause;
                let repos = self.rival("penstock.repos", "did", until);
                tokio::join!(repos, self.rival("post_aggregations", "post_uri", until));
            }
            Fault::Cut(_) | Fault::Trapped { .. } | Fault::Weather(..) => return Ok(self.links.spoil(fault).await),
            other => panic!("{other:?} is not downstream"),
        }
        Ok(true)
    }
}

impl Downstream<'_> {
    /// Sends the group back.
    async fn redeliver(&mut self, entries: u64) -> Option<()> {
        let (client, keys) = (&self.rig.client, &self.rig.keys);
        // The answer may be lost where the deed is not.
        self.redelivered += entries;
        let arguments = vec![keys.group().to_owned(), entries.to_string()];
        client.eval(BACK, vec![keys.stream()], arguments).await.ok()
    }

    async fn steal(&self, entries: u64) -> Option<u64> {
        let (client, keys) = (&self.rig.client, &self.rig.keys);
        let arguments = vec![keys.group().to_owned(), entries.to_string(), "a-thief".to_owned()];
        client.eval(STEAL, vec![keys.stream()], arguments).await.ok()
    }

    async fn fill_disk(&self, table: &str, pause: Duration) -> sqlx::Result<()> {
        let fill = format!(
            "CREATE OR REPLACE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
             CREATE OR REPLACE TRIGGER disk_full BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION disk_full()"
        );
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&self.rig.pool).await?;
        sleep(pause).await;
        let free = format!("DROP TRIGGER disk_full ON {table}");
        sqlx::raw_sql(AssertSqlSafe(free)).execute(&self.rig.pool).await.map(drop)
    }

    /// Lets the server refuse writes, on the connections that are there too.
    async fn read_only(&self, pause: Duration) -> sqlx::Result<()> {
        self.execute("ALTER SYSTEM SET default_transaction_read_only = on").await?;
        self.execute("SELECT pg_reload_conf()").await?;
        sleep(pause).await;
        self.execute("ALTER SYSTEM RESET default_transaction_read_only").await?;
        self.execute("SELECT pg_reload_conf()").await
    }

    async fn execute(&self, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(&self.rig.pool).await.map(drop)
    }

    /// Locks the newest rows of a table, the last key first.
    async fn rival(&self, table: &str, key: &str, until: Instant) {
        let hot =
            format!("SELECT {key} FROM (SELECT {key} FROM {table} ORDER BY ctid DESC LIMIT 60) t ORDER BY 1 DESC");
        let lock = format!("SELECT 1 FROM {table} WHERE {key} = $1 FOR UPDATE");
        while Instant::now() < until {
            let locking = async {
                let mut connection = PgConnection::connect(&self.rig.database).await?;
                let rows: Vec<String> =
                    sqlx::query_scalar(AssertSqlSafe(hot.as_str())).fetch_all(&mut connection).await?;
                let mut transaction = connection.begin().await?;
                for row in &rows {
                    sqlx::query(AssertSqlSafe(lock.as_str())).bind(row).execute(&mut *transaction).await?;
                    sleep(Duration::from_millis(1)).await;
                }
                transaction.commit().await
            };
            // A deadlock ends one of the two, and it may be this one.
            let _: sqlx::Result<()> = locking.await;
        }
    }
}
