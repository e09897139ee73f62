//! In: a relay, the position to resume from, and the requests to stop, to pause or to reconnect.
//! Out: how the connection ended, once the last batch was answered.
//! `follow` runs one after another: relay → intake → stream.

pub(crate) mod outcome;
mod silence;
mod state;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use jiff::Timestamp;
use penstock_core::causes::chain;
use penstock_core::filter::Rules;
use penstock_core::live::Broadcast;
use penstock_core::servers::is_unanswered;
use penstock_core::settings::{RelayUrl, Settings};
use penstock_core::stream::StreamId;
use penstock_telemetry::admin::CheckHandle;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::intake::verify::Verify;
use crate::intake::{Intake, Memory, Stop};
use crate::relay::decode::Decoded;
use crate::relay::signatures::Turns;
use crate::relay::socket::{self, End, Reader};
use crate::relay::transport::Skimming;
use crate::resume::checkpoint::{Database, Standing};
use crate::resume::position::{Begin, Position};
use crate::resume::takeover::{Observation, Settled};
use crate::resume::unsettled;
use crate::session::outcome::{DRAIN, Outcome, ended, refused, stopped, undecoded};
use crate::session::silence::{Silence, Spare};
use crate::session::state::{Event, State, Step};
use crate::stream::batch::Batch;
use crate::stream::bulk::Bulk;
use crate::stream::lease::Lease;
use crate::stream::live::{Connection, Sampler};
use crate::stream::pressure::Hold;
use crate::stream::publish::{Opening, Publisher};
use crate::watchdog::{BEAT, Watchdog};

/// How many chunks may be decoding at once.
const CHUNKS: usize = 64;

/// How long outstanding answers may take once a connection has ended.
const SETTLE: Duration = Duration::from_secs(2);

/// What lives as long as the process.
#[derive(Debug)]
pub(crate) struct ProcessState {
    /// The workers' database, if one is configured.
    pub(crate) database: Option<Database>,
    /// The greatest ID that this process gave an entry.
    pub(crate) greatest: Option<StreamId>,
}

// === impl Kept ===

impl ProcessState {
    /// Returns the ID below which no entry may come, as far as this process and the database know.
    fn floor(&self) -> Option<StreamId> {
        self.greatest.max(self.database.as_ref().and_then(Database::reserved))
    }
}

/// What every connection needs; lives as long as the lease.
pub(crate) struct Session<'a> {
    /// What outlives the lease.
    pub(crate) process: &'a mut ProcessState,
    /// Watches that reading makes progress.
    pub(crate) watchdog: Watchdog,
    /// Fails while the checkpoint is needed and cannot be read.
    pub(crate) checkpoint: CheckHandle,
    /// All settings.
    pub(crate) settings: Arc<Settings>,
    /// The connection for commands.
    pub(crate) client: Client,
    /// Tells the trimmer what to keep.
    pub(crate) hold: watch::Sender<Hold>,
    /// The lease that fences every batch.
    pub(crate) lease: Lease,
    /// Logs and counts.
    pub(crate) events: Events,
    /// Fails while Redis cannot be used.
    pub(crate) redis: CheckHandle,
    /// Whether reading is paused.
    pub(crate) paused: watch::Receiver<bool>,
    /// Publishes the state of the connection.
    pub(crate) connection: watch::Sender<Connection>,
    /// Takes the live events.
    pub(crate) lives: mpsc::Sender<Vec<Broadcast>>,
    /// Wakes when a new connection is requested.
    pub(crate) reconnect: Arc<Notify>,
    /// Whether the second stream may be used.
    pub(crate) bulk: watch::Receiver<Bulk>,
    /// What of the events is carried.
    pub(crate) rules: watch::Receiver<Arc<Rules>>,
    /// What is known across connections.
    pub(crate) memory: Memory,
    /// Chooses which live events are published.
    pub(crate) sampler: Sampler,
    /// The connection that replaces the last one.
    pub(crate) spare: Option<Spare>,
}

