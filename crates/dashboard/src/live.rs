//! The live stream: every frame is written once into a log that all clients read, each at its own pace.
//!
//! The log is short: a client that falls behind it is told how many events it missed and goes on with the newest. So no
//! client can hold up another, and one that comes back with the id of its last event finds what came meanwhile.

mod frame;
mod log;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;

use crate::events::Events;

pub(crate) use frame::Gathering;
use frame::{CONNECTED, KEEPALIVE, missed, retry, write_frame};
use log::{Log, Next};

/// How long events are gathered at least before they go out together, so that a thousand a second cost a client forty
/// writes. The first event after a pause goes out at once.
const GATHER: Duration = Duration::from_millis(25);

/// What each client adds to that time once they are many: 5,000 get eight writes a second, however many the events.
const GATHER_A_CLIENT: Duration = Duration::from_micros(25);

/// When clients are told to come back after the service ends, in milliseconds: spread, as they all come back.
const COME_BACK: std::ops::Range<u32> = 500..3000;

/// Hands frames to every live client; clones share the clients.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    shared: Arc<Shared>,
    events: Events,
}

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    /// Changes with the log; its receivers are the clients.
    grown: watch::Sender<()>,
}

/// One client's place in the stream.
struct Client {
    /// Sent before anything else.
    first: Option<Bytes>,
    place: log::Place,
    shared: Arc<Shared>,
    grown: watch::Receiver<()>,
    presence: Presence,
    ended: bool,
}

/// Counts a client as long as it is there.
struct Presence(Events);

// === impl Hub ===

impl Hub {
    /// Makes a hub that keeps the last `sendings` for clients that are behind or come back; its ids begin with `process`.
    pub(crate) fn new(process: String, sendings: usize, events: Events) -> Self {
        let shared = Shared { log: Mutex::new(Log::new(process, sendings)), grown: watch::Sender::new(()) };
        Self { shared: Arc::new(shared), events }
    }

    /// Returns how many clients there are.
    pub(crate) fn clients(&self) -> usize {
        self.shared.grown.receiver_count()
    }

    /// Returns how long to gather events before the next are sent.
    pub(crate) fn gathering_time(&self) -> Duration {
        GATHER.max(GATHER_A_CLIENT.saturating_mul(u32::try_from(self.clients()).unwrap_or(u32::MAX)))
    }

    /// Adds a client: it gets the greeting, the newest metrics if there are any, what came since the event that it saw
    /// last, and all frames from now on.
    ///
    /// Of an id that this process did not give, or no longer knows, it gets the newest events instead.
    pub(crate) fn join(
        &self,
        metrics: Option<&Bytes>,
        last_seen: Option<&str>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let grown = self.shared.grown.subscribe();
        self.events.client_came();
        let mut first = BytesMut::from(CONNECTED);
        if let Some(metrics) = metrics {
            write_frame(&mut first, "metrics", metrics);
        }
        let client = Client {
            first: Some(first.freeze()),
            place: self.shared.log().place(last_seen),
            shared: Arc::clone(&self.shared),
            grown,
            presence: Presence(self.events.clone()),
            ended: false,
        };
        stream::unfold(client, |mut client| async { client.next().await.map(|bytes| (Ok(bytes), client)) })
    }

    /// Sends the metrics to everyone.
    pub(crate) fn metrics(&self, metrics: &Bytes) {
        if self.clients() > 0 {
            let mut frame = BytesMut::with_capacity(metrics.len() + 64);
            write_frame(&mut frame, "metrics", metrics);
            self.say(frame.freeze());
        }
    }

    /// Sends what was gathered to everyone.
    pub(crate) fn gathered(&self, gathering: &mut Gathering) {
        let sent = self.shared.log().add(gathering);
        self.events.fanned_out(sent, self.clients());
        self.shared.grown.send_replace(());
    }

    /// Keeps events that came before this process, for clients that come back from another one.
    pub(crate) fn came_before(&self, gathering: &mut Gathering) {
        let mut log = self.shared.log();
        if log.is_new() {
            log.add(gathering);
        }
    }

    /// Sends a sign of life to everyone.
    pub(crate) fn keep_alive(&self) {
        self.say(Bytes::from_static(KEEPALIVE));
    }

    /// Ends every stream, once its client has all that was sent.
    pub(crate) fn end(&self) {
        self.shared.log().end();
        self.shared.grown.send_replace(());
    }

    /// Sends what is no event.
    fn say(&self, frame: Bytes) {
        self.shared.log().say(frame);
        self.shared.grown.send_replace(());
    }
}

// === impl Shared ===

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Client ===

impl Client {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while !self.ended {
            // Before looking: what comes after the look is waited for.
            self.grown.borrow_and_update();
            let next = self.shared.log().next(&mut self.place);
            match next {
                Next::Sending(bytes) => return Some(bytes),
                Next::Missed(count) => {
                    self.presence.0.client_fell_behind(count);
                    return Some(missed(count));
                }
                Next::Nothing => self.grown.changed().await.ok()?,
                Next::End => {
                    self.ended = true;
                    return Some(retry(rand::random_range(COME_BACK)));
                }
            }
        }
        None
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.client_went();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use penstock_telemetry::metrics::Metrics;

