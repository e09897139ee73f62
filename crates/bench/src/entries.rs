//! Entries as ingest writes them: the same script, batches of the same size, but made ahead and pipelined without a pause.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use penstock_core::data::{Action, CommitWriter, EventKind};
use penstock_core::keys::Keys;
use penstock_wire::{Frame, Limits};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::error::Error;

/// How many entries a batch has, as `ingest.batchEvents` has it.
const BATCH: usize = 500;

/// The lease's time in the script: longer than any measurement.
const LEASE_MS: &str = "3600000";

const TOKEN: &str = "bench";

/// As there, where a batch has no dead letters.
const SCRIPT: &str = concat!(
    include_str!("../../core/src/ids.lua"),
    include_str!("../../ingest/src/scripts/beyond.lua"),
    include_str!("../../ingest/src/scripts/publish.lua")
);

/// Everything to be written, as the bytes that go over the socket.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    batches: Vec<Vec<u8>>,
    open: Vec<(EventKind, Vec<u8>, u64)>,
    fence: Option<u64>,
    /// How many there are.
    pub(crate) count: u64,
    /// How many changes of records they hold.
    pub(crate) ops: u64,
    /// The bytes of their data.
    pub(crate) bytes: u64,
    /// The sequence number of the last event, whether it makes an entry or not.
    pub(crate) last_seq: u64,
}

// === impl Entries ===

impl Entries {
    /// The entries of a replay.
    pub(crate) fn of_replay(replay: &penstock_replay::Settings, keys: &Keys) -> Result<Self, Error> {
        let (mut entries, limits) = (Self::default(), Limits::default());
        for frame in penstock_replay::frames(replay)? {
            match penstock_wire::decode(&frame, &limits)? {
                Frame::Event(event) => {
                    entries.ops += event.ops as u64;
                    entries.push(event.kind, event.data.to_vec(), event.seq, keys);
                }
                Frame::Sync(sync) => entries.last_seq = sync.seq,
                Frame::Info(_) | Frame::Error(_) | Frame::Ignored(_) => {}
            }
        }
        entries.close(keys);
        Ok(entries)
    }

    /// So many commits of one like each: five of every repo, each of another post.
    pub(crate) fn of_likes(likes: u64, keys: &Keys) -> Self {
        let mut random = StdRng::seed_from_u64(1);
        let mut text = |length: usize| -> String {
            let letter =
                |_| char::from(*b"abcdefghijklmnopqrstuvwxyz234567".get(random.random_range(0..32)).unwrap_or(&b'a'));
            (0..length).map(letter).collect()
        };
        let repos: Vec<String> = (0..likes.div_ceil(5)).map(|_| format!("did:plc:{}", text(24))).collect();
        let mut entries = Self::default();
        for number in 1..=likes {
            let Some(repo) = repos.get(usize::try_from(number).unwrap_or_default() % repos.len().max(1)) else { break };
            let time =
                format!("2026-07-04T14:{:02}:{:02}.{:03}Z", number / 60_000 % 60, number / 1_000 % 60, number % 1_000);
            let record = format!(
                r#"{{"$type":"app.bsky.feed.like","subject":{{"cid":"bafyrei{}","uri":"at://did:plc:{}/app.bsky.feed.post/3l{}"}},"createdAt":"{time}"}}"#,
                text(52),
                text(24),
                text(11),
            );
            let (path, cid) = (format!("app.bsky.feed.like/3l{}", text(11)), format!("bafyrei{}", text(52)));
            let mut data = Vec::with_capacity(768);
            let mut commit = CommitWriter::start(&mut data, repo);
            let written: Result<(), std::convert::Infallible> =
                commit.op_with_record(Action::Create, &path, &cid, |out| {
                    out.extend_from_slice(record.as_bytes());
                    Ok(())
                });
            let Ok(()) = written;
            commit.finish(&format!("3l{}", tid(number)), Some(&time), &format!("bafyrei{}", text(52)), None);
            entries.ops += 1;
            entries.push(EventKind::Commit, data, number, keys);
        }
        entries.close(keys);
        entries
    }

    fn push(&mut self, kind: EventKind, data: Vec<u8>, seq: u64, keys: &Keys) {
        self.bytes += data.len() as u64;
        self.open.push((kind, data, seq));
        self.count += 1;
        self.last_seq = seq;
        if self.open.len() == BATCH {
            self.close(keys);
        }
    }

