//! One client, from its request to its last byte.

use std::io;
use std::mem::take;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::cbor::{error_frame, info_frame};
use crate::directory;
use crate::edition::Chunk;
use crate::faults::{Admission, GARBAGE, Member, Order};
use crate::host::Host;
use crate::http::{self, Cursor, Route};
use crate::outbox::Outbox;
use crate::settings::BadCursor;
use crate::shared::Shared;
use crate::timeline::{Opening, open};
use crate::websocket::{self, AWAY, BINARY, CLOSE, PING, POLICY, PONG, Said, message};

/// Time a client has for its request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Time a client has to take what stands before the relay's close, and to answer it.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often a client is looked after that may have fallen behind.
const LAG_CHECK: Duration = Duration::from_millis(50);

/// Serves one connection until either side ends it or `cancel` does.
pub(crate) async fn serve(mut stream: TcpStream, shared: &Shared, cancel: &CancellationToken) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = BytesMut::with_capacity(4 << 10);
    let request = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        request = timeout(REQUEST_DEADLINE, http::read(&mut stream, &mut inbox)) => request??,
    };
    let member = loop {
        // The desk must be free again before anything is waited for.
        let admission = shared.desk().admit();
        match admission {
            Admission::Member(member) => break member,
            Admission::Refused => return answer(stream, &http::unavailable()).await,
            Admission::Frozen(until) => match cancel.run_until_cancelled(sleep_until(until)).await {
                Some(()) => {}
                None => return Ok(()),
            },
        }
    };
    if let Some(request) = &request
        && member.host.stock.directory().is_some()
        && let Some(asked) = directory::asked(request)
    {
        let host = Arc::clone(&member.host);
        let answered = spawn_blocking(move || host.ask_directory(&asked)).await.map_err(io::Error::other)?;
        return answer(stream, &answered).await;
    }
    let (cursor, upgrade) = match request.as_ref().map(http::route) {
        Some(Route::Subscribe(Cursor::Bad, _)) if member.host.settings.bad_cursor == BadCursor::Http400 => {
            return answer(stream, &http::bad_request(BAD_CURSOR)).await;
        }
        Some(Route::Subscribe(cursor, upgrade)) => (cursor, upgrade),
        Some(Route::Answer(answer_bytes)) => return answer(stream, &answer_bytes).await,
        None => return answer(stream, &http::bad_request("this is no HTTP/1.1 GET")).await,
    };
    stream.write_all(&upgrade).await?;
    Session::open(shared, member, cursor).run(stream, inbox, cancel).await
}

const BAD_CURSOR: &str = "cursor must be an integer of at least 0";

async fn answer(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await
}

struct Session<'a> {
    shared: &'a Shared,
    host: Arc<Host>,
    orders: UnboundedReceiver<Order>,
    outbox: Outbox,
    /// The first event that was not yet put into the outbox.
    position: u64,
    /// The first event of the session.
    first: u64,
    /// Whether the client has once caught up with the head.
    caught_up: bool,
    /// Until when there is no data.
    stalled: Option<Instant>,
    /// Messages that go out before the next event.
    held: Vec<u8>,
    /// The chunk after the present one, being made.
    next: Option<(u64, JoinHandle<Arc<Chunk>>)>,
    /// By when the connection ends: set once the relay has said its close.
    farewell: Option<Instant>,
    /// Whether a close of the client's came, or none is waited for.
    heard_close: bool,
}

impl<'a> Session<'a> {
    fn open(shared: &'a Shared, member: Member, cursor: Cursor) -> Self {
        let Member { host, orders, stalled } = member;
        let mut session = Self {
            shared,
            host,
            orders,
            outbox: Outbox::default(),
            position: 0,
            first: 0,
            caught_up: false,
            stalled,
            held: Vec::new(),
            next: None,
            farewell: None,
            heard_close: false,
        };
        let settings = &session.host.settings;
        let cursor = match cursor {
            Cursor::Absent => None,
            Cursor::At(cursor) => Some(cursor),
            Cursor::Bad => {
                session.refuse("InvalidRequest", BAD_CURSOR);
                return session;
            }
        };
        let (timeline, live) = (session.host.stock.timeline(), session.host.live());
        match open(timeline, live, settings.window, settings.future_cursor, cursor) {
            Opening::At(position) => session.position = position,
            Opening::Outdated(position) => {
                session.position = position;
                let info = info_frame("OutdatedCursor", "requested cursor exceeded limit, possibly missing events");
                session.held = message(BINARY, &info);
            }
            Opening::Future => session.refuse("FutureCursor", "cursor in the future"),
        }
        session.first = session.position;
        session
    }

