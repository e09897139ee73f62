//! The TypeScript ingestion.
//!
//! Its cursor is a row in PostgreSQL, written every few seconds beside the entries and not with them. Only commits carry
//! their number. After a frame that it cannot read it opens another subscription from that row while the old one goes on.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::dialect::Dialect;
use super::player::{AGAIN, CURSOR_EVERY, Player, Socket, Theirs, next};
use super::resp::Redis;
use crate::frames::Entry;

/// How long both subscriptions are open.
const BOTH: Duration = Duration::from_millis(150);

const SAVE: &str = "INSERT INTO firehose_cursor (service, cursor, last_event_time) VALUES ('firehose', $1, now())
    ON CONFLICT (service) DO UPDATE SET cursor = $1, last_event_time = now(), updated_at = now()";

struct Ingestion {
    theirs: Arc<Theirs>,
    redis: Redis,
    saved: Option<Instant>,
    saving: JoinSet<()>,
}

/// Starts it; `stumbles` is how often it opens another subscription.
pub(crate) fn start(theirs: &Arc<Theirs>, stumbles: Option<Duration>) -> Player {
    let theirs = Arc::clone(theirs);
    Player::start("the typescript ingestion", move |stop| async move {
        let redis = theirs.redis().await;
        let mut ingestion = Ingestion { theirs, redis, saved: None, saving: JoinSet::new() };
        // What it has not pushed when it is told to end is gone with it, and so is a row that is not written yet.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = ingestion.read(stumbles) => {}
        }
    })
}

// === impl Ingestion ===

impl Ingestion {
    async fn read(&mut self, stumbles: Option<Duration>) {
        let mut socket = self.subscribe().await;
        loop {
            let mut stumble = pin!(sleep(stumbles.unwrap_or(Duration::MAX)));
            let over = loop {
                tokio::select! {
                    () = &mut stumble => break false,
                    event = next(&mut socket) => match event {
                        Some((seq, entry)) => self.handle(seq, entry).await,
                        None => break true,
                    },
                }
            };
            let second = if over {
                sleep(AGAIN).await;
                self.subscribe().await
            } else {
                let mut second = self.subscribe().await;
                self.read_both(&mut socket, &mut second).await;
                second
            };
            socket = second;
        }
    }

    async fn read_both(&mut self, first: &mut Socket, second: &mut Socket) {
        let until = Instant::now() + BOTH;
        while Instant::now() < until {
            tokio::select! {
                event = next(first) => match event {
                    Some((seq, entry)) => self.handle(seq, entry).await,
                    None => return,
                },
                event = next(second) => match event {
                    Some((seq, entry)) => self.handle(seq, entry).await,
                    None => return,
                },
            }
        }
    }

    async fn subscribe(&self) -> Socket {
        let row = "SELECT cursor FROM firehose_cursor WHERE service = 'firehose'";
        let cursor: Option<Option<String>> = sqlx::query_scalar(row).fetch_optional(&self.theirs.pool).await.unwrap();
        self.theirs.subscribe(cursor.flatten().and_then(|cursor| cursor.parse().ok())).await
    }

    async fn handle(&mut self, seq: u64, entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        while self.saving.try_join_next().is_some() {}
        if entry.kind == "commit" && self.saved.is_none_or(|saved| saved.elapsed() > CURSOR_EVERY) {
            self.saved = Some(Instant::now());
            let pool = self.theirs.pool.clone();
            self.saving.spawn(async move {
                // An error is logged, no more.
                let _ = sqlx::query(SAVE).bind(seq.to_string()).execute(&pool).await;
            });
        }
        let fields = Dialect::TypeScript.fields(&entry);
        // What was not answered is sent again, for as long as it takes.
        while self.theirs.add(&mut self.redis, &fields).await.is_err() {
            self.redis = self.theirs.redis().await;
        }
    }
}
