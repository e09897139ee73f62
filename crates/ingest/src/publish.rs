//! Batches, and their way into the stream: pipelined, each fenced by the one before.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::BASE64;
use fred::bytes_utils::Str;
use fred::clients::Client;
use fred::interfaces::LuaInterface;
use fred::types::Value;
use jiff::Timestamp;
use penstock_core::data::EventKind;
use penstock_core::keys::Keys;
use penstock_core::live::{Broadcast, Head, state};
use penstock_core::stream::StreamId;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use crate::events::Published;
use crate::lease::Lease;
use crate::scripts;
use crate::takeover::LOOK;
use crate::traces::{BatchTraces, EventTrace};

/// What one entry or letter takes beside its data, about, in bytes.
const OVERHEAD: usize = 64;

/// Events that go into the stream together.
#[derive(Debug)]
pub(crate) struct Batch {
    entries: Vec<(EventKind, Bytes, u64)>,
    letters: Vec<Letter>,
    lives: Vec<Broadcast>,
    traces: BatchTraces,
    shares: Vec<Arc<OwnedSemaphorePermit>>,
    bytes: usize,
    cursor: Option<u64>,
    event_time: Option<Timestamp>,
    usual_time: Option<Timestamp>,
    received: Instant,
}

/// What the first batches of a connection must find, and bring beside their events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening {
    /// The cursor's text as it stands, empty where there is none.
    pub(crate) fence: String,
    /// The incarnation that must stand there; empty where that is not looked at.
    pub(crate) incarnation: String,
    /// The incarnation to be set with the cursor.
    pub(crate) new_incarnation: Option<String>,
    /// The host to be written as the cursor's source with the first entry.
    pub(crate) source: Option<String>,
    /// The host that is left for it, and how far that was read.
    pub(crate) left: Option<(String, Head)>,
    /// The ID below which no entry may come.
    pub(crate) floor: Option<StreamId>,
    /// Whether other programs may write the stream too.
    pub(crate) shared: bool,
}

/// A frame set aside.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The frame.
    pub(crate) frame: Bytes,
    /// Its sequence number, where it has one.
    pub(crate) seq: Option<u64>,
    /// What is wrong with it.
    pub(crate) error: String,
}

/// Why a batch was not written.
#[derive(Debug, Error)]
pub(crate) enum PublishError {
    /// Another ingest holds the lease.
    #[error("the lease is held by another ingest")]
    Lease,
    /// The cursor is not what the batch before left.
    #[error("the cursor is {found:?}, not {expected:?}")]
    Cursor {
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// Another program added an entry to the stream.
    #[error("another program wrote entry {id}")]
    Entry {
        /// Its ID.
        id: String,
    },
    /// More entries without a number came since the batch before than one script looks through.
    #[error("others wrote more entries than are looked through at once")]
    Behind,
    /// The workers found this Redis lost, or another system set the incarnation.
    #[error("the incarnation is {found:?}")]
    Incarnation {
        /// What stands there.
        found: String,
    },
    /// Redis did not answer, or with an error: the batch may be written or not.
    #[error(transparent)]
    Redis(fred::error::Error),
    /// The script answered something else.
    #[error("the script answered {0:?}")]
    Answer(Vec<String>),
}

type Answer = Pin<Box<dyn Future<Output = Result<Vec<String>, fred::error::Error>> + Send>>;

struct InFlight {
    answer: Answer,
    expected: String,
    published: Published,
    lives: Vec<Broadcast>,
    traces: BatchTraces,
    _shares: Vec<Arc<OwnedSemaphorePermit>>,
}

/// Sends batches one behind the other and takes their answers in order.
pub(crate) struct Publisher {
    client: Client,
    lease: Lease,
    script: Str,
    keys: [String; 7],
    consumer: String,
    /// The cursor's text and the incarnation that the last batch sent will leave, and what is still to be brought.
    next: Opening,
    in_flight: VecDeque<InFlight>,
}

// === impl Batch ===

impl Batch {
    /// Begins with nothing, received now.
    pub(crate) fn new(received: Instant) -> Self {
        Self {
            entries: Vec::new(),
            letters: Vec::new(),
            lives: Vec::new(),
            traces: BatchTraces::default(),
            shares: Vec::new(),
            bytes: 0,
            cursor: None,
            event_time: None,
            usual_time: None,
            received,
        }
    }

