//! Repos above their rate: their events go by a second stream, as long as all who read the first read both.

use fred::types::Value;
use penstock_core::stream::StreamId;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;

const STREAM: &str = "firehose:events";
const BULK: &str = "firehose:events:bulk";
const GROUP: &str = "firehose-processors";

/// An entry: its ID, its number, whose it is.
type Seen = (StreamId, u64, String);

/// A relay that sends what it is told to, to whoever is connected.
async fn fed() -> (SocketAddr, UnboundedSender<Bytes>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (feed, mut frames) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(frame) = frames.recv().await {
                if socket.send(Message::Binary(frame)).await.is_err() {
                    break;
                }
            }
        }
    });
    (address, feed)
}

/// The number before the first one: all are written in four bytes.
const BASE: u32 = 100_000;

/// An `#account` frame.
fn account(seq: u32, did: &str) -> Bytes {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        let head = if length < 24 { vec![0x60 + length] } else { vec![0x78, length] };
        [&head, text.as_bytes()].concat()
    };
    let mut frame = vec![0xa2];
    frame.extend([&[0x61, b't'][..], &text("#account"), &[0x62, b'o', b'p', 0x01]].concat());
    frame.push(0xa4);
    frame.extend([&[0x63][..], b"did", &text(did)].concat());
    frame.extend([&[0x63][..], b"seq", &[0x1a], &seq.to_be_bytes()].concat());
    frame.extend([&[0x64][..], b"time", &text("2026-07-04T14:38:08.999Z")].concat());
    frame.extend([&[0x66][..], b"active", &[0xf5]].concat());
    Bytes::from(frame)
}

impl Rig {
    /// Has a worker of ours in both groups.
    async fn crew(&self) {
        for stream in [STREAM, BULK] {
            let _: () = self.client.xgroup_create(stream, GROUP, "0", true).await.unwrap();
            let _: u64 = self.client.xgroup_createconsumer(stream, GROUP, "w-0").await.unwrap();
        }
        self.lives("1000000").await;
    }

    async fn lives(&self, millis: &str) {
        let valid = fred::types::Expiration::PX(millis.parse().unwrap());
        let _: () = self.client.set("firehose:consumer:w-0:alive", "p", Some(valid), None, false).await.unwrap();
    }

    async fn seen(&self, stream: &str) -> Vec<Seen> {
        let found: Vec<(String, HashMap<String, String>)> = self.client.xrange(stream, "-", "+", None).await.unwrap();
        let of = |(id, fields): (String, HashMap<String, String>)| {
            let data: serde_json::Value = serde_json::from_str(&fields["data"]).unwrap();
            let did = data["did"].as_str().unwrap_or_default().to_owned();
            (id.parse().unwrap(), fields["seq"].parse().unwrap_or_default(), did)
        };
        found.into_iter().map(of).collect()
    }

    async fn last_id(&self, stream: &str) -> StreamId {
        let of: HashMap<String, Value> = self.client.xinfo_stream(stream, false, None).await.unwrap();
        of["last-generated-id"].as_string().unwrap().parse().unwrap()
    }
}

/// Waits until it is known who reads, and the source is written.
async fn begun(rig: &Rig, running: &Running, feed: &UnboundedSender<Bytes>) {
    feed.send(account(BASE + 1, "did:plc:first")).unwrap();
    rig.reaches(u64::from(BASE) + 1).await;
    eventually("a look", async || running.count("penstock_ingest_holding_groups ") > 0).await;
}

