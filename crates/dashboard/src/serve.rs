//! Connections: accepted, served as HTTP/1.1, bounded in memory and patience, and ended in time.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use penstock_core::listen::listen_with;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connections::{Connections, Seat, refuse};
use crate::events::Events;
use crate::peer::Peer;
use crate::turn::{Answer, Patience, Turn};

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long a client may take no byte of what is ready for it.
    pub(crate) stall: Duration,
    /// How long it may take to send the head of a request.
    pub(crate) head: Duration,
    /// How long answers under way may take once the service ends.
    pub(crate) drain: Duration,
    /// How often a client of a WebSocket is asked for a sign of life.
    pub(crate) ping: Duration,
    /// How many live clients there may be.
    pub(crate) live_clients: usize,
    /// After how long a client that has guessed tokens may guess once more.
    pub(crate) guess: Duration,
}

/// The most bytes of a request's head, and of an answer waiting to be written besides its last part.
const BUFFER: usize = 16 * 1024;

/// The kernel's send buffer of a connection. Bounded, so that a client which does not read is noticed soon.
const SEND_BUFFER: usize = 128 * 1024;

/// How many connections may wait to be accepted: after a restart all clients come back at once.
const BACKLOG: i32 = 4096;

/// The tokens that end connections.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// Ends each after its answer under way.
    pub(crate) soft: CancellationToken,
    /// Ends them all at once.
    pub(crate) hard: CancellationToken,
}

/// A stream that fails when the peer takes nothing, or when it is its turn and it sends nothing, for too long.
#[derive(Debug)]
struct Impatient {
    stream: TcpStream,
    stall: Duration,
    patience: Patience,
    turn: Turn,
    /// When the write that waits will have failed.
    deadline: Option<Pin<Box<Sleep>>>,
    /// When the read that waits will have failed.
    wait: Option<Pin<Box<Sleep>>>,
    /// Whether the peer ever sent anything.
    spoke: Arc<AtomicBool>,
    events: Events,
    /// Kept for as long as the stream, which a WebSocket takes over.
    _seat: Seat,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(10),
            head: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            ping: Duration::from_secs(15),
            live_clients: 10_000,
            guess: Duration::from_secs(3),
        }
    }
}

/// Binds an address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    // Accepted connections inherit the size.
    listen_with(address, BACKLOG, |socket| socket.set_send_buffer_size(SEND_BUFFER))
}

/// Accepts connections and serves them until told to end; `connections` bounds and tracks those under way.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    keep_alive: Duration,
    events: Events,
    connections: Connections,
    ending: Ending,
) {
    let patience = Patience { head: limits.head, idle: keep_alive };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.soft.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = Peer(peer.ip().to_canonical());
                let seat = match connections.take(peer) {
                    Ok(seat) => seat,
                    Err(full) => {
                        refuse(&stream);
                        events.connection_refused(full);
                        continue;
                    }
                };
                // Frames are small and wanted at once.
                let _ = stream.set_nodelay(true);
                let stream = Impatient::new(stream, seat, limits.stall, patience, events.clone());
                connections.tracker.spawn(serve(stream, peer, router.clone(), ending.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                events.accept_failed(&error);
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(stream: Impatient, peer: Peer, router: Router, ending: Ending) {
    let (spoke, turn) = (Arc::clone(&stream.spoke), stream.turn.clone());
    let mut http = http1::Builder::new();
    // The stream itself is impatient, and sooner: it tells an idle connection from a request that never ends. Without a time
    // of its own hyper would not read while a connection is idle, and the stream would not be asked.
    let longest = stream.patience.idle + stream.patience.head;
    http.timer(TokioTimer::new()).header_read_timeout(longest).max_buf_size(BUFFER);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let end = turn.answer();
        request.extensions_mut().insert(peer);
        let answered = router.call(request);
        async move {
            let response = answered.await?;
            // A WebSocket has patience of its own.
            let end = (response.status() != StatusCode::SWITCHING_PROTOCOLS).then_some(end);
            Ok::<_, Infallible>(response.map(|body| Answer::new(body, end)))
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = Box::pin(connection);
    // How a connection ends is the client's affair: a reset is no news.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = ending.soft.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    if !spoke.load(Ordering::Relaxed) {
        // Browsers connect ahead of need; hyper would wait for a first request.
        return;
    }
    tokio::select! {
        _ = connection => {}
        () = ending.hard.cancelled() => {}
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

// === impl Impatient ===

impl Impatient {
    fn new(stream: TcpStream, seat: Seat, stall: Duration, patience: Patience, events: Events) -> Self {
        let turn = Turn::new(Instant::now());
        Self { stream, stall, patience, turn, deadline: None, wait: None, spoke: Arc::default(), events, _seat: seat }
    }

    /// Waits for the peer, while it is its turn; an error once that is over.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(deadline) = self.turn.deadline(&self.patience) else {
            self.wait = None;
            return Poll::Pending;
        };
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if wait.deadline() != deadline {
            wait.as_mut().reset(deadline);
        }
        ready!(wait.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes a write's outcome on, unless it has waited for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let stall = self.stall;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + stall)));
        ready!(deadline.as_mut().poll(cx));
        self.deadline = None;
        self.events.slow_client_cut("read nothing");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.spoke.store(true, Ordering::Relaxed);
            self.turn.heard(Instant::now());
        }
        if read.is_pending() { self.wait(cx) } else { read }
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