    async fn run(mut self, mut stream: TcpStream, mut inbox: BytesMut, cancel: &CancellationToken) -> io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        let interval = self.host.settings.ping_interval;
        let mut ping = interval_at(Instant::now() + interval, interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lag = interval_at(Instant::now() + LAG_CHECK, LAG_CHECK);
        lag.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(said) = websocket::next_said(&mut inbox).map_err(|_| io::ErrorKind::InvalidData)? {
                match said {
                    Said::Ping(payload) if self.farewell.is_none() => self.say(&message(PONG, &payload)),
                    Said::Ping(_) => {}
                    Said::Close(payload) => {
                        self.heard_close = true;
                        self.close(&payload[..payload.len().min(2)]);
                    }
                }
            }
            let open = self.farewell.is_none();
            let mut due = None;
            if open && self.outbox.pending().is_empty() {
                due = self.refill().await?;
            }
            let idle = self.outbox.pending().is_empty();
            if !open && idle {
                writer.shutdown().await?;
                if self.heard_close {
                    return Ok(());
                }
            }
            let farewell = self.farewell;
            tokio::select! {
                biased;
                () = cancel.cancelled(), if open => self.close(&AWAY.to_be_bytes()),
                Some(order) = self.orders.recv(), if open => self.obey(order, cancel).await,
                read = reader.read_buf(&mut inbox) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                _ = ping.tick(), if open => self.say(&message(PING, b"")),
                _ = lag.tick(), if open && self.caught_up => self.cut_if_too_slow(),
                () = until(farewell) => return Ok(()),
                written = writer.write(self.outbox.pending()), if !idle => self.outbox.wrote(written?),
                () = until(due) => {}
            }
        }
    }

    /// Puts what has become live into the outbox; returns when more will be where there is nothing now.
    async fn refill(&mut self) -> io::Result<Option<Instant>> {
        if self.stalled.is_some_and(|until| until > Instant::now()) {
            return Ok(self.stalled);
        }
        self.stalled = None;
        if !self.held.is_empty() {
            let held = take(&mut self.held);
            self.say(&held);
            return Ok(None);
        }
        loop {
            let available = self.host.available();
            if self.position >= available {
                self.caught_up = self.host.clock.ticks();
                return Ok(self.host.due(self.position));
            }
            let chunk = match self.outbox.chunk() {
                Some(chunk) if (chunk.first..chunk.end()).contains(&self.position) => Arc::clone(chunk),
                _ => self.fetch().await?,
            };
            let run = self.host.take(self.position..chunk.end().min(available));
            self.position = run.end;
            if !run.is_empty() {
                self.outbox.load(chunk, run.start, run.end);
                self.shared.served.fetch_add(run.end - run.start, Ordering::Relaxed);
                return Ok(None);
            }
        }
    }

    /// Takes the chunk at the present position, and has the next one made meanwhile.
    async fn fetch(&mut self) -> io::Result<Arc<Chunk>> {
        let (host, stock) = (&self.host, &self.host.stock);
        let number = stock.number(self.position);
        let chunk = match (stock.ready(number), self.next.take()) {
            (Some(chunk), _) => chunk,
            (None, Some((expected, making))) if expected == number => making.await?,
            (None, _) => host.make(number).await?,
        };
        if stock.ready(number + 1).is_none() && host.settings.total.is_none_or(|total| chunk.end() < total) {
            self.next = Some((number + 1, host.make(number + 1)));
        }
        Ok(chunk)
    }

    /// Misbehaves as told.
    async fn obey(&mut self, order: Order, cancel: &CancellationToken) {
        match order {
            Order::Close => self.close(&AWAY.to_be_bytes()),
            Order::Cut => {
                self.shared.served.fetch_sub(self.outbox.tear(), Ordering::Relaxed);
                self.part();
                self.heard_close = true;
            }
            // Whoever is kept waiting is not to blame for being behind.
            Order::Stall(until) => {
                self.say(&[]);
                self.stalled = self.stalled.max(Some(until));
                self.caught_up = false;
            }
            Order::Freeze(until) => {
                cancel.run_until_cancelled(sleep_until(until)).await;
                self.caught_up = false;
            }
            Order::Garbage => {
                self.say(&[]);
                self.held.extend(message(BINARY, &GARBAGE));
            }
            Order::TooSlow => self.refuse_slow(),
            Order::Repeat(n) => {
                self.say(&[]);
                self.position = self.host.back(self.position, n).max(self.first);
                self.caught_up = false;
            }
        }
    }

    /// Says a message behind the frame being written; what follows that frame is sent again later.
    fn say(&mut self, message: &[u8]) {
        if let Some(position) = self.outbox.say(message) {
            self.shared.served.fetch_sub(self.position - position, Ordering::Relaxed);
            self.position = position;
        }
    }

    fn close(&mut self, payload: &[u8]) {
        if self.farewell.is_none() {
            self.say(&message(CLOSE, payload));
            self.part();
        }
    }

    /// Ends the connection once the outbox is empty, and hears of no further fault.
    fn part(&mut self) {
        self.farewell = Some(Instant::now() + FAREWELL);
        self.orders.close();
    }

    fn refuse(&mut self, error: &str, why: &str) {
        self.say(&message(BINARY, &error_frame(error, why)));
        self.close(&POLICY.to_be_bytes());
    }

    fn refuse_slow(&mut self) {
        self.refuse("ConsumerTooSlow", "stream consumer too slow");
    }

    fn cut_if_too_slow(&mut self) {
        let behind = self.host.live().saturating_sub(self.outbox.written().unwrap_or(self.position));
        if behind > self.host.settings.client_buffer {
            debug!(behind, "client too slow");
            self.refuse_slow();
        }
    }
}

/// Waits until then, or for ever.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => pin!(sleep_until(then)).await,
        None => std::future::pending().await,
    }
}