/// An open connection.
struct Open {
    reader: JoinHandle<End>,
    queue: mpsc::Receiver<JoinHandle<Decoded>>,
    stop_reading: CancellationToken,
    /// Wakes whenever the host has sent nothing for the timeout.
    quiet: Arc<Notify>,
    publisher: Publisher,
    /// The frame to skip because it never arrives complete.
    never_whole: Option<(u64, Bytes)>,
}

// === impl Session ===

impl Session<'_> {
    /// Reads the position, judges whether Redis can be trusted, and stores what the entries tell before any can be trimmed.
    ///
    /// Where another program wrote among our entries, takes over from it only if `may_take_over`.
    pub(crate) async fn position(&mut self, may_take_over: bool) -> Result<Position, Outcome> {
        let settings = Arc::clone(&self.settings);
        let keys = &settings.keys;
        let mut observed = self.observe("").await?;
        let foreign = observed.foreign.clone().filter(|_| !may_take_over && !settings.ingest.shared_stream);
        if let Some(id) = foreign {
            return Err(Outcome::Crowded { id });
        }
        if let Some(database) = &mut self.process.database {
            let is_there = observed.position.cursor.is_some() && observed.position.has_stream;
            let standing = Box::pin(database.judge(&observed.position.incarnation, is_there)).await;
            observed.position.standing = standing.map_err(|error| Outcome::Database { detail: chain(&error) })?;
        }
        if !settings.ingest.shared_stream {
            let home = settings.relay.urls.first().map(RelayUrl::host).unwrap_or_default();
            match observed.settle(&self.client, keys, &self.lease, &home).await.map_err(|error| in_doubt(&error))? {
                Settled::ProcessState => {}
                Settled::Lease => return Err(Outcome::LeaseLost),
                Settled::Joined(id) => return Err(Outcome::Crowded { id }),
                Settled::Moved => {
                    let detail = "the cursor changed while the position was read".to_owned();
                    return Err(Outcome::Redis { reason: "position", detail, is_answered: true });
                }
            }
            if observed.position.cursor.is_none()
                && !observed.position.standing.has_checkpoints()
                && let Some(database) = &self.process.database
            {
                let kept = Box::pin(database.appview_cursor()).await;
                if let Some(kept) = kept.map_err(|error| Outcome::Database { detail: chain(&error) })? {
                    observed.begin_before(kept);
                }
            }
        }
        self.checkpoint.ok();
        self.hold.send_replace(Hold::Nothing);
        Ok(observed.position)
    }

    /// Observes the position, and what stands behind an ID: by default behind our newest entry.
    pub(crate) async fn observe(&mut self, from: &str) -> Result<Observation, Outcome> {
        let observed =
            Observation::read(&self.client, &self.settings.keys, from).await.map_err(|error| in_doubt(&error))?;
        self.redis.ok();
        Ok(observed)
    }

    /// Reads one connection until something ends it. The next one finds in Redis whatever it wrote.
    pub(crate) async fn run(&mut self, relay: &RelayUrl, position: Position, cancel: &CancellationToken) -> Outcome {
        let host = relay.host();
        let now = Timestamp::now();
        let reset = self.memory.resets.begin(&host);
        let begin = match reset {
            Some(reset) => position.begin_after_reset(&host, reset, now),
            None => position.begin(&host, self.settings.relay.start, now),
        };
        let is_lost = position.standing.is_lost();
        self.events.resumed(
            if is_lost { begin.seam.cursor() } else { position.cursor },
            position.event_time.filter(|_| !is_lost),
        );
        self.memory.read(&host, self.settings.relay.data_timeout);
        if let Err(error) = self.prepare_states(is_lost).await {
            return in_doubt(&error);
        }
        let mut begin = begin;
        let skimming = self.memory.skimming(begin.seam.cursor());
        let never_whole = self.memory.never_whole(begin.seam.cursor());
        if let Some((seq, _)) = &never_whole {
            begin = begin.behind(*seq);
        }
        let spare = self.spare.take().filter(|spare| spare.is_for(relay, begin.ask) && skimming == Skimming::No);
        let connect = async {
            match spare {
                Some(spare) => Ok(spare.socket),
                None => socket::connect(relay, begin.ask, skimming, &self.settings.relay).await,
            }
        };
        let connecting = tokio::select! {
            biased;
            () = cancel.cancelled() => return Outcome::Shutdown,
            connecting = self.watchdog.during(connect) => connecting,
        };
        let socket = match connecting {
            Ok(socket) => socket,
            Err(error) => {
                let healthy = Duration::ZERO;
                return Outcome::Relay { reason: error.reason(), detail: error.cause(), healthy };
            }
        };
        self.memory.filtered.resume(position.filter.as_ref(), position.owed.as_deref(), position.cursor.is_some());
        self.events.connected(&host, begin.ask, begin.why);
        self.connection.send_replace(Connection { connected: true, url: relay.to_string() });
        let opening = self.opening(&host, &begin, position);
        let publisher =
            Publisher::new(self.client.clone(), self.lease.clone(), &self.settings, opening, self.bulk.clone());
        let (queue_in, queue) = mpsc::channel(CHUNKS);
        let stop_reading = CancellationToken::new();
        let quiet = Arc::new(Notify::new());
        let budget_bytes = self.settings.ingest.buffer_bytes;
        let reader = Reader {
            socket,
            queue: queue_in,
            budget: Arc::new(Semaphore::new(budget_bytes)),
            budget_bytes,
            decoder: Arc::new(self.memory.verify.as_ref().map(Verify::decoder).unwrap_or_default()),
            rules: self.rules.clone(),
            turns: Turns::default(),
            states: self.memory.verify.as_ref().map(|verify| verify.states.clone()),
            events: self.events.clone(),
            data_timeout: self.settings.relay.data_timeout,
            ping_interval: self.settings.relay.ping_interval,
            cancel: stop_reading.clone(),
            quiet: Arc::clone(&quiet),
            messages: 0,
            heard: Instant::now(),
        };
        let open = Open { reader: tokio::spawn(reader.run()), queue, stop_reading, quiet, publisher, never_whole };
        let outcome = self.read(relay, begin, open, cancel).await;
        if let Outcome::Reset(reset) = outcome {
            self.memory.resets.begin_with(&host, reset);
        }
        self.events.disconnected();
        self.connection.send_replace(Connection { connected: false, url: relay.to_string() });
        outcome
    }

    /// Reads the states of repos with entries that the workers have not settled, as far as it is in doubt what was written.
    async fn prepare_states(&self, is_lost: bool) -> Result<(), fred::error::Error> {
        let Some(verify) = &self.memory.verify else { return Ok(()) };
        verify.states.lock().set_leaves_out(self.rules.borrow().has_collections());
        if is_lost {
            verify.states.lock().clear();
        } else {
            verify.states.lock().drop_in_flight();
        }
        let reading = unsettled::read(&self.client, &self.settings.keys, verify.states.shared());
        self.watchdog.during(reading).await
    }

    /// Returns what the first batches must find, and what they bring.
    fn opening(&self, host: &str, begin: &Begin, position: Position) -> Opening {
        let left = if begin.set_source { position.left(host, Timestamp::now()) } else { None };
        let (incarnation, new_incarnation) = match position.standing {
            Standing::Whole(incarnation) => (incarnation, None),
            Standing::Lost { incarnation, .. } => (String::new(), incarnation),
        };
        Opening {
            fence: position.fence,
            incarnation,
            new_incarnation,
            source: begin.set_source.then(|| host.to_owned()),
            left,
            floor: self.process.floor().max(begin.floor),
            shared: self.settings.ingest.shared_stream,
        }
    }

    async fn read(&mut self, relay: &RelayUrl, begin: Begin, mut open: Open, cancel: &CancellationToken) -> Outcome {
        let settings = Arc::clone(&self.settings);
        let ingest = &settings.ingest;
        let host = relay.host();
        let mut silence = Silence::new(relay, begin.ask, &settings.relay);
        let carried = self.memory.take_incidents();
        let mut intake = Intake {
            host: &host,
            seam: begin.seam,
            incidents: carried,
            carried,
            memory: &mut self.memory,
            sampler: &mut self.sampler,
            events: &self.events,
            batch: None,
            watching: false,
            decoding: None,
            taken: 0,
            passed_over: 0,
        };
        if let Some((seq, beginning)) = open.never_whole.take() {
            intake.pass_never_whole(seq, beginning);
        }
        let mut first_data: Option<Instant> = None;
        let mut decoding = None;
        let mut send_at = Instant::now();
        let mut state = State::Reading;
        let mut tick = interval(BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            if open.publisher.oldest() < self.watchdog.limit() {
                self.watchdog.beat();
            }
            if state.takes_in() {
                self.events.servers().relay.answered();
            }
            let may_send = open.publisher.may_send(ingest.batches_in_flight);
            let full =
                intake.batch.as_ref().is_some_and(|batch| batch.is_full(ingest.batch_events, ingest.batch_bytes));
            let waiting = intake.batch.as_ref().is_some_and(|batch| !batch.is_empty());
            // Few events and nobody to wait for: the first of them is not held up for what may follow. Those that come meanwhile go together.
            let is_calm = open.publisher.in_flight() == 0 && intake.batch.as_ref().is_some_and(Batch::is_small);
            if may_send && waiting && (full || is_calm || !state.takes_in() || Instant::now() >= send_at) {
                if let Some(batch) = intake.take_batch() {
                    open.publisher.send(batch).await;
                }
                continue;
            }
            let is_written = !waiting && open.publisher.in_flight() == 0;
            let event = tokio::select! {
                biased;
                () = ready(()), if is_written && !state.takes_in() => Event::Written,
                answer = open.publisher.next() => match answer {
                    Ok((published, lives)) => {
                        self.events.published(&published);
                        if let Some(verify) = &intake.memory.verify {
                            verify.states.lock().written(published.last_id);
                        }
                        self.process.greatest = self.process.greatest.max(published.last_id);
                        if published.cursor.is_some() {
                            intake.memory.resets.begun(&host);
                        }
                        if !lives.is_empty() {
                            // Live streams drop events rather than hold up the real one.
                            let _ = self.lives.try_send(lives);
                        }
                        continue;
                    }
                    Err(error) => Event::Refused(refused(error)),
                },
                () = cancel.cancelled(), if state.may_be_asked() => Event::Shutdown { deadline: Instant::now() + DRAIN },
                () = sleep_until(state.deadline().unwrap_or_else(Instant::now)), if state.deadline().is_some() => {
                    Event::Deadline
                }
                () = until(&mut self.paused, true), if state.may_be_asked() => Event::End(Outcome::Paused),
                () = self.reconnect.notified(), if state.may_be_asked() => Event::End(Outcome::Reconnect),
                () = sleep_until(send_at), if waiting && may_send => continue,
                _ = tick.tick() => continue,
                decoded = next_decoded(&mut open.queue, &mut decoding), if state.takes_in() && !full => match decoded {
                    None => Event::ReaderDone,
                    Some(decoded) => match decoded {
                        Err(error) => Event::Broken(undecoded(&error)),
                        Ok(decoded) => {
                            if !decoded.items.is_empty() {
                                first_data.get_or_insert_with(Instant::now);
                                silence.broken();
                            }
                            if !waiting {
                                send_at = Instant::now() + ingest.batch_delay;
                            }
                            if let Some(verify) = &intake.memory.verify {
                                verify.states.complete(&decoded.items).await;
                            }
                            match take_all(&mut intake, decoded) {
                                Ok(()) => continue,
                                Err(stop) => Event::Broken(stopped(stop, first_data)),
                            }
                        }
                    },
                },
                () = open.quiet.notified(), if state.may_be_asked() => {
                    let healthy = first_data.map(|first| first.elapsed()).unwrap_or_default();
                    match silence.judge(&mut intake, healthy) {
                        Some(outcome) => Event::End(outcome),
                        None => continue,
                    }
                }
                answer = silence.answer(), if state.may_be_asked() => {
                    // A frame that has just arrived shows that this connection is alive.
                    match answer.filter(|_| open.queue.is_empty()) {
                        Some(spare) => {
                            self.spare = Some(spare);
                            Event::End(Outcome::Renewed)
                        }
                        None => continue,
                    }
                }
            };
            state = match state.on(event) {
                Step::Continue(state) => state,
                Step::StopReader(state) => {
                    open.stop_reading.cancel();
                    state
                }
                Step::AskReader => break ended(&mut open.reader, &mut intake, first_data).await,
                Step::Finish(outcome) => break outcome,
            };
        };
        // After any other end the same events arrive, and are counted, again. What earlier connections left is not.
        if matches!(outcome, Outcome::Reset(_)) {
            let incidents = intake.incidents;
            intake.memory.leave(incidents);
        } else {
            let carried = intake.carried;
            intake.memory.leave(carried);
        }
        open.stop_reading.cancel();
        drop(open.queue);
        // Late answers change nothing: the fence decides, and the position is read again.
        let _ = timeout(SETTLE, open.publisher.settle()).await;
        match outcome {
            Outcome::Relay { .. } if cancel.is_cancelled() => Outcome::Shutdown,
            outcome => outcome,
        }
    }

    /// Returns whether a position has been stored under this lease.
    pub(crate) fn is_settled(&self) -> bool {
        *self.hold.borrow() == Hold::Nothing
    }

    /// Returns whether reading is paused.
    pub(crate) fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// Waits until reading is not paused.
    pub(crate) async fn unpaused(&mut self) {
        until(&mut self.paused, false).await;
    }
}

