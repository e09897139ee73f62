//! Two that would write: two ingests, or an ingest and the consumer before it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fred::interfaces::{KeysInterface, PubsubInterface};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use penstock_core::keys::CONTROL_RECONNECT;
use penstock_local::testing::TempFolder;
use penstock_replay::{Rate, Settings};
use serde_json::Value;
use tokio::time::sleep;

use crate::audit::Audit;
use crate::frames::{Entry, Recording};
use crate::rig::{Rig, eventually, relay, relay_with, serve};
use crate::service::Service;

/// How soon the other ingest writes, with the default settings.
const TAKEOVER: Duration = Duration::from_secs(10);

/// What an ingest says that no longer holds the lease.
const LOST: &str = "lost the ingest lease";

/// What an ingest says that found the cursor changed.
const FOREIGN: &str = "another program changed the cursor";

/// What an ingest says that found entries of another program.
const CROWDED: &str = "another program is writing to the stream";

/// How many batches an ingest wrote.
const BATCHES: &str = "penstock_ingest_batches_total";

/// How many batches were refused because of the cursor.
const REFUSED: &str = r#"penstock_ingest_publishes_refused_total{reason="cursor"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_other_ingest_takes_over_in_time_and_a_thawed_one_writes_nothing() {
    let settings = Settings { rate: per_second(500), ..Settings::default() };
    let relay = serve(settings.clone()).await;
    let rig = Rig::new().await;
    let mut audit = Audit::new(&settings);
    let first = rig.ingest(&relay);
    eventually("the first ingest writes", async || rig.cursor().await.is_some()).await;
    let second = rig.ingest(&relay);
    second.says("standing by").await;

    let held = rig.lease().await.unwrap();
    let frozen = Instant::now();
    first.signal(Signal::SIGSTOP);
    taken_over(&rig, &held).await;
    let took = frozen.elapsed();
    println!("the holder was frozen: the other wrote after {took:.1?}");
    assert!(took <= TAKEOVER, "it took {took:?} from the freeze to the other's first entry");
    audit.look(&rig).await;

    let held = rig.lease().await.unwrap();
    first.signal(Signal::SIGCONT);
    first.says(LOST).await;
    let written = first.metric(BATCHES).await;
    goes_on(&rig, 1_000).await;
    assert_eq!(first.metric(BATCHES).await, written, "batches written by the one that was frozen");
    assert_eq!(rig.lease().await.as_ref(), Some(&held));
    audit.look(&rig).await;

    let killed = Instant::now();
    second.kill().await;
    taken_over(&rig, &held).await;
    let took = killed.elapsed();
    println!("the holder was killed: the other wrote after {took:.1?}");
    assert!(took <= TAKEOVER, "it took {took:?} from the kill to the other's first entry");
    first.stop().await;
    audit.end(&rig).await;
}

