//! The live stream: every frame is written once into a log that all clients read, each at its own pace.
//!
//! The log is short: a client that falls behind it is told how many events it missed and goes on with the newest. So no
//! client can hold up another, and one that comes back with the id of its last event finds what came meanwhile.

mod filter;
mod frame;
mod log;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;

use crate::events::Events;

pub(crate) use filter::{Filter, Wish};
pub(crate) use frame::Gathering;
use frame::{CONNECTED, KEEPALIVE, missed, retry, write_frame};
use log::{Log, Next};

/// How long events are gathered at least before they go out together, so that a thousand a second cost a client forty
/// writes. The first event after a pause goes out at once.
const GATHER: Duration = Duration::from_millis(25);

/// What each client adds to that time once they are many: 5,000 get eight writes a second, however many the events.
const GATHER_A_CLIENT: Duration = Duration::from_micros(25);

/// How many of the newest events a client gets at least whose last one is not known.
const NEWEST: usize = 50;

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
    /// How many clients get only some of the events.
    filtered: AtomicUsize,
}

/// One client's place in the stream.
struct Client {
    /// Sent before anything else.
    next: Option<Bytes>,
    place: log::Place,
    /// None: it gets every event, in frames that all share.
    filter: Option<Box<Filter>>,
    /// Whether it went past events that it did not want, since it was told the id of one.
    passed: bool,
    shared: Arc<Shared>,
    grown: watch::Receiver<()>,
    presence: Presence,
    ended: bool,
}

/// Counts a client as long as it is there.
struct Presence {
    events: Events,
    /// Where it is counted as one that gets only some events.
    filtered: Option<Arc<Shared>>,
}

// === impl Hub ===