    /// Tells how old its events are, whatever single ones say.
    pub(crate) fn set_usual_time(&mut self, time: Option<Timestamp>) {
        self.usual_time = time;
    }

    /// Adds an entry, and its trace if it has one.
    pub(crate) fn entry(&mut self, kind: EventKind, data: Bytes, seq: u64, trace: Option<EventTrace>) {
        self.bytes += data.len() + OVERHEAD;
        if let Some(trace) = trace {
            self.traces.push(self.entries.len(), trace);
        }
        self.entries.push((kind, data, seq));
    }

    /// Adds a frame set aside.
    pub(crate) fn letter(&mut self, letter: Letter) {
        self.bytes += letter.frame.len() * 4 / 3 + OVERHEAD;
        self.letters.push(letter);
    }

    /// Adds what the live streams show of an entry.
    pub(crate) fn live(&mut self, event: Broadcast) {
        self.lives.push(event);
    }

    /// Moves the cursor with this batch.
    pub(crate) fn advance(&mut self, cursor: u64, event_time: Option<Timestamp>) {
        self.cursor = Some(cursor);
        self.event_time = event_time;
    }

    /// Keeps the buffer's bytes taken until the batch is written.
    pub(crate) fn keep(&mut self, share: &Arc<OwnedSemaphorePermit>) {
        if self.shares.last().is_none_or(|last| !Arc::ptr_eq(last, share)) {
            self.shares.push(Arc::clone(share));
        }
    }

    /// Says whether there is anything to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.cursor.is_none() && self.letters.is_empty()
    }

    /// Says whether it is to be sent without waiting for more.
    pub(crate) fn is_full(&self, events: usize, bytes: usize) -> bool {
        self.entries.len() + self.letters.len() >= events || self.bytes >= bytes
    }
}

// === impl Opening ===

impl Opening {
    /// Says what the next batch brings, as the script takes it; what it does not bring, a later one will.
    fn bring(&mut self, moves_cursor: bool, has_entries: bool) -> [String; 7] {
        let (mut field, mut head) = (String::new(), String::new());
        if let Some((host, left)) = &self.left
            && let Ok(json) = serde_json::to_string(left)
        {
            (field, head) = (state::standby(host), json);
        }
        let source = self.source.clone().unwrap_or_default();
        let floor = self.floor.filter(|_| has_entries).map(|floor| floor.to_string()).unwrap_or_default();
        if has_entries {
            (self.source, self.left, self.floor) = (None, None, None);
        }
        let expected = self.incarnation.clone();
        let new_incarnation = if moves_cursor { self.new_incarnation.take() } else { None }.unwrap_or_default();
        if !new_incarnation.is_empty() {
            self.incarnation.clone_from(&new_incarnation);
        }
        let look = if self.shared { String::new() } else { LOOK.to_string() };
        [source, field, head, expected, new_incarnation, floor, look]
    }
}

// === impl Publisher ===

impl Publisher {
    /// Begins at the position that an opening tells.
    pub(crate) fn new(client: Client, lease: Lease, keys: &Keys, next: Opening) -> Self {
        let names = [
            lease.key().to_owned(),
            keys.cursor().to_owned(),
            keys.stream().to_owned(),
            keys.ingest_source(),
            keys.ingest_state(),
            keys.dead_letters(),
            keys.incarnation(),
        ];
        let consumer = format!("ingest-{}", lease.token().get(..8).unwrap_or_default());
        let in_flight = VecDeque::new();
        Self { client, lease, script: Str::from(scripts::publish()), keys: names, consumer, next, in_flight }
    }

    /// Returns how many batches are on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns how long the oldest batch has been on its way.
    pub(crate) fn oldest(&self) -> Duration {
        self.in_flight.front().map(|oldest| oldest.published.sent.elapsed()).unwrap_or_default()
    }