    use super::*;

    const GREETING: &str = "data: {\"type\":\"connected\",\"message\":\"Event stream connected\"}\n\n";

    fn hub(sendings: usize) -> (Hub, Metrics) {
        let metrics = Metrics::new();
        (Hub::new("p".to_owned(), sendings, Events::new(&metrics)), metrics)
    }

    fn event(n: usize) -> String {
        format!("id: p-{n}\ndata: {{\"type\":\"event\",\"data\":{n}}}\n\n")
    }

    fn send(hub: &Hub, numbers: std::ops::Range<usize>) {
        let mut gathering = Gathering::default();
        numbers.for_each(|n| gathering.add(n.to_string().as_bytes()));
        hub.gathered(&mut gathering);
        assert!(gathering.is_empty());
    }

    /// What a client gets until the end, but for the last frame, which must tell when to come back.
    async fn rest(stream: impl Stream<Item = Result<Bytes, Infallible>>) -> String {
        let parts: Vec<_> = stream.map(Result::unwrap).collect().await;
        let text = String::from_utf8(parts.concat()).unwrap();
        let (text, wait) = text.rsplit_once("retry: ").expect("the end is told");
        assert!(COME_BACK.contains(&wait.trim_end().parse().unwrap()) && wait.ends_with("\n\n"), "{wait:?}");
        text.to_owned()
    }

    #[tokio::test]
    async fn frames_come_in_order_and_the_end_is_told() {
        let (hub, _) = hub(16);
        let client = hub.join(Some(&Bytes::from_static(b"{\"a\":1}")), None);
        let late = hub.join(None, None);
        send(&hub, 1..3);
        hub.metrics(&Bytes::from_static(b"{\"a\":2}"));
        hub.keep_alive();
        hub.end();
        let shared =
            [&event(1), &event(2), "data: {\"type\":\"metrics\",\"data\":{\"a\":2}}\n\n: keepalive\n\n"].concat();
        let metrics = "data: {\"type\":\"metrics\",\"data\":{\"a\":1}}\n\n";
        assert_eq!(rest(client).await, format!("{GREETING}{metrics}{shared}"));
        assert_eq!(rest(late).await, format!("{GREETING}{shared}"));
        assert_eq!(rest(hub.join(None, None)).await, GREETING, "whoever comes after the end is told so too");
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_is_told_how_much_it_missed_and_goes_on() {
        let (hub, metrics) = hub(16);
        let mut slow = Box::pin(hub.join(None, None));
        let mut next = async || String::from_utf8(slow.next().await.unwrap().unwrap().to_vec()).unwrap();
        assert_eq!(next().await, GREETING);
        send(&hub, 1..3);
        assert_eq!(next().await, event(1) + &event(2));
        for at in 0..20 {
            send(&hub, 3 + 2 * at..5 + 2 * at);
        }
        assert_eq!(next().await, "data: {\"type\":\"missed\",\"count\":40}\n\n");
        send(&hub, 43..44);
        assert_eq!(next().await, event(43));
        // Nothing is told of what is no event.
        for _ in 0..17 {
            hub.keep_alive();
        }
        send(&hub, 44..45);
        hub.end();
        assert_eq!(rest(slow).await, "data: {\"type\":\"missed\",\"count\":1}\n\n");
        let text = metrics.encode();
        assert!(text.contains("\npenstock_dashboard_sse_clients 0"), "{text}");
        assert_eq!(hub.clients(), 0);
    }

    #[tokio::test]
    async fn a_client_that_comes_back_gets_what_came_meanwhile_once() {
        let (hub, _) = hub(64);
        send(&hub, 1..4);
        hub.metrics(&Bytes::from_static(b"{}"));
        send(&hub, 4..6);
        let joined = |last_seen| hub.join(None, last_seen);
        let clients = ["p-1", "p-2", "p-3", "p-4", "p-5"].map(|id| joined(Some(id)));
        let unknown = ["p-6", "p-0", "q-2", "p-", "p-x", "", "p-99999999999999999999"].map(|id| joined(Some(id)));
        let new = joined(None);
        send(&hub, 6..7);
        hub.end();
        let all: Vec<String> = (1..7).map(event).collect();
        for (seen, client) in clients.into_iter().enumerate() {
            assert_eq!(rest(client).await, format!("{GREETING}{}", all[seen + 1..].concat()), "from {seen}");
        }
        for client in unknown {
            assert_eq!(rest(client).await, format!("{GREETING}{}", all.concat()));
        }
        assert_eq!(rest(new).await, format!("{GREETING}{}", all[5]));
    }

    #[tokio::test]
    async fn whoever_was_away_for_too_long_gets_the_newest_events() {
        let (hub, _) = hub(4);
        for at in 0..40 {
            send(&hub, 1 + at * 10..11 + at * 10);
        }
        hub.end();
        let all: Vec<String> = (361..401).map(event).collect();
        let back = rest(hub.join(None, Some("p-7"))).await;
        assert_eq!(back, format!("{GREETING}{}", all.concat()), "the fifty newest, of which forty are kept");
    }
}
