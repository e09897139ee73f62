//! The Python consumer.
//!
//! It keeps the number it has come to in one key, written every few seconds *before* the entry (of a commit; after that of
//! anything else), and once more when it is told to end. SIGTERM ends it between any two of its steps.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::dialect::Dialect;
use super::player::{AGAIN, CURSOR_EVERY, Player, Theirs, next};
use super::resp::{Redis, Reply};
use crate::frames::Entry;

struct Consumer {
    theirs: Arc<Theirs>,
    redis: Option<Redis>,
    cursor: Option<u64>,
    saved: Option<Instant>,
}

pub(crate) fn start(theirs: &Arc<Theirs>) -> Player {
    let theirs = Arc::clone(theirs);
    Player::start("the python consumer", |stop| async move {
        let redis = theirs.redis().await;
        let mut consumer = Consumer { theirs, redis: Some(redis), cursor: None, saved: None };
        consumer.load().await;
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = consumer.read() => {}
        }
        consumer.say_farewell().await;
    })
}

// === impl Consumer ===

impl Consumer {
    async fn load(&mut self) {
        let key = self.theirs.keys.cursor().to_owned();
        let found = self.call(&["GET", &key]).await;
        // Nothing and 0 are the same to it: what is live.
        self.cursor = found.and_then(|found| found.text()?.parse().ok()).filter(|cursor| *cursor > 0);
    }

    async fn read(&mut self) {
        // It never tells its library how far it has come: whenever the relay hangs up, all since its start comes again.
        let from = self.cursor;
        loop {
            let mut socket = self.theirs.subscribe(from).await;
            while let Some((seq, entry)) = next(&mut socket).await {
                if let Some(entry) = entry {
                    self.handle(seq, &entry).await;
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn handle(&mut self, seq: u64, entry: &Entry) {
        if entry.kind == "commit" {
            self.save(seq).await;
        }
        if self.redis.is_none() {
            self.redis = Redis::connect(self.theirs.redis).await.ok();
        }
        let fields = Dialect::Python.fields(entry);
        let added = match &mut self.redis {
            Some(redis) => self.theirs.add(redis, &fields).await.is_ok(),
            None => false,
        };
        if !added {
            // It logs the error, and goes on with the next event.
            self.redis = None;
            self.theirs.gave_up(seq, "redis was away");
        } else if entry.kind != "commit" {
            self.save(seq).await;
        }
    }

    async fn save(&mut self, seq: u64) {
        self.cursor = Some(seq);
        if self.saved.is_some_and(|saved| saved.elapsed() <= CURSOR_EVERY) {
            return;
        }
        self.saved = Some(Instant::now());
        let key = self.theirs.keys.cursor().to_owned();
        self.call(&["SET", &key, &seq.to_string()]).await;
        let status = format!(r#"{{"connected": true, "url": "{}", "currentCursor": "{seq}"}}"#, self.theirs.relay);
        let key = self.theirs.keys.status();
        self.call(&["SETEX", &key, "10", &status]).await;
    }

    /// What its signal handler does, whatever was under way.
    async fn say_farewell(&mut self) {
        self.redis = Redis::connect(self.theirs.redis).await.ok();
        if let Some(cursor) = self.cursor {
            let key = self.theirs.keys.cursor().to_owned();
            self.call(&["SET", &key, &cursor.to_string()]).await;
        }
    }

    /// Sends a command whose failure is only logged.
    async fn call(&mut self, words: &[&str]) -> Option<Reply> {
        if self.redis.is_none() {
            self.redis = Redis::connect(self.theirs.redis).await.ok();
        }
        let answer = self.redis.as_mut()?.call(words).await.ok();
        if answer.is_none() {
            self.redis = None;
        }
        answer
    }
}