    /// Sends a batch behind those on their way.
    pub(crate) async fn send(&mut self, batch: Batch) {
        let Batch { entries, letters, lives, mut traces, shares, cursor, event_time, usual_time, received, .. } = batch;
        let sent = Instant::now();
        let parents = traces.send(self.stream(), entries.len(), sent);
        let new = cursor.map(|cursor| cursor.to_string()).unwrap_or_default();
        let mut args: Vec<Value> = Vec::with_capacity(14 + entries.len() * 3 + letters.len() * 4 + parents.len() * 2);
        args.extend([
            self.lease.token().into(),
            self.lease.millis().to_string().into(),
            self.next.fence.as_str().into(),
            new.as_str().into(),
            event_time.map(|time| time.to_string()).unwrap_or_default().into(),
        ]);
        args.extend(self.next.bring(!new.is_empty(), !entries.is_empty()).map(Value::from));
        args.extend([entries.len().to_string().into(), letters.len().to_string().into()]);
        let trace = traces.first();
        let published = Published { entries: entries.len(), cursor, usual_time, last_id: None, sent, received, trace };
        for (kind, data, seq) in entries {
            args.push(Value::String(Str::from_static(kind.as_str())));
            args.push(Value::Bytes(data));
            args.push(seq.to_string().into());
        }
        for letter in letters {
            args.push(BASE64.encode(&letter.frame).into());
            args.push(letter.seq.map(|seq| seq.to_string()).unwrap_or_default().into());
            args.push(letter.error.into());
            args.push(self.consumer.as_str().into());
        }
        for (place, parent) in parents {
            args.extend([(place + 1).to_string().into(), parent.into()]);
        }
        let client = self.client.clone();
        let (script, keys) = (self.script.clone(), self.keys.to_vec());
        let mut answer: Answer = Box::pin(async move { client.eval(script, keys, args).await });
        // The first poll hands the command to the connection: what is polled first is sent first.
        let answer = match futures_util::poll!(&mut answer) {
            std::task::Poll::Ready(done) => Box::pin(std::future::ready(done)),
            std::task::Poll::Pending => answer,
        };
        let fence = &mut self.next.fence;
        let expected = if new.is_empty() { fence.clone() } else { std::mem::replace(fence, new) };
        self.in_flight.push_back(InFlight { answer, expected, published, lives, traces, _shares: shares });
    }

    /// Waits for the oldest batch on its way; for ever where there is none. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<(Published, Vec<Broadcast>), PublishError> {
        let Some(oldest) = self.in_flight.front_mut() else {
            return std::future::pending().await;
        };
        let answer = oldest.answer.as_mut().await;
        let Some(done) = self.in_flight.pop_front() else {
            return std::future::pending().await;
        };
        let InFlight { expected, published, lives, traces, .. } = done;
        let last_id = answer.map_err(PublishError::Redis).and_then(|answer| read_answer(answer, expected));
        let result = last_id.as_ref().map(drop);
        traces.end(self.stream(), published.entries, published.sent, result);
        Ok((Published { last_id: last_id?, ..published }, lives))
    }

    fn stream(&self) -> &str {
        let [_, _, stream, ..] = &self.keys;
        stream
    }

    /// Waits until nothing is on its way; answers no longer matter, the position is read anew.
    pub(crate) async fn settle(&mut self) {
        while !self.in_flight.is_empty() {
            let _ = self.next().await;
        }
    }
}

/// Reads what the script answered: the ID of the last entry, or why the batch was not written.
fn read_answer(answer: Vec<String>, expected: String) -> Result<Option<StreamId>, PublishError> {
    let second = |answer: Vec<String>| answer.into_iter().nth(1).unwrap_or_default();
    match answer.first().map(String::as_str) {
        Some("ok") => Ok(answer.get(1).and_then(|id| id.parse().ok())),
        Some("lease") => Err(PublishError::Lease),
        Some("foreign") => Err(PublishError::Entry { id: second(answer) }),
        Some("behind") => Err(PublishError::Behind),
        Some("cursor") => Err(PublishError::Cursor { found: second(answer), expected }),
        Some("incarnation") => Err(PublishError::Incarnation { found: second(answer) }),
        _ => Err(PublishError::Answer(answer)),
    }
}
