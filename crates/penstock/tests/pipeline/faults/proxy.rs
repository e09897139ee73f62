//! A TCP proxy that spoils connections.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A proxy on 127.0.0.1, gone when dropped.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

/// How connections are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Weather {
    /// As if there were no proxy.
    #[default]
    Fair,
    /// Each piece is late by so much.
    Slow(Duration),
    /// Bytes wait until it ends.
    Held,
    /// Bytes that are sent now are gone, and so is, for good, whatever the same connection sends later.
    BlackHole,
    /// Who connects is cut off.
    Refusing,
}

/// Waits for one answer, and cuts its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trap {
    /// What the first bytes of the answer have to hold.
    pub(crate) holds: &'static str,
    /// Whether half of what is at hand goes through.
    pub(crate) half: bool,
}

struct State {
    upstream: AtomicU16,
    weather: watch::Sender<Weather>,
    /// How often all connections were cut.
    cuts: watch::Sender<u64>,
    trap: Mutex<Option<Trap>>,
}

/// How far into an answer its contents are looked for.
const LOOK: usize = 256;

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn to(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            upstream: AtomicU16::new(upstream),
            weather: watch::Sender::default(),
            cuts: watch::Sender::default(),
            trap: Mutex::default(),
        });
        let accepting = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                // The system may be out of descriptors for a moment.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(client, Arc::clone(&accepting)));
            }
        });
        Self { port, state, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sends whoever connects from now on there.
    pub(crate) fn set_upstream(&self, port: u16) {
        self.state.upstream.store(port, Ordering::Relaxed);
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state.weather.send_replace(weather);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Waits for an answer to cut.
    pub(crate) fn set_trap(&self, trap: Trap) {
        *self.state.trap.lock().unwrap() = Some(trap);
    }

    /// Says whether the trap, if there was one, has caught an answer.
    pub(crate) fn is_sprung(&self) -> bool {
        self.state.trap.lock().unwrap().is_none()
    }

    /// Takes the trap away; says whether it had caught an answer.
    pub(crate) fn take_trap(&self) -> bool {
        self.state.trap.lock().unwrap().take().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

// === impl State ===

impl State {
    /// Returns the trap if this answer springs it.
    fn caught(&self, answer: &[u8]) -> Option<Trap> {
        let mut trap = self.trap.lock().unwrap();
        let head = &answer[..answer.len().min(LOOK)];
        trap.take_if(|trap| {
            trap.holds.is_empty() || head.windows(trap.holds.len()).any(|part| part == trap.holds.as_bytes())
        })
    }
}

/// Carries one connection until either side ends it, or all are cut.
async fn serve(client: TcpStream, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    if *state.weather.borrow() == Weather::Refusing {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, state.upstream.load(Ordering::Relaxed))).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let swallowing = watch::Sender::new(false);
    tokio::select! {
        _ = cuts.changed() => {}
        () = carry(from_client, to_server, &state, &swallowing, false) => {}
        () = carry(from_server, to_client, &state, &swallowing, true) => {}
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    swallowing: &watch::Sender<bool>,
    answers: bool,
) {
    let mut weather = state.weather.subscribe();
    let mut piece = vec![0; 64 << 10];
    loop {
        let Ok(size @ 1..) = from.read(&mut piece).await else { return };
        loop {
            let now = *weather.borrow_and_update();
            match now {
                Weather::Slow(late) => sleep(late).await,
                Weather::Held => {
                    if weather.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Weather::BlackHole => _ = swallowing.send_replace(true),
                Weather::Fair | Weather::Refusing => {}
            }
            break;
        }
        if *swallowing.borrow() {
            continue;
        }
        let caught = if answers { state.caught(&piece[..size]) } else { None };
        let size = match caught {
            Some(Trap { half, .. }) => size / 2 * usize::from(half),
            None => size,
        };
        if to.write_all(&piece[..size]).await.is_err() || caught.is_some() {
            return;
        }
    }
}

#[tokio::test]
async fn a_trap_lets_the_command_through_and_keeps_the_answer() {
    let redis = penstock_local::testing::TestRedis::start().await.unwrap();
    let proxy = Proxy::to(redis.port()).await;
    proxy.set_trap(Trap { holds: "OK", half: false });
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    socket.write_all(b"PING\r\nSET a 1\r\n").await.unwrap();
    let mut answers = String::new();
    let _ = socket.read_to_string(&mut answers).await;
    assert!(matches!(answers.as_str(), "" | "+PONG\r\n"), "{answers}");
    assert!(proxy.take_trap());
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    socket.write_all(b"GET a\r\nQUIT\r\n").await.unwrap();
    socket.read_to_string(&mut answers).await.unwrap();
    assert!(answers.ends_with("$1\r\n1\r\n+OK\r\n"), "{answers}");
}