    /// Ends the open batch.
    fn close(&mut self, keys: &Keys) {
        let Some((_, _, last)) = self.open.last() else { return };
        let last = *last;
        let script = SCRIPT;
        let names = [
            &*keys.ingest_lease(),
            keys.cursor(),
            keys.stream(),
            &*keys.ingest_source(),
            &*keys.ingest_state(),
            &*keys.raw_letters(),
            &*keys.incarnation(),
            keys.bulk(),
        ];
        let fence = self.fence.replace(last).map(|seq| seq.to_string()).unwrap_or_default();
        let (new, entries) = (last.to_string(), self.open.len().to_string());
        // Nothing beside the cursor, no source, place on another host, incarnation or floor; entries of others are looked for
        // as there; no gap, reset or loss; no repo desynchronized.
        let is_plain = self.open.iter().all(|(kind, ..)| *kind == EventKind::Commit);
        let letters = self.open.iter().filter_map(|(kind, ..)| kind.as_str().chars().next());
        let kinds: String = if is_plain { String::new() } else { letters.collect() };
        // Not verified, so that entries say no more.
        let head = [
            TOKEN, LEASE_MS, &fence, &new, "{}", "", "", "", "", "", "", "10000", "0", "0", "0", &entries, "0", "",
            &kinds, "",
        ];
        // Nothing goes to the second stream.
        let tail = ["", ""];
        let words = 3 + names.len() + head.len() + 2 * self.open.len() + tail.len();
        let mut batch = format!("*{words}\r\n").into_bytes();
        word(&mut batch, b"EVAL");
        word(&mut batch, script.as_bytes());
        word(&mut batch, names.len().to_string().as_bytes());
        names.iter().chain(&head).for_each(|text| word(&mut batch, text.as_bytes()));
        for (_, data, seq) in self.open.drain(..) {
            word(&mut batch, &data);
            word(&mut batch, seq.to_string().as_bytes());
        }
        tail.iter().for_each(|text| word(&mut batch, text.as_bytes()));
        self.batches.push(batch);
    }

    /// Writes all of it into an empty Redis, and returns how long that took.
    pub(crate) fn write(&self, port: u16, keys: &Keys) -> Result<Duration, Error> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(Error::Fill)?;
        stream.set_nodelay(true).map_err(Error::Fill)?;
        let answers = BufReader::new(stream.try_clone().map_err(Error::Fill)?);
        let mut lease = b"*3\r\n".to_vec();
        [b"SET".as_slice(), keys.ingest_lease().as_bytes(), TOKEN.as_bytes()]
            .iter()
            .for_each(|text| word(&mut lease, text));
        let started = Instant::now();
        std::thread::scope(|scope| {
            let answers = scope.spawn(|| settle(answers, self.batches.len()));
            stream.write_all(&lease).map_err(Error::Fill)?;
            self.batches.iter().try_for_each(|batch| stream.write_all(batch)).map_err(Error::Fill)?;
            answers.join().unwrap_or_else(|_| Err(Error::Refused("the reader of the answers died".to_owned())))
        })?;
        Ok(started.elapsed())
    }
}

/// Appends a word of a command in the protocol of Redis.
pub(crate) fn word(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Reads answers until every batch was written: each is an array of `ok` and the last ID.
fn settle(mut answers: impl BufRead, batches: usize) -> Result<(), Error> {
    let (mut written, mut line) = (0, String::new());
    while written < batches {
        line.clear();
        if answers.read_line(&mut line).map_err(Error::Fill)? == 0 {
            return Err(Error::Fill(io::ErrorKind::UnexpectedEof.into()));
        }
        match line.trim_end() {
            "ok" => written += 1,
            refused if refused.starts_with('-') || ["lease", "cursor", "incarnation"].contains(&refused) => {
                return Err(Error::Refused(refused.to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes a number as the eleven last characters of a TID, so that greater numbers sort later.
fn tid(number: u64) -> String {
    const DIGITS: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";
    let digit = |place: u32| {
        let five = (number >> (5 * place)) & 31;
        char::from(DIGITS.get(usize::try_from(five).unwrap_or_default()).copied().unwrap_or(b'2'))
    };
    (0..11).rev().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use bytes::Bytes;
    use fred::interfaces::{KeysInterface, StreamsInterface};
    use penstock_core::entry::RawEntry;
    use penstock_core::redis;
    use penstock_core::settings::{Layers, Settings};
    use penstock_local::testing::TestRedis;

    use super::*;

    #[tokio::test]
    async fn likes_are_entries_of_our_dialect_behind_the_fence_of_ingest() {
        let redis_server = TestRedis::start().await.unwrap();
        let settings = Settings::load(&Layers::default().flag("redis.url", redis_server.url())).unwrap();
        let entries = Entries::of_likes(1_203, &settings.keys);
        entries.write(redis_server.port(), &settings.keys).unwrap();
        let client = redis::connect(&settings).await.unwrap();
        let cursor: u64 = client.get(settings.keys.cursor()).await.unwrap();
        assert_eq!((cursor, entries.last_seq, entries.count), (1_203, 1_203, 1_203));
        let found: Vec<(String, HashMap<String, Bytes>)> =
            client.xrange(settings.keys.stream(), "-", "+", None).await.unwrap();
        let mut repos = HashSet::new();
        for (id, fields) in &found {
            let raw =
                RawEntry::from_fields(id.parse().unwrap(), fields.iter().map(|(name, value)| (name, value.clone())));
            let entry = raw.decode().unwrap();
            repos.insert(entry.event.did().to_owned());
        }
        assert_eq!((found.len(), repos.len()), (1_203, 241));
        let again = entries.write(redis_server.port(), &settings.keys).unwrap_err();
        assert!(matches!(again, Error::Refused(why) if why == "cursor"));
    }

    #[test]
    fn greater_numbers_have_greater_tids() {
        let tids: Vec<String> = [1, 31, 32, 1_000, 1 << 40].map(tid).to_vec();
        assert!(tids.is_sorted(), "{tids:?}");
        assert!(tids.iter().all(|tid| tid.len() == 11));
    }
}
