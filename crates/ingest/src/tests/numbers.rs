//! Hosts that number and clock as they like, and quiet ones.

mod model;

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::{SinkExt, StreamExt};
use penstock_core::live::Head;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::history::{Act, Dice, Host, Sent, Step, future_cursor, steps};
use super::*;

/// A host that is served.
#[derive(Clone)]
struct Served {
    address: SocketAddr,
    relay: Arc<Mutex<RelayState>>,
    /// Ends it.
    end: CancellationToken,
}

struct RelayState {
    host: Host,
    /// The connections that are open.
    open: Vec<Open>,
    /// What each asked for.
    asked: Vec<String>,
    /// Every event that went out on any.
    sent: Vec<Sent>,
    /// The number of a frame that is never delivered whole.
    never_whole: Option<u64>,
    /// Whether who comes is turned away.
    refuses: bool,
}

/// A connection.
struct Open {
    orders: UnboundedSender<Order>,
    /// Whether it asked for no place to begin at: only a look at what is newest.
    is_sample: bool,
}

impl Open {
    /// Returns whether it is still there.
    fn send(&self, order: Order) -> bool {
        self.orders.send(order).is_ok()
    }
}

#[derive(Debug)]
enum Order {
    Send(Sent),
    Cut,
    /// Answers once everything before it has gone out.
    Answer(tokio::sync::oneshot::Sender<()>),
}

impl Served {
    async fn new(host: Host) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let relay = RelayState {
            host,
            open: Vec::new(),
            asked: Vec::new(),
            sent: Vec::new(),
            never_whole: None,
            refuses: false,
        };
        let served = Self { address, relay: Arc::new(Mutex::new(relay)), end: CancellationToken::new() };
        let serving = served.clone();
        tokio::spawn(served.end.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.connection(stream).await });
            }
        }));
        served
    }

    fn relay<T>(&self, work: impl FnOnce(&mut RelayState) -> T) -> T {
        work(&mut self.relay.lock().unwrap())
    }

    fn step(&self, step: Step) {
        self.relay(|relay| {
            for act in relay.host.act(step) {
                match act {
                    Act::Send(sent) => relay.open.retain(|open| open.send(Order::Send(sent.clone()))),
                    Act::Cut => relay.cut(),
                }
            }
        });
    }

    /// Sends events of these numbers.
    fn send(&self, seqs: impl IntoIterator<Item = u64>, hours_off: i64) {
        for seq in seqs {
            self.relay(|relay| {
                let time = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours_off);
                let id = relay.host.kept.len() as u64 + 1;
                let sent = Sent { seq, id, time: time.to_string() };
                relay.host.kept.push(sent.clone());
                relay.open.retain(|open| open.send(Order::Send(sent.clone())));
            });
        }
    }

    /// Waits until what it has to send on its open connections has gone out.
    async fn has_sent(&self) {
        let answers: Vec<_> = self.relay(|relay| {
            let ask = |open: &Open| {
                let (answer, answered) = tokio::sync::oneshot::channel();
                open.send(Order::Answer(answer));
                answered
            };
            relay.open.iter().map(ask).collect()
        });
        for answer in answers {
            let _ = answer.await;
        }
    }

    fn connections(&self) -> usize {
        self.relay(|relay| relay.asked.len())
    }

    async fn connection(self, stream: tokio::net::TcpStream) {
        if self.relay(|relay| relay.refuses) {
            return;
        }
        let mut query = String::new();
        #[expect(clippy::result_large_err, reason = "the library's own signature")]
        let note = |request: &tokio_tungstenite::tungstenite::handshake::server::Request, response| {
            request.uri().query().unwrap_or_default().clone_into(&mut query);
            Ok(response)
        };
        let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, note).await else { return };
        let cursor: Option<u64> = query.strip_prefix("cursor=").and_then(|cursor| cursor.parse().ok());
        let (orders_in, mut orders) = unbounded_channel();
        let is_sample = query.is_empty();
        let (backlog, never_whole) = self.relay(|relay| {
            // It may have begun to turn people away since this one came in.
            if relay.refuses {
                return (None, None);
            }
            relay.asked.push(query);
            let backlog = relay.host.backlog(cursor);
            if backlog.is_some() {
                relay.open.push(Open { orders: orders_in, is_sample });
            }
            (backlog, relay.never_whole)
        });
        let Some(backlog) = backlog else {
            let _ = socket.send(Message::Binary(future_cursor())).await;
            let _ = socket.close(None).await;
            return drain(socket).await;
        };
        let mut ready: std::collections::VecDeque<Order> = backlog.into_iter().map(Order::Send).collect();
        loop {
            let order = match ready.pop_front() {
                Some(order) => order,
                None => tokio::select! {
                    order = orders.recv() => match order { Some(order) => order, None => return },
                    // Reading answers pings.
                    message = socket.next() => match message { Some(Ok(_)) => continue, _ => return },
                },
            };
            match order {
                Order::Send(sent) if never_whole == Some(sent.seq) => {
                    let frame = sent.frame();
                    let _ = socket.flush().await;
                    let half = [&[0x82, u8::try_from(frame.len()).unwrap()], &frame[..frame.len() - 2]].concat();
                    let _ = socket.get_mut().write_all(&half).await;
                    let _ = socket.get_mut().shutdown().await;
                    return drain(socket).await;
                }
                Order::Send(sent) => {
                    if socket.send(Message::Binary(sent.frame())).await.is_err() {
                        return;
                    }
                    // Who asks for nothing may be the sampler, which takes nothing in.
                    if !is_sample {
                        self.relay(|relay| relay.sent.push(sent));
                    }
                }
                Order::Cut => {
                    let _ = socket.close(None).await;
                    return drain(socket).await;
                }
                Order::Answer(answer) => {
                    let _ = answer.send(());
                }
            }
        }
    }
}

