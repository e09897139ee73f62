//! Sends batches to the stream, pipelined, each fenced by the one before.

use std::collections::{HashMap, VecDeque};
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
use penstock_core::data::EventKind;
use penstock_core::dead_letter::Author;
use penstock_core::live::{Broadcast, Head, state};
use penstock_core::settings::Settings;
use penstock_core::stream::StreamId;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::events::Published;
use crate::incidents::Incidents;
use crate::scripts;
use crate::stream::batch::{Batch, BatchEntry, Proven};
use crate::stream::bulk::{Blocker, Bulk};
use crate::stream::error::PublishError;
use crate::stream::lease::Lease;

use crate::stream::traces::BatchTraces;

/// What the first batches of a connection must find, and what they bring besides their events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening {
    /// The cursor's text; empty where there is none.
    pub(crate) fence: String,
    /// The incarnation that must be found; empty where it is not checked.
    pub(crate) incarnation: String,
    /// The incarnation to set with the cursor.
    pub(crate) new_incarnation: Option<String>,
    /// The host to set as the cursor's source with the first entry.
    pub(crate) source: Option<String>,
    /// The host that is left for it, and the position there.
    pub(crate) left: Option<(String, Head)>,
    /// The ID below which no entry may come.
    pub(crate) floor: Option<StreamId>,
    /// Whether other programs may write to the stream too.
    pub(crate) shared: bool,
}

type ScriptAnswer = Pin<Box<dyn Future<Output = Result<Vec<String>, fred::error::Error>> + Send>>;

struct InFlight {
    answer: ScriptAnswer,
    expected: String,
    published: Published,
    lives: Vec<Broadcast>,
    traces: BatchTraces,
    _shares: Vec<Arc<OwnedSemaphorePermit>>,
}

/// Sends batches one after another, and takes their answers in order.
pub(crate) struct Publisher {
    client: Client,
    lease: Lease,
    script: Str,
    /// The script for batches with dead letters.
    letters: Str,
    keys: [String; 12],
    consumer: String,
    /// The cursor and the incarnation that the last batch sent will leave, and what the next ones still have to bring.
    next: Opening,
    /// Whether the second stream may be used.
    bulk: watch::Receiver<Bulk>,
    in_flight: VecDeque<InFlight>,
    /// Whether the last batch sent does not change the cursor, so that the next one would not notice its loss.
    is_unfenced: bool,
}

// === impl Opening ===

impl Opening {
    /// Returns what the next batch brings, as arguments of the script; the rest is left for later ones.
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
        let look = if self.shared { String::new() } else { scripts::SCAN_LIMIT.to_string() };
        [source, field, head, expected, new_incarnation, floor, look]
    }
}

// === impl Publisher ===

impl Publisher {
    /// Starts at the position of an opening.
    pub(crate) fn new(
        client: Client,
        lease: Lease,
        settings: &Settings,
        next: Opening,
        bulk: watch::Receiver<Bulk>,
    ) -> Self {
        let keys = &settings.keys;
        let [index, shares, held] = keys.beside_letters(Author::Ingest);
        let names = [
            lease.key().to_owned(),
            keys.cursor().to_owned(),
            keys.stream().to_owned(),
            keys.ingest_source(),
            keys.ingest_state(),
            keys.raw_letters(),
            keys.incarnation(),
            keys.bulk().to_owned(),
            index,
            shares,
            held,
            keys.desynchronized(),
        ];
        let consumer = format!("ingest-{}", lease.token().get(..8).unwrap_or_default());
        let in_flight = VecDeque::new();
        let letters = Str::from(scripts::without_comments(&scripts::publish_letters(settings)));
        Self {
            client,
            lease,
            script: Str::from(scripts::without_comments(scripts::PUBLISH)),
            letters,
            keys: names,
            consumer,
            next,
            bulk,
            in_flight,
            is_unfenced: false,
        }
    }

    /// Returns the number of unanswered batches.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns whether one more may be sent, given how many may be unanswered.
    pub(crate) fn may_send(&self, most: usize) -> bool {
        self.in_flight.is_empty() || self.in_flight.len() < most && !self.is_unfenced
    }

    /// Returns how long the oldest unanswered batch has been waiting.
    pub(crate) fn oldest(&self) -> Duration {
        self.in_flight.front().map(|oldest| oldest.published.sent.elapsed()).unwrap_or_default()
    }