fn in_doubt(error: &fred::error::Error) -> Outcome {
    Outcome::Redis { reason: "position", detail: error.to_string(), is_answered: !is_unanswered(error) }
}

/// Waits for the next chunk, and until it is decoded. Cancel-safe: one that is waited for stays in `decoding`.
async fn next_decoded(
    queue: &mut mpsc::Receiver<JoinHandle<Decoded>>,
    decoding: &mut Option<JoinHandle<Decoded>>,
) -> Option<Result<Decoded, JoinError>> {
    let next = match decoding {
        Some(next) => next,
        None => decoding.insert(queue.recv().await?),
    };
    let decoded = next.await;
    *decoding = None;
    Some(decoded)
}

/// Takes a decoded chunk in, up to the item that stops the connection.
fn take_all(intake: &mut Intake<'_>, decoded: Decoded) -> Result<(), Stop> {
    let (before, now) = (intake.taken, Timestamp::now());
    intake.set_rules(&decoded.rules);
    if !decoded.items.is_empty() {
        intake.decoding = Some(decoded.decoding);
    }
    let mut items = decoded.items.into_iter();
    let result = items.try_for_each(|item| intake.take(item, &decoded.share, decoded.received, now));
    if let Some(verify) = &intake.memory.verify {
        verify.states.lock().chunk_is_judged();
    }
    if intake.taken > before {
        intake.memory.rhythm.record(Instant::now());
    }
    result
}

/// Waits until the switch has the wanted value; forever once its sender is gone.
async fn until(switch: &mut watch::Receiver<bool>, wanted: bool) {
    if switch.wait_for(|paused| *paused == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
