//! A PostgreSQL that is gone without a word: no reset, no answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::store::{ApplyError, DeadLetter, StoreError};

/// How long the store waits for an answer here.
const DEADLINE: Duration = Duration::from_secs(3);

/// Carries connections to a server, until told to carry nothing more over those that are there.
struct Wire {
    url: String,
    carriers: Arc<Mutex<Vec<JoinHandle<()>>>>,
    is_cut: Arc<AtomicBool>,
}

impl Wire {
    async fn to(url: &str) -> Self {
        let (head, rest) = url.rsplit_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{database}", listener.local_addr().unwrap());
        let wire = Self { url, carriers: Arc::default(), is_cut: Arc::default() };
        let (carriers, is_cut, server) = (Arc::clone(&wire.carriers), Arc::clone(&wire.is_cut), server.to_owned());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (is_cut, server) = (Arc::clone(&is_cut), server.clone());
                let carrier = tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    let cut = async {
                        while !is_cut.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                        () = cut => {}
                    }
                    // Neither end hears of it.
                    std::future::pending::<()>().await;
                });
                carriers.lock().unwrap().push(carrier);
            }
        });
        wire
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for carrier in self.carriers.lock().unwrap().iter() {
            carrier.abort();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fell_silent_holds_no_call_for_ever_and_no_connection_either() {
    let db = Db::new().await;
    let wire = Wire::to(&db.url).await;
    let mut settings = StoreSettings::new(&wire.url);
    settings.pool_size = 2;
    let mut store = Store::connect(&settings).await.unwrap();
    store.deadline = DEADLINE;
    let letter = DeadLetter {
        orig_id: "5-0".into(),
        kind: "commit",
        data: b"{}",
        seq: "1",
        deliveries: 1,
        error: "e",
        consumer: "w1",
        repo: "",
    };
    let entries = [identity(5, "did:plc:a", Some("a.test"))];
    store.dead_letter(&letter).await.unwrap();
    store.apply("w1", &entries).await.unwrap();

    let mut lock = db.store.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE penstock.repos, penstock.dead_letters").execute(&mut *lock).await.unwrap();
    let cut = async {
        let asked = Instant::now();
        // Better both are under way when the server falls silent.
        while asked.elapsed() < DEADLINE / 2 {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            if sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *lock).await.unwrap() >= 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        wire.cut(true);
    };
    let (kept, applied, ()) = tokio::join!(store.dead_letter(&letter), store.apply("w1", &entries), cut);
    assert!(matches!(kept, Err(StoreError::DeadLetter(_))), "{kept:?}");
    assert!(matches!(applied, Err(ApplyError::Retry { reason: "no answer", .. })), "{applied:?}");
    wire.cut(false);
    lock.rollback().await.unwrap();
    // Both connections of the pool were silent: only new ones can answer. What hangs at the other end may hold the lock
    // of its repo until PostgreSQL takes it for idle.
    let others = [identity(6, "did:plc:b", Some("b.test"))];
    let until = Instant::now() + Duration::from_secs(60);
    while store.apply("w1", &others).await.is_err() || store.counts().await.is_err() {
        assert!(Instant::now() < until, "the pool waits for connections that will never answer");
    }
}