/// Redis' own time decides about the lease, and monotonic clocks about all that is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn steps_of_the_clock_move_neither_lease_nor_events() {
    let Some(library) = faketime() else {
        println!("skipped: libfaketime is not installed; scripts/ensure-tools.sh installs it");
        return;
    };
    let start_time = Some(Timestamp::from_second(Timestamp::now().as_second()).unwrap());
    let settings = Settings { rate: per_second(300), start_time, ..Settings::default() };
    let relay = serve(settings.clone()).await;
    let mut rig = Rig::new().await;
    rig.set("LD_PRELOAD", library.to_str().unwrap());
    rig.set("FAKETIME_NO_CACHE", "1");
    rig.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let folder = TempFolder::new().unwrap();
    let [holders, standbys] = ["holder", "standby"].map(|name| Clock::at(folder.path().join(name)));
    rig.set("FAKETIME_TIMESTAMP_FILE", holders.path());
    let holder = rig.ingest(&relay);
    eventually("the holder writes", async || rig.cursor().await.is_some()).await;
    rig.set("FAKETIME_TIMESTAMP_FILE", standbys.path());
    let standby = rig.ingest(&relay);
    standby.says("standing by").await;
    let held = rig.lease().await;
    let mut audit = Audit::new(&settings);

    for (hours, standbys_hours) in [(1, 0), (-1, 0), (0, 1), (0, -1), (-1, 1), (0, 0)] {
        holders.step(hours);
        standbys.step(standbys_hours);
        goes_on(&rig, 100).await;
        // What a new connection makes of the event times is judged by the clock, too.
        let before = connections(&holder).len();
        eventually("both hear that a new one is wanted", async || {
            let heard: i64 = rig.client.publish(rig.keys.ingest_control(), CONTROL_RECONNECT).await.unwrap();
            heard == 2
        })
        .await;
        eventually("it connects anew", async || connections(&holder).len() > before).await;
        goes_on(&rig, 100).await;
        let told = connections(&holder).pop().unwrap();
        let wrong = told.duration_since(Timestamp::now()).as_secs() - hours * 3600;
        assert!(wrong.abs() < 900, "the holder's clock is {wrong} s from where it was put");
        audit.look(&rig).await;
    }
    assert_eq!(rig.lease().await, held, "the lease's token");
    assert!(!standby.log().contains("acquired the ingest lease"), "the standby held the lease");
    assert!(!holder.log().contains(LOST), "the holder lost the lease");
    for metric in ["penstock_ingest_gaps_total", "penstock_ingest_sequence_resets_total", REFUSED] {
        assert_eq!(holder.metric(metric).await, 0.0, "{metric}");
    }
    holder.stop().await;
    standby.stop().await;
    audit.end(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_writer_of_the_cursor_is_reported_and_not_fought() {
    let relay = serve(Settings { rate: per_second(1_000), ..Settings::default() }).await;
    let rig = Rig::new().await;
    let ingest = rig.ingest(&relay);
    eventually("ingest writes", async || rig.cursor().await > Some(300)).await;
    let mut begins = Vec::new();
    for time in 1..=3 {
        // It has come less far than we have.
        let theirs = rig.cursor().await.unwrap() - 100;
        let () = rig.client.set(rig.keys.cursor(), theirs, None, None, false).await.unwrap();
        eventually("it is counted", async || ingest.metric(REFUSED).await >= f64::from(time)).await;
        begins.push(theirs);
        goes_on(&rig, 300).await;
    }
    ingest.says(FOREIGN).await;
    assert!(!ingest.log().contains(LOST), "it is still the one that writes");
    ingest.stop().await;
    // What stands there is what it goes on from, each time.
    let stream: Vec<u64> = rig.stream().await.into_iter().map(|(_, entry)| entry.seq).collect();
    let went_back = stream.windows(2).filter(|pair| pair[1] <= pair[0]).map(|pair| pair[1]);
    let next = |theirs: &u64| *stream.iter().filter(|seq| *seq > theirs).min().unwrap();
    assert_eq!(went_back.collect::<Vec<_>>(), begins.iter().map(next).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_cursor_key_of_its_own_an_ingest_runs_beside_the_consumer_before_it() {
    let (relay, recording) = relay(3_000).await;
    let mut rig = Rig::new().await;
    rig.set("REDIS_CURSOR_KEY", "penstock:cursor");
    rig.set("PENSTOCK_INGEST_SHARED_STREAM", "true");
    let other = Consumer { rig: &rig, entries: &recording.entries };
    // Both begin where the other is in the midst of its work.
    other.write(0..200).await;
    let ingest = rig.ingest(&relay);
    let cursor = async || rig.client.get::<Option<u64>, _>("penstock:cursor").await.unwrap();
    other.write(200..recording.entries.len()).await;
    eventually("ingest reads everything", async || cursor().await == Some(recording.last)).await;
    assert_eq!(ingest.metric(REFUSED).await, 0.0, "batches refused because of the cursor");
    ingest.stop().await;
    assert_eq!(rig.cursor().await, recording.entries.last().map(|entry| entry.seq), "the other's cursor is its own");
    let mut times = BTreeMap::<u64, usize>::new();
    for (_, entry) in rig.stream().await {
        *times.entry(entry.seq).or_default() += 1;
    }
    assert_eq!(times, recording.entries.iter().map(|entry| (entry.seq, 2)).collect(), "how often which event is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_the_consumer_before_it_an_ingest_waits_until_that_has_ended() {
    let settings = Settings { rate: per_second(500), total: Some(20_000), ..Settings::default() };
    let (relay, Recording { entries: recording, .. }) = relay_with(settings).await;
    let mut rig = Rig::new().await;
    rig.set("PENSTOCK_INGEST_FOREIGN_QUIET", "2s");
    let ingest = rig.ingest(&relay);
    eventually("ingest writes", async || rig.cursor().await > Some(300)).await;
    let other = Consumer { rig: &rig, entries: &recording };
    // It goes on from our cursor, as it does at its start, and writes its own once.
    let cursor = rig.cursor().await.unwrap();
    let from = recording.iter().position(|entry| entry.seq > cursor).unwrap();
    other.set_cursor(from).await;
    let mut at = from;
    while !ingest.log().contains(CROWDED) || at < from + 500 {
        other.put(at).await;
        at += 1;
        sleep(Duration::from_millis(2)).await;
    }
    let last = recording[at - 1].seq;
    let written = ingest.metric(BATCHES).await;
    other.put(at).await;
    assert_eq!(ingest.metric(BATCHES).await, written, "batches written beside it");
    eventually("ingest goes on", async || rig.cursor().await > Some(last + 300)).await;
    ingest.says("the other program stopped writing").await;
    ingest.stop().await;
    let mut times = BTreeMap::<u64, usize>::new();
    for (_, entry) in rig.stream().await {
        *times.entry(entry.seq).or_default() += 1;
    }
    let end = rig.cursor().await.unwrap();
    let expected: Vec<u64> = recording.iter().map(|entry| entry.seq).take_while(|seq| *seq <= end).collect();
    assert!(times.keys().copied().eq(expected), "an event is missing");
    let doubled = times.values().filter(|times| **times > 1).count();
    assert!(doubled < 200, "{doubled} events are doubled, of {} that it wrote", at - from);
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_over_from_the_consumer_before_begins_at_the_newest_entry() {
    let (relay, recording) = relay(3_000).await;
    let rig = Rig::new().await;
    let other = Consumer { rig: &rig, entries: &recording.entries };
    other.write(0..1_000).await;
    // It dies between its cursor and its entries.
    other.set_cursor(1_200).await;
    let ingest = rig.ingest(&relay);
    rig.ingested(recording.last).await;
    ingest.stop().await;
    rig.assert_stream_is(&recording.entries).await;
    let source: String = rig.client.get(rig.keys.ingest_source()).await.unwrap();
    assert!(source.contains("127.0.0.1"), "the cursor now belongs to {source}");
}

/// The consumer before us: it writes the number it has come to every now and then, and the entries up to it afterwards.
struct Consumer<'a> {
    rig: &'a Rig,
    entries: &'a [Entry],
}

/// A wall clock that a process is made to believe in.
struct Clock(PathBuf);

// === impl Consumer ===

impl Consumer<'_> {
    async fn write(&self, range: Range<usize>) {
        for at in range {
            if at % 100 == 0 {
                self.set_cursor((at + 99).min(self.entries.len() - 1)).await;
            }
            self.put(at).await;
        }
    }

    async fn put(&self, at: usize) {
        let Entry { kind, data, seq } = &self.entries[at];
        self.rig.add(kind, &data.to_string(), &seq.to_string()).await;
    }

    async fn set_cursor(&self, at: usize) {
        let () = self.rig.client.set(self.rig.keys.cursor(), self.entries[at].seq, None, None, false).await.unwrap();
    }
}

// === impl Clock ===

impl Clock {
    fn at(path: PathBuf) -> Self {
        let clock = Self(path);
        clock.step(0);
        clock
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Puts it so many hours from the right time.
    fn step(&self, hours: i64) {
        // Never half written.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{hours:+}h\n")).unwrap();
        fs::rename(new, &self.0).unwrap();
    }
}

/// The library that makes a process believe in a clock, where it is installed.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().map(|folder| folder.unwrap().path());
    let folders = folders.chain(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from));
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

/// When, by its own clock, an ingest connected to the relay each time.
fn connections(ingest: &Service) -> Vec<Timestamp> {
    let log = ingest.log();
    let lines = log.lines().filter(|line| line.contains(r#""msg":"connected to the relay""#));
    lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["ts"].as_str().unwrap().parse().unwrap()).collect()
}

/// Waits until another ingest than the holder of this token has written.
async fn taken_over(rig: &Rig, held: &str) {
    eventually("another ingest holds the lease", async || rig.lease().await.is_some_and(|token| token != held)).await;
    let last = rig.last_id().await;
    eventually("it writes", async || rig.last_id().await != last).await;
}

/// Waits until the cursor has moved on by so much.
async fn goes_on(rig: &Rig, by: u64) {
    let from = rig.cursor().await.unwrap();
    eventually("the cursor moves on", async || rig.cursor().await > Some(from + by)).await;
}

fn per_second(rate: u32) -> Rate {
    Rate::PerSecond(rate.try_into().unwrap())
}
