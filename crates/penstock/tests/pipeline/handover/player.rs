//! What the programs of the other side have in common: where they are, how they end, and what is known of their deeds.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use penstock_core::keys::Keys;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

use super::dialect::Fields;
use super::resp::{Redis, Reply};
use crate::frames::{self, Entry};

/// Twenty times as fast as the originals.
pub(crate) const CURSOR_EVERY: Duration = Duration::from_millis(250);
pub(crate) const CLAIM_IDLE: Duration = Duration::from_millis(500);

/// How long a program that comes back after a failure waits.
pub(crate) const AGAIN: Duration = Duration::from_millis(100);

/// How long one that was told to end may take.
const FAREWELL: Duration = Duration::from_secs(10);

/// The other side's place.
pub(crate) struct Theirs {
    pub(crate) redis: u16,
    pub(crate) keys: Keys,
    pub(crate) relay: String,
    pub(crate) database: String,
    /// For what needs no transaction.
    pub(crate) pool: PgPool,
    /// Their MAXLEN.
    pub(crate) max_len: u64,
    pub(crate) ledger: Mutex<Ledger>,
}

/// What they did that is nobody else's fault.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Events that an ingest of theirs had and did not bring into the stream, with the reason.
    pub(crate) given_up: BTreeMap<u64, &'static str>,
    /// Entries that a worker of theirs began to write.
    pub(crate) handled: BTreeSet<String>,
}

/// A program of theirs, gone when dropped.
pub(crate) struct Player {
    pub(crate) name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// An open subscription to the relay.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One XADD as theirs does it, which notes what its MAXLEN took away from the group: IDs that were pending, and from
/// where to where entries were that it had not even been given.
const ADD: &str = "
local stream, group, taken, max, type, data, seq = KEYS[1], ARGV[1], KEYS[2], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local before = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
local id = redis.call('XADD', stream, 'MAXLEN', '~', max, '*', 'type', type, 'data', data, 'seq', seq)
local after = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
if #before == 0 or before[1][1] == after[1][1] then return id end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if info[2] == group then
    for _, entry in ipairs(redis.call('XPENDING', stream, group, '-', '(' .. after[1][1], 100000)) do
      redis.call('RPUSH', taken, entry[1])
    end
    redis.call('RPUSH', taken, info[8] .. ' ' .. after[1][1])
  end
end
return id";

/// Where [`ADD`] notes it.
pub(crate) const TAKEN: &str = "test:taken";

// === impl Theirs ===

impl Theirs {
    pub(crate) fn new(redis: u16, keys: Keys, relay: String, database: &str, max_len: u64) -> Arc<Self> {
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(database).unwrap();
        let database = database.to_owned();
        Arc::new(Self { redis, keys, relay, database, pool, max_len, ledger: Mutex::default() })
    }

    /// Connects to Redis, however long it is away.
    pub(crate) async fn redis(&self) -> Redis {
        loop {
            match Redis::connect(self.redis).await {
                Ok(redis) => return redis,
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    /// Adds an entry; says whether it is there as far as this side knows.
    pub(crate) async fn add(&self, redis: &mut Redis, [kind, data, seq]: &Fields) -> std::io::Result<()> {
        let (stream, max_len) = (self.keys.stream(), self.max_len.to_string());
        let command = ["EVAL", ADD, "2", stream, TAKEN, self.keys.group(), &max_len, kind, data, seq];
        match redis.call(&command).await? {
            Reply::Error(error) => Err(std::io::Error::other(error)),
            _ => Ok(()),
        }
    }

    /// Opens a subscription from a cursor, or to what is live, however long the relay is away.
    pub(crate) async fn subscribe(&self, cursor: Option<u64>) -> Socket {
        let cursor = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
        let url = format!("{}/xrpc/com.atproto.sync.subscribeRepos{cursor}", self.relay);
        loop {
            match connect_async(&url).await {
                Ok((socket, _)) => return socket,
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    pub(crate) fn gave_up(&self, seq: u64, why: &'static str) {
        self.ledger.lock().unwrap().given_up.insert(seq, why);
    }
}

/// The next event of a subscription: its number, and the entry that it makes; `None` when the subscription is over.
pub(crate) async fn next(socket: &mut Socket) -> Option<(u64, Option<Entry>)> {
    loop {
        match socket.next().await? {
            Ok(Message::Binary(frame)) => return Some(frames::read(&frame)),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

// === impl Player ===

impl Player {
    /// Starts a program; it ends by itself once it is told to.
    pub(crate) fn start<F>(name: &'static str, program: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = spawn(program(stop.clone()));
        Self { name, stop, task }
    }

    /// Ends it wherever it is, as `kill -9` does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        self.join().await;
    }

    /// Ends it as its own SIGTERM does.
    pub(crate) async fn terminate(self) {
        self.stop.cancel();
        let name = self.name;
        assert!(timeout(FAREWELL, self.join()).await.is_ok(), "{name} does not end");
    }

    async fn join(mut self) {
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.task.abort();
    }
}
