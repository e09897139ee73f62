//! One connection to a relay, from the position in Redis to the last answer.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::HashesInterface;
use jiff::Timestamp;
use penstock_core::live::{Broadcast, state};
use penstock_core::settings::{RelayUrl, Settings};
use penstock_core::stream::StreamId;
use penstock_telemetry::admin::CheckHandle;
use penstock_wire::Limits;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::checkpoint::{Database, Standing};
use crate::decode::Decoded;
use crate::events::Telemetry;
use crate::intake::{Intake, Memory, Notes, Stop};
use crate::lease::Lease;
use crate::live::{Connection, Sampler};
use crate::outcome::{Outcome, ended, refused, stopped};
use crate::position::{Begin, Position};
use crate::pressure::Hold;
use crate::publish::{Opening, Publisher};
use crate::pulse::{BEAT, Pulse};
use crate::socket::{self, End, Reader};
use crate::takeover::{Seen, Settled};

/// How many chunks may be under decoding.
const CHUNKS: usize = 64;

/// How long what was received may take to be written when ingest is to end.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// How long answers on their way may still take when a connection ends.
const SETTLE: Duration = Duration::from_secs(2);

/// What is known for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The database that the workers fill, where it is given.
    pub(crate) database: Option<Database>,
    /// The greatest ID that any entry got from us.
    pub(crate) greatest: Option<StreamId>,
}

/// What a connection is made and read with; lives as long as the lease.
pub(crate) struct Session<'a> {
    /// What outlives the lease.
    pub(crate) kept: &'a mut Kept,
    /// Shows that reading goes on.
    pub(crate) pulse: Pulse,
    /// Whether the checkpoint can be read where it is needed.
    pub(crate) checkpoint: CheckHandle,
    /// All settings.
    pub(crate) settings: Arc<Settings>,
    /// The connection for commands.
    pub(crate) client: Client,
    /// What the trimmer must leave.
    pub(crate) hold: watch::Sender<Hold>,
    /// The lease under which is written.
    pub(crate) lease: Lease,
    /// Logs and counts.
    pub(crate) telemetry: Telemetry,
    /// Whether Redis is fit.
    pub(crate) redis: CheckHandle,
    /// Whether reading is paused.
    pub(crate) paused: watch::Receiver<bool>,
    /// Where the state of the connection is told.
    pub(crate) connection: watch::Sender<Connection>,
    /// Where live events are shown.
    pub(crate) lives: mpsc::Sender<Vec<Broadcast>>,
    /// Somebody wants a new connection.
    pub(crate) reconnect: Arc<Notify>,
    /// What is known across connections.
    pub(crate) memory: Memory,
    /// Chooses the live events shown.
    pub(crate) sampler: Sampler,
}

/// The parts of an open connection.
struct Open {
    reader: JoinHandle<End>,
    queue: mpsc::Receiver<JoinHandle<Decoded>>,
    stop_reading: CancellationToken,
    publisher: Publisher,
}

// === impl Session ===

