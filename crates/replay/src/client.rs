//! One client, from its request to its last byte.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::cbor::{error_frame, info_frame};
use crate::edition::Chunk;
use crate::http::{self, Cursor, Route};
use crate::outbox::Outbox;
use crate::relay::Shared;
use crate::settings::BadCursor;
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
    let (cursor, upgrade) = match request.as_ref().map(http::route) {
        Some(Route::Subscribe(Cursor::Bad, _)) if shared.settings.bad_cursor == BadCursor::Http400 => {
            return answer(stream, &http::bad_request(BAD_CURSOR)).await;
        }
        Some(Route::Subscribe(cursor, upgrade)) => (cursor, upgrade),
        Some(Route::Answer(answer_bytes)) => return answer(stream, &answer_bytes).await,
        None => return answer(stream, &http::bad_request("this is no HTTP/1.1 GET")).await,
    };
    stream.write_all(&upgrade).await?;
    Session::open(shared, cursor).run(stream, inbox, cancel).await
}

const BAD_CURSOR: &str = "cursor must be an integer of at least 0";

async fn answer(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await
}

struct Session<'a> {
    shared: &'a Shared,
    outbox: Outbox,
    /// The first event that was not yet put into the outbox.
    position: u64,
    /// Whether the client has once caught up with the head.
    caught_up: bool,
    /// The chunk after the present one, being made.
    next: Option<(u64, JoinHandle<Arc<Chunk>>)>,
    /// By when the connection ends: set once the relay has said its close.
    farewell: Option<Instant>,
}

impl<'a> Session<'a> {
    fn open(shared: &'a Shared, cursor: Cursor) -> Self {
        let (outbox, next) = (Outbox::default(), None);
        let mut session = Self { shared, outbox, position: 0, caught_up: false, next, farewell: None };
        let settings = &shared.settings;
        let cursor = match cursor {
            Cursor::Absent => None,
            Cursor::At(cursor) => Some(cursor),
            Cursor::Bad => {
                session.refuse("InvalidRequest", BAD_CURSOR);
                return session;
            }
        };
        match open(shared.stock.timeline(), shared.live(), settings.window, settings.future_cursor, cursor) {
            Opening::At(position) => session.position = position,
            Opening::Outdated(position) => {
                session.position = position;
                let info = info_frame("OutdatedCursor", "requested cursor exceeded limit, possibly missing events");
                session.say(&message(BINARY, &info));
            }
            Opening::Future => session.refuse("FutureCursor", "cursor in the future"),
        }
        session
    }

    async fn run(mut self, mut stream: TcpStream, mut inbox: BytesMut, cancel: &CancellationToken) -> io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        let interval = self.shared.settings.ping_interval;
        let mut ping = interval_at(Instant::now() + interval, interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lag = interval_at(Instant::now() + LAG_CHECK, LAG_CHECK);
        lag.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_close = false;
        loop {
            while let Some(said) = websocket::next_said(&mut inbox).map_err(|_| io::ErrorKind::InvalidData)? {
                match said {
                    Said::Ping(payload) if self.farewell.is_none() => self.say(&message(PONG, &payload)),
                    Said::Ping(_) => {}
                    Said::Close(payload) => {
                        heard_close = true;
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
                if heard_close {
                    return Ok(());
                }
            }
            let farewell = self.farewell;
            tokio::select! {
                biased;
                () = cancel.cancelled(), if open => self.close(&AWAY.to_be_bytes()),
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
        let shared = self.shared;
        let available = shared.available();
        if self.position >= available {
            self.caught_up = shared.clock.ticks();
            return Ok(shared.due(self.position));
        }
        let chunk = match self.outbox.chunk() {
            Some(chunk) if (chunk.first..chunk.end()).contains(&self.position) => Arc::clone(chunk),
            _ => self.fetch().await?,
        };
        let end = chunk.end().min(available);
        self.outbox.load(chunk, self.position, end);
        shared.taken.fetch_max(end, Ordering::Relaxed);
        shared.served.fetch_add(end - self.position, Ordering::Relaxed);
        self.position = end;
        Ok(None)
    }

    /// Takes the chunk at the present position, and has the next one made meanwhile.
    async fn fetch(&mut self) -> io::Result<Arc<Chunk>> {
        let stock = &self.shared.stock;
        let number = stock.number(self.position);
        let chunk = match (stock.ready(number), self.next.take()) {
            (Some(chunk), _) => chunk,
            (None, Some((expected, making))) if expected == number => making.await?,
            (None, _) => self.shared.make(number).await?,
        };
        if stock.ready(number + 1).is_none() && self.shared.settings.total.is_none_or(|total| chunk.end() < total) {
            self.next = Some((number + 1, self.shared.make(number + 1)));
        }
        Ok(chunk)
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
            self.farewell = Some(Instant::now() + FAREWELL);
        }
    }

    fn refuse(&mut self, error: &str, why: &str) {
        self.say(&message(BINARY, &error_frame(error, why)));
        self.close(&POLICY.to_be_bytes());
    }

    fn cut_if_too_slow(&mut self) {
        let behind = self.shared.live().saturating_sub(self.outbox.written().unwrap_or(self.position));
        if behind > self.shared.settings.client_buffer {
            debug!(behind, "client too slow");
            self.refuse("ConsumerTooSlow", "stream consumer too slow");
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