/// Sends so many events of the loud repo, and between them those of as many others as there are tens; returns the last number.
fn send(feed: &UnboundedSender<Bytes>, from: u32, loud: u32) -> u32 {
    let mut seq = from;
    for event in 0..loud {
        feed.send(account(seq, "did:plc:loud")).unwrap();
        seq += 1;
        if event % 10 == 0 {
            feed.send(account(seq, &format!("did:plc:other{seq}"))).unwrap();
            seq += 1;
        }
    }
    seq - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_its_rate_goes_to_the_second_stream_and_ids_order_both() {
    let (address, feed) = fed().await;
    let mut rig = Rig::new(address).await;
    rig.set("ingest.repoEvents", "50");
    rig.set("ingest.batchEvents", "17");
    rig.crew().await;
    let running = rig.start();
    begun(&rig, &running, &feed).await;
    let last = send(&feed, BASE + 2, 300);
    rig.reaches(last.into()).await;
    // Another program puts something into the first stream; and by the clock of some Redis before, that was tomorrow.
    let tomorrow = StreamId { ms: rig.last_id(STREAM).await.ms + 86_400_000, seq: 7 };
    let again = vec![("type", "account"), ("data", r#"{"did":"x"}"#), ("seq", "1"), ("origId", "1-0")];
    let replayed: String = rig.client.xadd(STREAM, false, None, "*", again.clone()).await.unwrap();
    assert!(replayed.parse::<StreamId>().unwrap() > rig.last_id(BULK).await, "it got an ID of its own");
    let _: String = rig.client.xadd(STREAM, false, None, tomorrow.to_string(), again).await.unwrap();
    let last = send(&feed, last + 1, 100);
    rig.reaches(last.into()).await;

    let is_put = |seen: &Seen| seen.2 != "x";
    let first: Vec<Seen> = rig.seen(STREAM).await.into_iter().filter(is_put).collect();
    let second = rig.seen(BULK).await;
    assert!(second.iter().all(|(_, _, did)| did == "did:plc:loud"));
    let loud = first.iter().filter(|(_, _, did)| did == "did:plc:loud").count();
    assert!((50..60).contains(&loud), "{loud} were within the rate");
    assert_eq!(running.count("penstock_ingest_bulk_entries_total "), 400 - loud as u64);
    let mut both: Vec<&Seen> = first.iter().chain(&second).collect();
    both.sort_by_key(|(id, ..)| *id);
    assert!(both.windows(2).all(|pair| pair[0].0 < pair[1].0), "no ID twice");
    let numbers: Vec<u64> = both.iter().map(|(_, seq, _)| *seq).collect();
    assert_eq!(numbers, (u64::from(BASE) + 1..=u64::from(last)).collect::<Vec<_>>(), "each event once, in order");
    let newest = both.last().unwrap().0;
    assert!(newest > tomorrow && rig.last_id(STREAM).await >= rig.last_id(BULK).await);
    assert_eq!(rig.state("newest").await.unwrap(), newest.to_string());
    assert_eq!(rig.state("bulk").await.unwrap(), newest.to_string());
    running.stop().await;
    // Whoever begins anew finds nothing of another program.
    let (address, feed) = fed().await;
    rig.set("relay.urls", &format!("ws://{address}"));
    let running = rig.start();
    feed.send(account(last, "did:plc:loud")).unwrap();
    feed.send(account(last + 1, "did:plc:late")).unwrap();
    rig.reaches(u64::from(last) + 1).await;
    assert_eq!(running.count("penstock_ingest_publishes_refused_total"), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_reads_the_first_stream_alone_all_goes_there() {
    let (address, feed) = fed().await;
    let mut rig = Rig::new(address).await;
    rig.set("ingest.repoEvents", "5");
    rig.crew().await;
    // The one look at the start finds nobody else: the batch's script finds out by itself.
    rig.set("ingest.trimInterval", "1m");
    let running = rig.start();
    begun(&rig, &running, &feed).await;
    let mut last = send(&feed, BASE + 2, 20);
    rig.reaches(last.into()).await;
    let before = rig.seen(BULK).await.len();
    assert_eq!(before, 15);
    let _: () = rig.client.xgroup_create(STREAM, "osprey-consumers", "$", false).await.unwrap();
    last = send(&feed, last + 1, 20);
    rig.reaches(last.into()).await;
    assert_eq!(rig.seen(BULK).await.len(), before);
    running.stop().await;
    assert_eq!(rig.seen(STREAM).await.len() + before, (last - BASE) as usize);

    // Looked for each time, it is shown.
    rig.set("ingest.trimInterval", "20ms");
    for (who, group, consumer) in
        [("a group", "osprey-consumers", None), ("a consumer of ours", GROUP, Some("python-worker-0"))]
    {
        let (address, feed) = fed().await;
        rig.set("relay.urls", &format!("ws://{address}"));
        let running = rig.start();
        if let Some(consumer) = consumer {
            let _: u64 = rig.client.xgroup_destroy(STREAM, "osprey-consumers").await.unwrap();
            let _: Value = rig.client.xreadgroup(group, consumer, Some(1), None, false, STREAM, ">").await.unwrap();
        }
        eventually(who, async || running.count("penstock_ingest_bulk_closed ") == 1).await;
        let length = rig.seen(STREAM).await.len();
        send(&feed, 2 * BASE, 20);
        eventually("all of it", async || rig.seen(STREAM).await.len() == length + 22).await;
        assert_eq!(rig.seen(BULK).await.len(), before, "{who}");
        running.stop().await;
    }
    // Nobody who reads the second stream lives.
    let _: u64 = rig.client.xgroup_delconsumer(STREAM, GROUP, "python-worker-0").await.unwrap();
    rig.lives("1").await;
    let (address, feed) = fed().await;
    rig.set("relay.urls", &format!("ws://{address}"));
    let running = rig.start();
    eventually("a look", async || running.count("penstock_ingest_holding_groups ") > 0).await;
    let length = rig.seen(STREAM).await.len();
    send(&feed, 2 * BASE, 20);
    eventually("all of it", async || rig.seen(STREAM).await.len() == length + 22).await;
    assert_eq!(rig.seen(BULK).await.len(), before);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_stream_counts_for_the_watermark_and_is_trimmed() {
    let (address, _feed) = fed().await;
    let mut rig = Rig::new(address).await;
    rig.set("redis.maxStreamLen", "100");
    rig.crew().await;
    for number in 0..90 {
        let fields = vec![("type", "account"), ("data", "{}"), ("seq", "1")];
        let _: String = rig.client.xadd(BULK, false, None, format!("{}-0", number + 1), fields).await.unwrap();
    }
    let running = rig.start();
    eventually("a pause", async || running.count("penstock_ingest_paused ") == 1).await;
    assert_eq!(running.count("penstock_ingest_bulk_stream_length "), 90);
    let _: Value = rig.client.xreadgroup(GROUP, "w-0", Some(100), None, false, BULK, ">").await.unwrap();
    for number in 0..90 {
        if number != 60 {
            let _: u64 = rig.client.xack(BULK, GROUP, format!("{}-0", number + 1)).await.unwrap();
        }
    }
    eventually("its end", async || running.count("penstock_ingest_paused ") == 0).await;
    eventually("the trim", async || rig.client.xlen::<u64, _>(BULK).await.unwrap() == 30).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_in_the_second_stream_goes_to_the_first() {
    let rig = Rig::with(TestRedis::start().await.unwrap(), "ws://127.0.0.1:1").await;
    rig.crew().await;
    for number in 1..=9 {
        let (id, seq) = (format!("{number}-0"), (100 + number).to_string());
        let fields = vec![("type", "account"), ("data", r#"{"did":"d"}"#), ("seq", &*seq), ("traceparent", "00-a")];
        let _: String = rig.client.xadd(BULK, false, None, id, fields).await.unwrap();
    }
    let _: Value = rig.client.xreadgroup(GROUP, "w-0", Some(5), None, false, BULK, ">").await.unwrap();
    for settled in ["1-0", "3-0"] {
        let _: u64 = rig.client.xack(BULK, GROUP, settled).await.unwrap();
    }
    let unload = async |token: &str| {
        let keys = ["firehose:ingest:lease", BULK, STREAM, "firehose:ingest:state"].map(str::to_owned).to_vec();
        let arguments = [token, GROUP, "4", "1000000"].map(str::to_owned).to_vec();
        rig.client.eval::<(u64, String), _, _, _>(crate::scripts::UNLOAD, keys, arguments).await.unwrap()
    };
    assert_eq!(unload("t").await, (0, "0".to_owned()), "the lease is not ours");
    let _: () = rig.client.set("firehose:ingest:lease", "t", None, None, false).await.unwrap();
    assert_eq!(unload("t").await, (4, "1".to_owned()));
    assert_eq!(unload("t").await, (3, "0".to_owned()));
    let found: Vec<(String, Vec<(String, String)>)> = rig.client.xrange(STREAM, "-", "+", None).await.unwrap();
    let fields: Vec<Vec<&str>> =
        found.iter().map(|(_, fields)| fields.iter().map(|(_, value)| value.as_str()).collect()).collect();
    let expected = ["2", "4", "5", "6", "7", "8", "9"].map(|n| {
        vec!["account".to_owned(), r#"{"did":"d"}"#.to_owned(), format!("10{n}"), "00-a".to_owned(), format!("{n}-0")]
    });
    assert_eq!(fields, expected);
    assert_eq!(rig.client.xlen::<u64, _>(BULK).await.unwrap(), 0);
    let pending: Value = rig.client.xpending(BULK, GROUP, ()).await.unwrap();
    assert_eq!(pending.into_array()[0].as_u64(), Some(0));
    // They bound what is settled as they did where they stood.
    let noted = [rig.state("requeued").await, rig.state("requeuedSeq").await, rig.state("requeuedOrder").await];
    assert_eq!(noted.map(Option::unwrap), [found[6].0.clone(), "102".to_owned(), "2-0".to_owned()]);
}
