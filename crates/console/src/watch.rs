//! Keeps what is known up to date: the live stream, and questions beside it.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::api::DeadLetters;
use crate::client::{Client, Message};
use crate::error::AskError;
use crate::filter::query_of_words;
use crate::state::{Link, Update};
use crate::{chain, link};

/// How often the dashboard is asked for what its stream does not tell.
const ASK: Duration = Duration::from_secs(2);

/// Every how many of these questions the dead letters are read.
const LETTERS: u32 = 3;

/// How many dead letters are read.
const LETTERS_ROUTE: &str = "/api/redis/dead-letters?limit=100";

/// The first and the longest time until the next try to connect.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// How many updates may wait.
const WAITING: usize = 4_096;

/// What a message of the live stream says.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame<'m> {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(borrow)]
    pub(crate) data: Option<&'m RawValue>,
    pub(crate) count: Option<u64>,
}

/// How long to wait before the next try; the server may have wished for a time.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    tries: u32,
}

// === impl Patience ===

impl Patience {
    /// Returns the time until the next try.
    pub(crate) fn next(&mut self, wished: Option<Duration>) -> Duration {
        let [first, longest] = RETRY;
        let own = first.saturating_mul(1 << self.tries.min(8)).min(longest);
        self.tries += 1;
        match wished {
            // Only the first time: a server that goes on failing is left alone for longer.
            Some(wished) if self.tries == 1 => wished.min(longest),
            _ => own,
        }
    }

    /// It works again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Starts to watch a dashboard, until the tasks are dropped; `words` are those that every event must hold.
pub(crate) fn watch(client: Arc<Client>, words: watch::Receiver<String>) -> (JoinSet<()>, mpsc::Receiver<Update>) {
    let (updates, receiver) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(Arc::clone(&client), words, updates.clone()));
    tasks.spawn(ask(client, updates));
    (tasks, receiver)
}

/// Follows the live stream, again and again; ends when nobody listens.
async fn follow(client: Arc<Client>, mut words: watch::Receiver<String>, updates: mpsc::Sender<Update>) {
    let (mut last, mut patience) = (None, Patience::default());
    'anew: loop {
        let query = query_of_words(&words.borrow_and_update());
        let (error, wished) = match client.stream(&query, last.as_deref()).await {
            Ok(mut stream) => {
                if updates.send(Update::Link(Link::Open)).await.is_err() {
                    return;
                }
                loop {
                    let message = tokio::select! {
                        message = stream.next() => message,
                        // Others are wanted from the last event on.
                        Ok(()) = words.changed() => continue 'anew,
                    };
                    let message = match message {
                        Ok(message) => message,
                        Err(error) => break (error, stream.retry()),
                    };
                    patience.reset();
                    let update = read(&message);
                    last = message.id.or(last);
                    if let Some(update) = update
                        && updates.send(update).await.is_err()
                    {
                        return;
                    }
                }
            }
            Err(error) => (error, None),
        };
        // A stream that ends as it should is opened again before it counts as lost.
        let lost = !matches!(error, AskError::Ended);
        if lost && updates.send(Update::Link(link(&error))).await.is_err() {
            return;
        }
        sleep(patience.next(wished)).await;
    }
}

fn read(message: &Message) -> Option<Update> {
    let frame: Frame<'_> = serde_json::from_str(&message.data).ok()?;
    let data = frame.data.map(RawValue::get);
    match frame.kind.as_str() {
        "metrics" => serde_json::from_str(data?).ok().map(Update::Metrics),
        "event" => serde_json::from_str(data?).ok().map(Update::Event),
        "missed" => frame.count.map(Update::Missed),
        _ => None,
    }
}

/// Asks for what the stream does not tell; ends when nobody listens.
async fn ask(client: Arc<Client>, updates: mpsc::Sender<Update>) {
    let mut ticks = interval(ASK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0.. {
        ticks.tick().await;
        let mut answers = vec![
            Update::Workers(client.get("/api/workers").await.map_err(|error| chain(&error))),
            Update::Ingest(client.get("/api/ingest").await.map_err(|error| chain(&error))),
            Update::Ready(client.get_either("/ready").await.map_err(|error| chain(&error))),
        ];
        if round % LETTERS == 0 {
            let letters = client.get::<DeadLetters>(LETTERS_ROUTE).await;
            answers.push(Update::Letters(letters.map_err(|error| chain(&error))));
        }
        for answer in answers {
            if updates.send(answer).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_between_tries_grow_and_are_bounded() {
        let mut patience = Patience::default();
        let times: Vec<_> = (0..7).map(|_| patience.next(None).as_millis()).collect();
        assert_eq!(times, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        patience.reset();
        let wished = Some(Duration::from_millis(1234));
        assert_eq!([patience.next(wished), patience.next(wished)].map(|time| time.as_millis()), [1234, 1000]);
        assert_eq!(Patience { tries: u32::MAX - 1 }.next(Some(Duration::MAX)), RETRY[1]);
    }

    #[test]
    fn frames_of_another_kind_are_passed_over() {
        let read = |data: &str| read(&Message { id: None, data: data.to_owned() });
        assert!(matches!(read(r#"{"type":"missed","count":7}"#), Some(Update::Missed(7))));
        assert!(matches!(read(r##"{"type":"event","data":{"type":"#commit"}}"##), Some(Update::Event(_))));
        assert!(matches!(read(r#"{"type":"metrics","data":{}}"#), Some(Update::Metrics(_))));
        for other in [r#"{"type":"connected","message":"x"}"#, r#"{"type":"new"}"#, r#"{"type":"event"}"#, "[]", ""] {
            assert!(read(other).is_none(), "{other}");
        }
    }
}