impl RelayState {
    fn cut(&mut self) {
        for open in self.open.drain(..) {
            open.send(Order::Cut);
        }
    }
}

/// Reads to the end, so that what was sent is not thrown away with a reset connection.
async fn drain(mut socket: tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>) {
    let _ =
        tokio::time::timeout(Duration::from_secs(5), async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

impl Rig {
    /// How often each account's event is in the stream.
    async fn copies(&self, stream: &str) -> BTreeMap<String, usize> {
        let found: Vec<(String, Vec<(String, String)>)> = self.client.xrange(stream, "-", "+", None).await.unwrap();
        let mut copies = BTreeMap::new();
        for (_, fields) in found {
            let data: serde_json::Value = serde_json::from_str(&fields[1].1).unwrap();
            *copies.entry(data["did"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        copies
    }

    async fn seqs(&self) -> Vec<u64> {
        self.entries().await.iter().map(|entry| entry.3).collect()
    }
}

async fn quiet(host: Host) -> (Served, Rig) {
    let served = Served::new(host).await;
    let rig = Rig::new(served.address).await;
    (served, rig)
}

fn silent_live(next: u64) -> Host {
    Host::new(next, 0, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_far_number_hides_nothing_whatever_its_time() {
    for hours in [0, 5, -24] {
        let (served, rig) = quiet(silent_live(1_000)).await;
        served.send(1_000..=1_004, 0);
        served.send([900_000], hours);
        served.send(1_005..=1_024, 0);
        let running = rig.start();
        rig.reaches(1_024).await;
        let seqs: Vec<u64> = (1_000..=1_004).chain([900_000]).chain(1_005..=1_024).collect();
        assert_eq!(rig.seqs().await, seqs);
        assert_eq!(served.connections(), 1, "{hours}");
        assert_eq!(rig.state("resets").await, None);
        // Nor does it come twice where reading goes on.
        running.stop().await;
        let running = rig.start();
        served.send([1_025], 0);
        rig.reaches(1_025).await;
        running.stop().await;
        assert_eq!(rig.seqs().await.len(), seqs.len() + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_lower_number_is_written() {
    for hours in [-1, 1] {
        let (served, rig) = quiet(silent_live(1_000)).await;
        served.send(1_050..=1_060, 0);
        served.send([1_063], 0);
        served.send([1_061], hours);
        served.send([1_064], 0);
        let running = rig.start();
        rig.reaches(1_064).await;
        running.stop().await;
        assert_eq!(rig.seqs().await[10..], [1_060, 1_063, 1_061, 1_064]);
        assert_eq!((served.connections(), rig.state("resets").await), (1, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_counts_anew_is_read_from_its_oldest_once_and_then_followed_whatever_the_clocks() {
    for time in ["2026-07-04T00:00:00Z", "2126-07-04T00:00:00Z", "a quarter past"] {
        let (served, rig) = quiet(silent_live(1)).await;
        let send = |seqs: std::ops::RangeInclusive<u64>, ids: u64, live: bool| {
            for seq in seqs {
                let sent = Sent { seq, id: ids + seq, time: time.to_owned() };
                served.relay(|relay| {
                    relay.host.kept.push(sent.clone());
                    relay.open.retain(|open| live && open.send(Order::Send(sent.clone())));
                });
            }
        };
        let record_reset = || {
            served.relay(|relay| {
                relay.cut();
                relay.host.kept.clear();
            });
        };
        let connected = async || {
            eventually("the connection", async || served.relay(|relay| !relay.open.is_empty())).await;
        };
        send(1_000..=1_010, 0, true);
        let running = rig.start();
        rig.reaches(1_010).await;
        record_reset();
        send(1..=5, 10_000, false);
        connected().await;
        send(6..=8, 10_000, true);
        rig.reaches(8).await;
        send(9..=40, 10_000, true);
        rig.reaches(40).await;
        assert_eq!(rig.state("resets").await.as_deref(), Some("1"), "{time}");
        record_reset();
        send(1..=5, 20_000, false);
        connected().await;
        send(6..=30, 20_000, true);
        rig.reaches(30).await;
        running.stop().await;
        assert_eq!(rig.state("resets").await.as_deref(), Some("2"), "{time}");
        let copies = rig.copies("firehose:events").await;
        let told = |id: u64| copies.get(&format!("did:web:e{id}.test")).copied().unwrap_or_default();
        let all = (1_000..=1_010).chain(10_001..=10_040).chain(20_006..=20_030);
        assert!(all.clone().all(|id| id < 10_000 || told(id) == 1), "{copies:?}");
        assert_eq!(copies.values().sum::<usize>(), all.count(), "nothing came twice: {copies:?}");
        let asked = served.relay(|relay| relay.asked.clone());
        assert_eq!(asked, ["cursor=0", "cursor=1009", "cursor=0", "cursor=39"], "{time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_cursor_of_an_empty_host_is_answered_once() {
    let (served, mut rig) = quiet(Host::new(1, 0, true)).await;
    rig.set("relay.dataTimeout", "100ms");
    let source = format!(r#"{{"host":"{}","firstId":"1-0"}}"#, served.address);
    let _: () = rig.client.set("firehose:ingest:source", source, None, None, false).await.unwrap();
    let _: () = rig.client.set("firehose:python_cursor", "900", None, None, false).await.unwrap();
    let running = rig.start();
    eventually("the answer", async || served.connections() >= 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    served.step(Step::Cut);
    eventually("another connection", async || served.relay(|relay| !relay.open.is_empty())).await;
    served.send(1..=5, 0);
    rig.reaches(5).await;
    running.stop().await;
    let asked = served.relay(|relay| relay.asked.clone());
    assert_eq!(asked[0], "cursor=899");
    assert!(asked[1..].iter().all(|asked| asked == "cursor=0"), "{asked:?}");
    assert!(asked.len() <= 6, "{asked:?}");
    assert_eq!(rig.state("resets").await.as_deref(), Some("1"));
    assert_eq!(rig.seqs().await, [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_host_that_answers_pings_is_neither_cut_nor_left() {
    let first = Served::new(silent_live(1)).await;
    let second = Served::new(Host::new(7_000, 500, false)).await;
    let relays = format!("ws://{},ws://{}", first.address, second.address);
    let mut rig = Rig::with(TestRedis::start().await.unwrap(), &relays).await;
    rig.set("relay.dataTimeout", "200ms");
    rig.set("relay.pingInterval", "100ms");
    rig.set("relay.backoffMin", "2s");
    rig.set("relay.backoffMax", "10s");
    rig.set("relay.standbyInterval", "1h");
    let running = rig.start();
    let mut late = 0;
    for seq in 1..=8 {
        first.send([seq], 0);
        let sent = Instant::now();
        rig.reaches(seq).await;
        late += u32::from(sent.elapsed() > Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    // However loaded the machine is: a pause before another connection would be seconds long, each time.
    assert!(late <= 2, "{late} of 8 came late");
    assert_eq!(running.count("penstock_ingest_reconnects_total{reason=\"silent\"}"), 0);
    running.stop().await;
    // The one that stands by is sampled once, at the start.
    let others = second.relay(|relay| relay.asked.clone());
    assert!(others.iter().all(String::is_empty), "{others:?}");
    assert!((2..=5).contains(&first.connections()), "asked now and then: {}", first.connections());
    assert_eq!(rig.seqs().await, (1..=8).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_forgotten_by_a_quiet_host_is_replaced() {
    let (served, mut rig) = quiet(silent_live(1)).await;
    rig.set("relay.dataTimeout", "200ms");
    served.send(1..=3, 0);
    let running = rig.start();
    rig.reaches(3).await;
    // The connection stays open and its pings are answered, but nothing comes on it any more.
    served.relay(|relay| {
        let muted = std::mem::take(&mut relay.open);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(muted);
        });
    });
    served.send(4..=6, 0);
    rig.reaches(6).await;
    running.stop().await;
    assert_eq!(rig.seqs().await, (1..=6).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_host_that_falls_silent_is_dead_although_it_answers_pings() {
    let (served, mut rig) = quiet(silent_live(1)).await;
    rig.set("relay.dataTimeout", "600ms");
    let running = rig.start();
    let until = Instant::now() + Duration::from_millis(1_500);
    let mut seq = 0;
    while Instant::now() < until {
        seq += 1;
        served.send([seq], 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.reaches(seq).await;
    eventually("its end", async || running.count("penstock_ingest_reconnects_total{reason=\"silent\"}") >= 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_never_comes_whole_is_passed_over_the_third_time() {
    let (served, rig) = quiet(silent_live(1)).await;
    served.relay(|relay| relay.never_whole = Some(7));
    served.send((1..=5).chain([7]).chain(8..=12), 0);
    let running = rig.start();
    rig.reaches(12).await;
    eventually("the loss", async || rig.state("dataLoss").await.as_deref() == Some("1")).await;
    running.stop().await;
    assert_eq!(served.relay(|relay| relay.asked.clone()), ["cursor=0", "cursor=4", "cursor=4", "cursor=7"]);
    assert_eq!(rig.seqs().await, [1, 2, 3, 4, 5, 8, 9, 10, 11, 12]);
    let letters: Vec<(String, Vec<(String, String)>)> =
        rig.client.xrange("firehose:dead-letters:raw", "-", "+", None).await.unwrap();
    assert_eq!((letters.len(), letters[0].1[2].1.as_str()), (1, "7"));
    assert!(letters[0].1[5].1.contains("never arrives complete"), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_head_of_a_host_that_stands_by_is_no_head() {
    let (served, rig) = quiet(silent_live(1)).await;
    served.send(1..=10, 0);
    let head = Head { seq: 700, time: "2020-01-01T00:00:00Z".parse().unwrap(), taken: None };
    let head = serde_json::to_string(&head).unwrap();
    let _: i64 = rig.client.hset("firehose:ingest:state", (format!("standby:{}", served.address), head)).await.unwrap();
    let source = r#"{"host":"gone.test","firstId":"1-0"}"#;
    let _: () = rig.client.set("firehose:ingest:source", source, None, None, false).await.unwrap();
    let _: () = rig.client.set("firehose:python_cursor", "5000", None, None, false).await.unwrap();
    let _: i64 = rig.client.hset("firehose:ingest:state", ("cursor", "5000")).await.unwrap();
    let running = rig.start();
    rig.reaches(10).await;
    running.stop().await;
    assert_eq!(served.relay(|relay| relay.asked[0].clone()), "cursor=0");
    assert_eq!(rig.seqs().await, (1..=10).collect::<Vec<_>>());
}

fn cases(usual: u64) -> u64 {
    std::env::var("PENSTOCK_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// Hosts do whatever they like while ingest reads them; whatever went out on a connection is in the stream, once but for what
/// a told reading from the oldest brings again, and for what a host is asked for that was left in between.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_hosts_do_every_event_that_was_sent_is_in_the_stream() {
    let mut rig = Rig::with(TestRedis::start().await.unwrap(), "ws://127.0.0.1:1").await;
    rig.set("relay.backoffMin", "1ms");
    rig.set("relay.backoffMax", "5ms");
    rig.set("relay.failoverAfter", "1");
    rig.set("relay.standbyInterval", "1h");
    // However loaded the machine is: a lease that runs out is a crash, and what it forgets comes with the host's next events.
    rig.set("ingest.leaseTime", "6s");
    let first = std::env::var("PENSTOCK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_default();
    for seed in first..first + cases(100) {
        served_case(&rig, seed).await;
    }
}

async fn served_case(rig: &Rig, seed: u64) {
    let mut dice = Dice::new(seed);
    let says_future = dice.below(2) == 0;
    let steps = steps(&mut dice);
    let first = Host::new(1_000 + dice.below(9_000), 0, says_future);
    let second = Host::new(1 + dice.below(90_000), 500_000, says_future);
    let hosts = [Served::new(first).await, Served::new(second).await];
    let mut settings = rig.settings.clone();
    settings.push(("relay.urls", format!("ws://{},ws://{}", hosts[0].address, hosts[1].address)));
    settings.push(("redis.keyPrefix", format!("c{seed}:")));
    let stream = format!("c{seed}:firehose:events");
    let start = || {
        let (metrics, health) = (Metrics::new(), Health::new());
        let ingest = Ingest::new(Arc::new(load(&settings)), &metrics, &health);
        let (cancel, progress) = (CancellationToken::new(), ingest.progress());
        Running { task: tokio::spawn(ingest.run(cancel.clone())), cancel, progress, metrics, health }
    };
    hosts[1].relay(|relay| relay.refuses = true);
    let mut running = start();
    let (mut at, mut ends, mut leaves, mut restarts) = (0, 0, 0, 0);
    let settled = async |at: usize, what: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            hosts[at].has_sent().await;
            let copies = rig.copies(&stream).await;
            let sent: Vec<Sent> = hosts.iter().flat_map(|host| host.relay(|relay| relay.sent.clone())).collect();
            let missing: Vec<_> = sent.iter().filter(|sent| !copies.contains_key(&sent.did())).collect();
            let last = hosts[at].relay(|relay| relay.host.kept.last().map(|kept| kept.id));
            let last = last.map(|id| format!("did:web:e{id}.test"));
            if missing.is_empty() && (what != "the end" || last.is_none_or(|last| copies.contains_key(&last))) {
                break;
            }
            assert!(Instant::now() < deadline, "seed {seed}, {what}: {missing:?} of {steps:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    for step in &steps {
        eventually(&format!("a connection, seed {seed} before {step:?} of {steps:?}"), async || {
            // Who asks for no place is the sampler, or ingest that follows a host live.
            let live = running.progress.connected();
            hosts[at].relay(|relay| relay.open.iter().any(|open| (live || !open.is_sample) && !open.orders.is_closed()))
        })
        .await;
        match step {
            Step::Leave => {
                // What it had sent on a connection that was given up it can be asked for only while it is there.
                settled(at, "before it leaves").await;
                hosts[1 - at].relay(|relay| relay.refuses = false);
                hosts[at].relay(|relay| {
                    relay.refuses = true;
                    relay.cut();
                });
                at = 1 - at;
                leaves += 1;
            }
            Step::Restart => {
                // A late number that was on its way then is not sent again by who goes by numbers.
                settled(at, "before ingest ends").await;
                running.stop().await;
                for host in &hosts {
                    host.relay(|relay| relay.open.clear());
                }
                running = start();
                restarts += 1;
            }
            Step::Reset { .. } => {
                // What it had sent on a connection that is given up it could not be asked for any more.
                settled(at, "before it counts anew").await;
                hosts[at].step(*step);
            }
            step => hosts[at].step(*step),
        }
        ends += usize::from(matches!(step, Step::Cut | Step::Reset { .. }));
    }
    settled(at, "the end").await;
    running.stop().await;
    let state = format!("c{seed}:firehose:ingest:state");
    let resets: Option<usize> = rig.client.hget(state, "resets").await.unwrap();
    let copies = rig.copies(&stream).await;
    let most = copies.values().copied().max().unwrap_or_default();
    assert!(most <= 1 + resets.unwrap_or_default() + leaves, "seed {seed}: {most} copies after {steps:?}");
    let connections: usize = hosts.iter().map(Served::connections).sum();
    // A reset is one more, and while a host turns away who comes, or was left, it may be tried in between.
    let bound = 2 + ends + restarts + 2 * resets.unwrap_or_default() + 6 * leaves;
    assert!(connections <= bound, "seed {seed}: {connections} connections, at most {bound}, after {steps:?}");
    for host in &hosts {
        host.end.cancel();
    }
}
