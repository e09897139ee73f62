//! Connections: accepted, served as HTTP/1.1, bounded in memory and patience, and ended in time.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::Events;
use crate::routes::Peer;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long a client may take no byte of what is ready for it.
    pub(crate) stall: Duration,
    /// How long it may take to send the head of a request, and to begin the next one.
    pub(crate) head: Duration,
    /// How long answers under way may take once the service ends.
    pub(crate) drain: Duration,
    /// How often a client of a WebSocket is asked for a sign of life.
    pub(crate) ping: Duration,
    /// How many live clients there may be.
    pub(crate) live_clients: usize,
}

/// The most bytes of a request's head, and of an answer waiting to be written besides its last part.
const BUFFER: usize = 16 * 1024;

/// The kernel's send buffer of a connection. Bounded, so that a client which does not read is noticed soon.
const SEND_BUFFER: u32 = 128 * 1024;

/// How many connections may wait to be accepted: after a restart all clients come back at once.
const BACKLOG: u32 = 4096;

/// The tokens that end connections.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// Ends each after its answer under way.
    pub(crate) soft: CancellationToken,
    /// Ends them all at once.
    pub(crate) hard: CancellationToken,
}

/// A stream whose writes fail when the peer takes nothing for too long.
#[derive(Debug)]
struct Impatient {
    stream: TcpStream,
    stall: Duration,
    /// When the write that waits will have failed.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the peer ever sent anything.
    spoke: Arc<AtomicBool>,
    events: Events,
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
        }
    }
}

/// Binds an address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections and serves them until told to end; `connections` tracks those under way.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    events: Events,
    connections: TaskTracker,
    ending: Ending,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.soft.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Frames are small and wanted at once.
                let _ = stream.set_nodelay(true);
                let stream = Impatient::new(stream, limits.stall, events.clone());
                connections.spawn(serve(stream, Peer(peer.ip()), router.clone(), limits.head, ending.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                events.accept_failed(&error);
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(stream: Impatient, peer: Peer, router: Router, head: Duration, ending: Ending) {
    let spoke = Arc::clone(&stream.spoke);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(BUFFER);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
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
    fn new(stream: TcpStream, stall: Duration, events: Events) -> Self {
        Self { stream, stall, deadline: None, spoke: Arc::default(), events }
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
        self.events.slow_client_cut("took nothing");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.spoke.store(true, Ordering::Relaxed);
        }
        read
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