impl Session<'_> {
    /// Reads the position, judges whether Redis can be believed, and keeps what the entries tell before any of them can go.
    ///
    /// Where another program wrote among ours, its entries are gone by only if `may_take_over`.
    pub(crate) async fn position(&mut self, may_take_over: bool) -> Result<Position, Outcome> {
        let settings = Arc::clone(&self.settings);
        let keys = &settings.keys;
        let mut seen = self.look("").await?;
        let foreign = seen.foreign.clone().filter(|_| !may_take_over && !settings.ingest.shared_stream);
        if let Some(id) = foreign {
            return Err(Outcome::Crowded { id });
        }
        if let Some(database) = &mut self.kept.database {
            let is_there = seen.position.cursor.is_some() && seen.position.has_stream;
            let standing = Box::pin(database.judge(&seen.position.incarnation, is_there)).await;
            seen.position.standing = standing.map_err(|error| Outcome::Database { detail: error.line() })?;
        }
        if !settings.ingest.shared_stream {
            let home = settings.relay.urls.first().map(RelayUrl::host).unwrap_or_default();
            match seen.settle(&self.client, keys, &self.lease, &home).await.map_err(|error| in_doubt(&error))? {
                Settled::Kept => {}
                Settled::Lease => return Err(Outcome::LeaseLost),
                Settled::Joined(id) => return Err(Outcome::Crowded { id }),
                Settled::Moved => {
                    let detail = "the cursor was written while the position was read".to_owned();
                    return Err(Outcome::Redis { reason: "position", detail });
                }
            }
            if seen.position.cursor.is_none()
                && !seen.position.standing.has_checkpoints()
                && let Some(database) = &self.kept.database
            {
                let kept = Box::pin(database.appview_cursor()).await;
                if let Some(kept) = kept.map_err(|error| Outcome::Database { detail: error.line() })? {
                    seen.begin_before(kept);
                }
            }
        }
        self.checkpoint.ok();
        self.hold.send_replace(Hold::Nothing);
        Ok(seen.position)
    }

    /// Looks at the position, and at what stands behind an ID: by default behind our newest entry.
    pub(crate) async fn look(&mut self, from: &str) -> Result<Seen, Outcome> {
        let seen = Seen::read(&self.client, &self.settings.keys, from).await.map_err(|error| in_doubt(&error))?;
        self.redis.ok();
        Ok(seen)
    }

    /// Reads one connection until something ends it. Whatever it wrote, the next one finds in Redis.
    pub(crate) async fn run(
        &mut self,
        relay: &RelayUrl,
        position: Position,
        anew: bool,
        cancel: &CancellationToken,
    ) -> Outcome {
        let host = relay.host();
        let begin = if anew { Position::begin_anew() } else { position.begin(&host, self.settings.relay.start) };
        let is_lost = position.standing.is_lost();
        self.telemetry.resumed(
            if is_lost { begin.seam.cursor() } else { position.cursor },
            position.event_time.filter(|_| !is_lost),
        );
        self.memory.read(&host);
        let pass_over = self.memory.is_to_pass_over(begin.seam.cursor());
        let connecting = tokio::select! {
            biased;
            () = cancel.cancelled() => return Outcome::Asked,
            connecting = self.pulse.during(socket::connect(relay, begin.ask, pass_over, &self.settings.relay)) => connecting,
        };
        let socket = match connecting {
            Ok(socket) => socket,
            Err(error) => {
                let healthy = Duration::ZERO;
                return Outcome::Relay { reason: "connect", detail: error.to_string(), healthy };
            }
        };
        self.telemetry.connected(&host, begin.ask, begin.why);
        self.connection.send_replace(Connection { connected: true, url: relay.to_string() });
        let opening = self.opening(&host, &begin, position);
        let publisher = Publisher::new(self.client.clone(), self.lease.clone(), &self.settings.keys, opening);
        let (queue_in, queue) = mpsc::channel(CHUNKS);
        let stop_reading = CancellationToken::new();
        let budget_bytes = self.settings.ingest.buffer_bytes;
        let reader = Reader {
            socket,
            queue: queue_in,
            budget: Arc::new(Semaphore::new(budget_bytes)),
            budget_bytes,
            limits: Arc::new(Limits::default()),
            telemetry: self.telemetry.clone(),
            data_timeout: self.settings.relay.data_timeout,
            ping_interval: self.settings.relay.ping_interval,
            cancel: stop_reading.clone(),
            messages: 0,
        };
        let open = Open { reader: tokio::spawn(reader.run()), queue, stop_reading, publisher };
        let outcome = self.read(&host, begin, open, cancel).await;
        self.telemetry.disconnected();
        self.connection.send_replace(Connection { connected: false, url: relay.to_string() });
        outcome
    }

    /// Says what the first batches must find and bring.
    fn opening(&self, host: &str, begin: &Begin, position: Position) -> Opening {
        let left = if begin.set_source { position.left(host) } else { None };
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
            floor: self.kept.greatest.max(begin.floor),
            shared: self.settings.ingest.shared_stream,
        }
    }

    async fn read(&mut self, host: &str, begin: Begin, mut open: Open, cancel: &CancellationToken) -> Outcome {
        let settings = Arc::clone(&self.settings);
        let ingest = &settings.ingest;
        let mut intake = Intake {
            host,
            seam: begin.seam,
            memory: &mut self.memory,
            sampler: &mut self.sampler,
            telemetry: &self.telemetry,
            batch: None,
            notes: Notes::default(),
            watching: false,
            decoding: None,
        };
        let mut first_data: Option<Instant> = None;
        let mut send_at = Instant::now();
        let mut queue_open = true;
        // Once set, no more is taken in: what was taken is written, then this is the outcome.
        let mut ending: Option<Outcome> = None;
        let mut drain_until: Option<Instant> = None;
        let mut tick = interval(BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            if open.publisher.oldest() < self.pulse.limit() {
                self.pulse.beat();
            }
            let in_flight = open.publisher.in_flight();
            let may_send = in_flight < ingest.batches_in_flight;
            let full =
                intake.batch.as_ref().is_some_and(|batch| batch.is_full(ingest.batch_events, ingest.batch_bytes));
            let waiting = intake.batch.as_ref().is_some_and(|batch| !batch.is_empty());
            let hurry = full || ending.is_some() || !queue_open;
            if may_send && waiting && (hurry || Instant::now() >= send_at) {
                if let Some(batch) = intake.take_batch() {
                    open.publisher.send(batch).await;
                }
                continue;
            }
            if !waiting && in_flight == 0 && (ending.is_some() || !queue_open) {
                break match ending {
                    Some(outcome) => outcome,
                    None => ended(&mut open.reader, &mut intake, first_data).await,
                };
            }
            tokio::select! {
                biased;
                answer = open.publisher.next() => match answer {
                    Ok((published, lives)) => {
                        self.telemetry.published(&published);
                        self.kept.greatest = self.kept.greatest.max(published.last_id);
                        if !lives.is_empty() {
                            // A live stream that does not keep up misses events; it never holds up the real one.
                            let _ = self.lives.try_send(lives);
                        }
                    }
                    Err(error) => break refused(error),
                },
                () = cancel.cancelled(), if ending.is_none() && drain_until.is_none() => {
                    open.stop_reading.cancel();
                    drain_until = Some(Instant::now() + DRAIN);
                }
                () = sleep_until(drain_until.unwrap_or_else(Instant::now)), if drain_until.is_some() => break Outcome::Asked,
                () = until(&mut self.paused, true), if ending.is_none() && drain_until.is_none() => {
                    open.stop_reading.cancel();
                    ending = Some(Outcome::Paused);
                }
                () = self.reconnect.notified(), if ending.is_none() && drain_until.is_none() => {
                    open.stop_reading.cancel();
                    ending = Some(Outcome::Reconnect);
                }
                () = sleep_until(send_at), if waiting && may_send => {}
                _ = tick.tick() => {}
                decoding = open.queue.recv(), if queue_open && ending.is_none() && !full => {
                    let Some(decoding) = decoding else {
                        queue_open = false;
                        continue;
                    };
                    let decoded = match decoding.await {
                        Ok(decoded) => decoded,
                        Err(error) => {
                            ending = Some(Outcome::Relay {
                                reason: "decoder",
                                detail: error.to_string(),
                                healthy: Duration::ZERO,
                            });
                            open.stop_reading.cancel();
                            continue;
                        }
                    };
                    first_data.get_or_insert_with(Instant::now);
                    if !waiting {
                        send_at = Instant::now() + ingest.batch_delay;
                    }
                    if let Err(stop) = take_all(&mut intake, decoded) {
                        open.stop_reading.cancel();
                        ending = Some(stopped(stop, first_data));
                    }
                }
            }
            if intake.notes != Notes::default() {
                let notes = std::mem::take(&mut intake.notes);
                note(&self.client, &settings, notes).await;
            }
        };
        drop(intake);
        open.stop_reading.cancel();
        drop(open.queue);
        // Late answers change nothing: the fence decides, and the position is read anew.
        let _ = timeout(SETTLE, open.publisher.settle()).await;
        match outcome {
            Outcome::Relay { .. } if cancel.is_cancelled() => Outcome::Asked,
            outcome => outcome,
        }
    }

    /// Says whether a position was found and kept under this lease.
    pub(crate) fn is_settled(&self) -> bool {
        *self.hold.borrow() == Hold::Nothing
    }

    /// Says whether reading is paused.
    pub(crate) fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// Returns once reading is not paused.
    pub(crate) async fn unpaused(&mut self) {
        until(&mut self.paused, false).await;
    }
}

fn in_doubt(error: &fred::error::Error) -> Outcome {
    Outcome::Redis { reason: "position", detail: error.to_string() }
}

fn take_all(intake: &mut Intake<'_>, decoded: Decoded) -> Result<(), Stop> {
    let now = Timestamp::now();
    intake.decoding = Some(decoded.decoding);
    for item in decoded.items {
        intake.take(item, &decoded.share, decoded.received, now)?;
    }
    Ok(())
}

/// Returns when the switch stands as wanted; never, once nobody turns it any more.
async fn until(switch: &mut watch::Receiver<bool>, wanted: bool) {
    if switch.wait_for(|paused| *paused == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Counts what was seen, beside the cursor.
async fn note(client: &Client, settings: &Settings, notes: Notes) {
    for (field, count) in [(state::GAPS, notes.gaps), (state::RESETS, notes.resets), (state::DATA_LOSS, notes.losses)] {
        if count > 0
            && let Err(error) = client.hincrby::<i64, _, _>(settings.keys.ingest_state(), field, i64::from(count)).await
        {
            warn!(%error, field, "could not count beside the cursor");
        }
    }
}