    /// Sends a batch after those already sent.
    pub(crate) async fn send(&mut self, batch: Batch) {
        let beside = beside(&batch);
        let desynchronized = batch.list_desynchronized();
        let Batch {
            entries, above, letters, lives, mut traces, shares, cursor, usual_time, incidents, received, ..
        } = batch;
        let sent = Instant::now();
        let parents = traces.send(self.stream(), entries.len(), sent);
        let new = cursor.map(|cursor| cursor.to_string()).unwrap_or_default();
        let mut args: Vec<Value> = Vec::with_capacity(24 + entries.len() * 3 + letters.len() * 7 + parents.len() * 2);
        args.extend([
            self.lease.token().into(),
            self.lease.millis().to_string().into(),
            self.next.fence.as_str().into(),
            new.as_str().into(),
            beside.into(),
        ]);
        args.extend(self.next.bring(!new.is_empty(), !entries.is_empty()).map(Value::from));
        args.extend([incidents.gaps, incidents.resets, incidents.losses].map(|count| Value::from(count.to_string())));
        args.extend([entries.len().to_string().into(), letters.len().to_string().into(), desynchronized.into()]);
        let trace = traces.first();
        let (known, marks, closed) = self.divert(&above, entries.len());
        let published = Published {
            entries: entries.len(),
            aside: 0,
            closed,
            cursor,
            usual_time,
            incidents,
            letters: 0,
            last_id: None,
            sent,
            received,
            trace,
        };
        push_entries(&mut args, entries);
        let script = if letters.is_empty() { self.script.clone() } else { self.letters.clone() };
        for letter in letters {
            args.push(BASE64.encode(&letter.frame).into());
            args.push(letter.seq.map(|seq| seq.to_string()).unwrap_or_default().into());
            args.push(letter.error.into());
            args.push(self.consumer.as_str().into());
            args.push(letter.did.as_deref().unwrap_or_default().into());
            args.push(format!("{:016x}", letter.id).into());
            args.push(if letter.is_loss { "1" } else { "0" }.into());
        }
        for (place, parent) in parents {
            args.extend([(place + 1).to_string().into(), parent.into()]);
        }
        args.extend([known.into(), marks.into()]);
        let client = self.client.clone();
        let keys = self.keys.to_vec();
        let mut answer: ScriptAnswer = Box::pin(async move { client.eval(script, keys, args).await });
        // The first poll passes the command to the connection, so commands are sent in the order of their first poll.
        let answer = match futures_util::poll!(&mut answer) {
            std::task::Poll::Ready(done) => Box::pin(std::future::ready(done)),
            std::task::Poll::Pending => answer,
        };
        self.is_unfenced = !moves_on(&self.next.fence, cursor);
        let fence = &mut self.next.fence;
        let expected = if new.is_empty() { fence.clone() } else { std::mem::replace(fence, new) };
        self.in_flight.push_back(InFlight { answer, expected, published, lives, traces, _shares: shares });
    }

    /// Waits for the answer to the oldest batch; forever where there is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<(Published, Vec<Broadcast>), PublishError> {
        let Some(oldest) = self.in_flight.front_mut() else {
            return std::future::pending().await;
        };
        let answer = oldest.answer.as_mut().await;
        let Some(done) = self.in_flight.pop_front() else {
            return std::future::pending().await;
        };
        let InFlight { expected, published, lives, traces, .. } = done;
        let written = answer.map_err(PublishError::Redis).and_then(|answer| read_answer(answer, expected));
        let result = written.as_ref().map(drop);
        traces.end(self.stream(), published.entries, published.sent, result);
        let Accepted { last_id, aside, letters, losses } = written?;
        let incidents = Incidents { losses: published.incidents.losses + losses, ..published.incidents };
        Ok((Published { last_id, aside, letters, incidents, ..published }, lives))
    }

    /// Returns which entries go to the second stream, as arguments of the script: the groups that allow it, and a mark for
    /// each entry; or why none does.
    fn divert(&self, above: &[usize], entries: usize) -> (String, String, Option<Blocker>) {
        if above.is_empty() {
            return (String::new(), String::new(), None);
        }
        match &*self.bulk.borrow() {
            Bulk::Closed(why) => (String::new(), String::new(), Some(why.clone())),
            Bulk::Open(groups) => {
                let mut marks = vec![b'-'; entries];
                for place in above {
                    if let Some(mark) = marks.get_mut(*place) {
                        *mark = b'b';
                    }
                }
                let known = serde_json::to_string(groups).unwrap_or_default();
                (known, String::from_utf8(marks).unwrap_or_default(), None)
            }
        }
    }

    fn stream(&self) -> &str {
        let [_, _, stream, ..] = &self.keys;
        stream
    }

    /// Waits for all answers, and ignores them: the position is read again.
    pub(crate) async fn settle(&mut self) {
        while !self.in_flight.is_empty() {
            let _ = self.next().await;
        }
    }
}