impl Hub {
    /// Makes a hub that keeps the last `sendings` for clients that are behind or come back; its ids begin with `process`.
    pub(crate) fn new(process: String, sendings: usize, events: Events) -> Self {
        let shared = Shared {
            log: Mutex::new(Log::new(process, sendings)),
            grown: watch::Sender::new(()),
            filtered: AtomicUsize::new(0),
        };
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
    /// last, and all frames from now on; of the events only those that it wants.
    ///
    /// Of an id that this process did not give, or no longer knows, it gets the newest events instead; without an id the
    /// newest that it asked for.
    pub(crate) fn join(
        &self,
        metrics: Option<&Bytes>,
        last_seen: Option<&str>,
        wish: Wish,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let grown = self.shared.grown.subscribe();
        self.events.client_came();
        let mut first = BytesMut::from(CONNECTED);
        if let Some(metrics) = metrics {
            write_frame(&mut first, "metrics", metrics);
        }
        let filter = Some(wish.filter).filter(|filter| !filter.is_open()).map(Box::new);
        let (place, newest) = {
            let log = self.shared.log();
            match (log.place(last_seen), usize::from(wish.recent)) {
                ((place, false), recent) => (place, Some((recent.max(NEWEST), log.kept()))),
                ((place, true), 1..) if last_seen.is_none() => (place, Some((wish.recent.into(), log.kept()))),
                ((place, true), _) => (place, None),
            }
        };
        let place = newest.map_or(place, |(most, kept)| place.back(&kept, filter.as_deref(), most));
        let filtered = filter.is_some().then(|| Arc::clone(&self.shared));
        let client = Client {
            next: Some(first.freeze()),
            place,
            filter,
            passed: false,
            shared: Arc::clone(&self.shared),
            grown,
            presence: Presence::new(self.events.clone(), filtered),
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
        let filtered = self.shared.filtered.load(Ordering::Relaxed);
        self.events.fanned_out(sent, self.clients().saturating_sub(filtered));
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
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        while !self.ended {
            // Before looking: what comes after the look is waited for.
            self.grown.borrow_and_update();
            let next = self.shared.log().next(&mut self.place);
            match next {
                Next::Sending(sending, event) => {
                    if let Some(bytes) = self.take(&sending, event) {
                        return Some(bytes);
                    }
                }
                Next::Missed(count) => {
                    self.presence.events.client_fell_behind(count);
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

    /// Returns what it wants of a sending, if there is any.
    fn take(&mut self, sending: &log::Sending, event: u64) -> Option<Bytes> {
        let Some(filter) = &self.filter else { return Some(sending.from(event)) };
        if !sending.is_word() {
            let (frames, count) = sending.matching(event, filter);
            self.presence.events.fanned_out(count, 1);
            self.passed |= count == 0;
            return Some(frames).filter(|_| count > 0);
        }
        if std::mem::take(&mut self.passed) {
            // It learns with the next sign of life how far it is, so that it can go on from there however rare its events are.
            self.next = Some(sending.from(event));
            return Some(self.shared.log().id_before(self.place));
        }
        Some(sending.from(event))
    }
}

// === impl Presence ===

impl Presence {
    fn new(events: Events, filtered: Option<Arc<Shared>>) -> Self {
        if let Some(shared) = &filtered {
            shared.filtered.fetch_add(1, Ordering::Relaxed);
        }
        Self { events, filtered }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(shared) = &self.filtered {
            shared.filtered.fetch_sub(1, Ordering::Relaxed);
        }
        self.events.client_went();
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
        let client = hub.join(Some(&Bytes::from_static(b"{\"a\":1}")), None, Wish::default());
        let late = hub.join(None, None, Wish::default());
        send(&hub, 1..3);
        hub.metrics(&Bytes::from_static(b"{\"a\":2}"));
        hub.keep_alive();
        hub.end();
        let shared =
            [&event(1), &event(2), "data: {\"type\":\"metrics\",\"data\":{\"a\":2}}\n\n: keepalive\n\n"].concat();
        let metrics = "data: {\"type\":\"metrics\",\"data\":{\"a\":1}}\n\n";
        assert_eq!(rest(client).await, format!("{GREETING}{metrics}{shared}"));
        assert_eq!(rest(late).await, format!("{GREETING}{shared}"));
        assert_eq!(
            rest(hub.join(None, None, Wish::default())).await,
            GREETING,
            "whoever comes after the end is told so too"
        );
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_is_told_how_much_it_missed_and_goes_on() {
        let (hub, metrics) = hub(16);
        let mut slow = Box::pin(hub.join(None, None, Wish::default()));
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
        let joined = |last_seen| hub.join(None, last_seen, Wish::default());
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
        let back = rest(hub.join(None, Some("p-7"), Wish::default())).await;
        assert_eq!(back, format!("{GREETING}{}", all.concat()), "the fifty newest, of which forty are kept");
    }

    fn wish(query: &[(&str, &str)]) -> Wish {
        Wish::read(query.iter().copied()).unwrap()
    }

    /// An event whose collection ends in that word.
    fn of(number: usize, word: &str) -> String {
        format!(
            "{{\"type\":\"#commit\",\"lexicon\":\"app.test.{word}\",\"did\":\"did:plc:{number}\",\"action\":\"create\"}}"
        )
    }

    /// Sends them in one sending.
    fn send_of(hub: &Hub, numbers: std::ops::Range<usize>, word: impl Fn(usize) -> &'static str) {
        let mut gathering = Gathering::default();
        numbers.for_each(|n| gathering.add(of(n, word(n)).as_bytes()));
        hub.gathered(&mut gathering);
    }

    /// The numbers of the events in what a client got.
    fn numbers(text: &str) -> Vec<usize> {
        let number = |line: &str| line.split("did:plc:").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
        text.lines().filter_map(number).collect()
    }

    fn word(number: usize) -> &'static str {
        if number % 10 == 7 { "rare" } else { ["one", "two"][number % 2] }
    }

    #[tokio::test]
    async fn each_client_gets_the_events_that_it_wants_and_no_other() {
        let (hub, metrics) = hub(64);
        let queries: [&[(&str, &str)]; 5] = [
            &[],
            &[("collection", "app.test.rare")],
            &[("collection", "app.test.one"), ("collection", "app.test.rare")],
            &[("did", "did:plc:4*")],
            &[("text", "nobody")],
        ];
        let clients = queries.map(|query| hub.join(None, None, wish(query)));
        for from in [1, 6, 27] {
            send_of(&hub, from..(from + 20).min(48), word);
        }
        hub.end();
        let all: Vec<usize> = (1..21).chain(6..26).chain(27..47).collect();
        let wants: [&dyn Fn(usize) -> bool; 5] =
            [&|_| true, &|n| word(n) == "rare", &|n| word(n) != "two", &|n| n.to_string().starts_with('4'), &|_| false];
        for ((client, wants), query) in clients.into_iter().zip(wants).zip(queries) {
            let expected: Vec<usize> = all.iter().copied().filter(|n| wants(*n)).collect();
            let text = rest(client).await;
            assert_eq!(numbers(&text), expected, "{query:?}");
            // Each frame whole, with its id.
            assert_eq!(text.matches("\n\n").count(), expected.len() + 1, "{query:?}");
            assert_eq!(text.matches("id: p-").count(), expected.len(), "{query:?}");
        }
        let expected: usize = wants.iter().map(|wants| all.iter().filter(|n| wants(**n)).count()).sum();
        let counted = format!("penstock_dashboard_events_fanned_out_total {expected}\n");
        assert!(metrics.encode().contains(&counted), "{expected}: {}", metrics.encode());
        assert_eq!(hub.shared.filtered.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_filtered_client_goes_on_where_it_was_however_rare_its_events_are() {
        let (hub, _) = hub(64);
        let rare = || wish(&[("collection", "app.test.rare")]);
        let mut client = Box::pin(hub.join(None, None, rare()));
        let mut next = async || String::from_utf8(client.next().await.unwrap().unwrap().to_vec()).unwrap();
        assert_eq!(next().await, GREETING);
        send_of(&hub, 1..7, word);
        send_of(&hub, 8..17, word);
        hub.metrics(&Bytes::from_static(b"{}"));
        assert_eq!(next().await, "id: p-15\n\n", "the last that it went past");
        assert_eq!(next().await, "data: {\"type\":\"metrics\",\"data\":{}}\n\n");
        hub.keep_alive();
        assert_eq!(next().await, ": keepalive\n\n", "the id is told once");
        send_of(&hub, 17..28, word);
        assert_eq!(numbers(&next().await), [17, 27]);

        // With that id it gets what came since, also with another filter.
        let back = hub.join(None, Some("p-15"), rare());
        let other = hub.join(None, Some("p-15"), wish(&[("did", "did:plc:2*")]));
        // Without one that is known: the newest that it wants, not those of all.
        send_of(&hub, 100..300, |_| "one");
        let unknown = hub.join(None, Some("q-15"), rare());
        let (none, two) = (hub.join(None, None, rare()), hub.join(None, None, Wish { recent: 2, ..rare() }));
        send_of(&hub, 307..308, word);
        hub.end();
        assert_eq!(numbers(&rest(back).await), [17, 27, 307]);
        assert_eq!(numbers(&rest(other).await), (20..28).chain(200..300).collect::<Vec<_>>());
        assert_eq!(numbers(&rest(unknown).await), [17, 27, 307]);
        assert_eq!(numbers(&rest(none).await), [307]);
        assert_eq!(numbers(&rest(two).await), [17, 27, 307]);
    }

    #[tokio::test]
    async fn the_newest_that_are_asked_for_come_first_of_an_open_filter_too() {
        let (hub, _) = hub(64);
        send_of(&hub, 1..40, word);
        hub.keep_alive();
        let clients = [0, 3, 200].map(|recent| hub.join(None, None, Wish { recent, ..Wish::default() }));
        send_of(&hub, 40..41, word);
        hub.end();
        let mut came = Vec::new();
        for client in clients {
            came.push(numbers(&rest(client).await));
        }
        assert_eq!(came, [vec![40], (37..41).collect(), (1..41).collect()]);
    }
}