/// Appends what the script takes of the entries.
fn push_entries(args: &mut Vec<Value>, entries: Vec<BatchEntry>) {
    let is_plain = entries.iter().all(|entry| entry.kind == EventKind::Commit);
    let letters = entries.iter().filter_map(|entry| entry.kind.as_str().chars().next());
    let kinds = if is_plain { String::new() } else { letters.collect() };
    let is_chained = entries.iter().any(|entry| entry.proven != Proven::default());
    args.extend([kinds, if is_chained { "1".to_owned() } else { String::new() }].map(Value::from));
    // The short texts of all entries share one buffer.
    let mut texts = Vec::with_capacity(entries.len() * if is_chained { 28 } else { 12 });
    let mut ends = Vec::with_capacity(entries.len() * 2);
    for BatchEntry { seq, proven, .. } in &entries {
        texts.extend_from_slice(itoa::Buffer::new().format(*seq).as_bytes());
        ends.push(texts.len());
        if is_chained {
            proven.write(&mut texts);
            ends.push(texts.len());
        }
    }
    let texts = Bytes::from(texts);
    let mut begin = 0;
    let mut texts = ends.into_iter().map(|end| Value::Bytes(texts.slice(std::mem::replace(&mut begin, end)..end)));
    for BatchEntry { data, .. } in entries {
        args.push(Value::Bytes(data));
        args.extend(texts.by_ref().take(if is_chained { 2 } else { 1 }));
    }
}

/// Serializes what is stored beside the cursor.
fn beside(batch: &Batch) -> String {
    let time = batch.event_time.map(|time| (state::EVENT_TIME, time.to_string()));
    let written = Some((state::WRITTEN, batch.written.clone())).filter(|(_, kept)| !kept.is_empty());
    let filter = batch.filter.clone().map(|filter| (state::FILTER, filter));
    let owed = batch.owed.clone().map(|owed| (state::OWED, owed));
    let fields: HashMap<_, _> = time.into_iter().chain(written).chain(filter).chain(owed).collect();
    serde_json::to_string(&fields).unwrap_or_else(|_| "{}".to_owned())
}

/// Returns whether a cursor is ahead of the fence.
fn moves_on(fence: &str, cursor: Option<u64>) -> bool {
    cursor.is_some_and(|cursor| fence.parse::<u64>().is_ok_and(|fence| cursor > fence) || fence.is_empty())
}

/// What the script wrote.
struct Accepted {
    /// The ID of the last entry.
    last_id: Option<StreamId>,
    /// How many entries went to the second stream.
    aside: usize,
    /// How many letters were new.
    letters: u64,
    /// How many of those are losses.
    losses: u32,
}

/// Parses the script's reply: what it wrote, or why it did not.
fn read_answer(answer: Vec<String>, expected: String) -> Result<Accepted, PublishError> {
    let second = |answer: Vec<String>| answer.into_iter().nth(1).unwrap_or_default();
    let number = |at: usize| answer.get(at).and_then(|text| text.parse().ok()).unwrap_or_default();
    match answer.first().map(String::as_str) {
        Some("ok") => Ok(Accepted {
            last_id: answer.get(1).and_then(|id| id.parse().ok()),
            aside: number(2) as usize,
            letters: u64::from(number(3)),
            losses: number(4),
        }),
        Some("lease") => Err(PublishError::Lease),
        Some("foreign") => Err(PublishError::Entry { id: second(answer) }),
        Some("behind") => Err(PublishError::Behind),
        Some("cursor") => Err(PublishError::Cursor { found: second(answer), expected }),
        Some("incarnation") => Err(PublishError::Incarnation { found: second(answer) }),
        _ => Err(PublishError::Answer(answer)),
    }
}
