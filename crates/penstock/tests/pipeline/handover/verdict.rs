//! What came of a run, held against what the relay said.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::{self, Display};

use fred::interfaces::{ListInterface, StreamsInterface};
use fred::types::Value as RedisValue;
use penstock_replay::Settings;
use sqlx::AssertSqlSafe;
use tokio::task::spawn_blocking;

use super::event::{self, Event};
use super::player::{Ledger, TAKEN, Theirs};
use super::reader::{Id, Reader, Witnessed, parse};
use crate::faults::becomes;
use crate::rig::{Group, Rig};

/// How many of something are named.
const NAMED: usize = 6;

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) events: usize,
    /// Events that are nowhere in the stream.
    pub(crate) missing: usize,
    /// Events that ours wrote although they were there.
    pub(crate) doubled: usize,
    /// What is theirs: events that they gave up, that they wrote once more, and that they trimmed before they were read.
    pub(crate) given_up: usize,
    pub(crate) theirs_doubled: usize,
    pub(crate) taken: usize,
    /// Events that ours wrote once more because theirs had ended in the middle of a run that they had begun to repeat.
    pub(crate) finished: usize,
    /// Entries that were put back at the tail.
    pub(crate) requeued: usize,
    /// Rows looked at, and counts.
    pub(crate) rows: usize,
    pub(crate) counts: usize,
    /// Counts that theirs left wrong, all of posts that they had a hand in.
    pub(crate) theirs_miscounted: usize,
    /// What is wrong, in words.
    pub(crate) wrong: Vec<String>,
}

/// Everything that a verdict is made from.
struct Evidence {
    events: Vec<Event>,
    witnessed: Witnessed,
    given_up: BTreeMap<u64, &'static str>,
    /// The numbers of what a worker of theirs began to write, and of what went before a worker read it.
    handled: HashSet<u64>,
    taken: HashSet<u64>,
}

/// A post's counts, and those of the rows.
struct Counts {
    uri: String,
    has_row: bool,
    shown: Vec<i64>,
    counted: Vec<i64>,
}

const COUNTS: &str = "
WITH l AS (SELECT post_uri AS uri, count(*) AS n FROM likes GROUP BY 1),
  r AS (SELECT post_uri AS uri, count(*) AS n FROM reposts GROUP BY 1),
  p AS (SELECT parent_uri AS uri, count(*) AS n FROM posts WHERE parent_uri IS NOT NULL GROUP BY 1),
  q AS (SELECT quoted_uri AS uri, count(*) AS n FROM quotes GROUP BY 1)
SELECT posts.uri, a.post_uri IS NOT NULL AS has_row,
  ARRAY[coalesce(a.like_count, 0), coalesce(a.repost_count, 0), coalesce(a.reply_count, 0), coalesce(a.quote_count, 0)]::int8[]
    AS shown,
  ARRAY[coalesce(l.n, 0), coalesce(r.n, 0), coalesce(p.n, 0), coalesce(q.n, 0)] AS counted
FROM posts LEFT JOIN post_aggregations AS a ON a.post_uri = posts.uri
  LEFT JOIN l ON l.uri = posts.uri LEFT JOIN r ON r.uri = posts.uri
  LEFT JOIN p ON p.uri = posts.uri LEFT JOIN q ON q.uri = posts.uri";

/// Lets workers of ours settle what there is, ends them, and compares it with what the relay said, up to our cursor at least.
pub(crate) async fn judge(
    rig: &Rig,
    theirs: &Theirs,
    reader: &Reader,
    settings: Settings,
    cursor: u64,
    end: impl AsyncFnOnce(),
) -> Verdict {
    let mut verdict = Verdict::default();
    let settled = becomes(async || {
        let last = rig.last_id().await;
        rig.group().await == Some(Group { delivered: last.clone(), pending: 0 }) && reader.last() == Some(parse(&last))
    });
    if !settled.await {
        let (group, last) = (rig.group().await, rig.last_id().await);
        verdict
            .wrong
            .push(format!("not settled: {group:?}, the last entry is {last}, the reader's {:?}", reader.last()));
    }
    if !becomes(async || rig.unswept().await == 0).await {
        verdict.wrong.push("rows of deleted accounts are not swept".to_owned());
    }
    end().await;
    let witnessed = reader.seen().clone();
    let stream: HashMap<String, RedisValue> = rig.client.xinfo_stream(rig.keys.stream(), false, None).await.unwrap();
    if stream["entries-added"].as_u64() != Some(witnessed.len() as u64) {
        let added = stream["entries-added"].as_u64();
        verdict.wrong.push(format!("{added:?} entries were added, the reader was given {}", witnessed.len()));
    }
    let last = witnessed.values().filter_map(|seen| seen.seq).max().unwrap_or_default();
    let to = cursor.max(last);
    let taken: Vec<String> = rig.client.lrange(TAKEN, 0, -1).await.unwrap();
    let Ledger { given_up, handled } = std::mem::take(&mut *theirs.ledger.lock().unwrap());
    let evidence = spawn_blocking(move || Evidence::new(&settings, to, witnessed, given_up, &handled, &taken));
    let evidence = evidence.await.unwrap();
    verdict.compare_stream(&evidence);
    verdict.compare_rows(rig, &evidence).await;
    verdict.compare_counts(rig, &evidence).await;
    verdict
}

// === impl Evidence ===

impl Evidence {
    fn new(
        settings: &Settings,
        to: u64,
        witnessed: Witnessed,
        given_up: BTreeMap<u64, &'static str>,
        handled: &BTreeSet<String>,
        taken: &[String],
    ) -> Self {
        // Theirs began with what was live.
        let from = witnessed.values().filter_map(|seen| seen.seq).min().unwrap_or_default();
        let events = event::said(settings, from, to);
        let unnumbered = by_data(&events);
        let number = |id: Id| {
            let seen = witnessed.get(&id)?;
            seen.seq.or_else(|| unnumbered.get(seen.data.as_deref()?).copied())
        };
        let handled = handled.iter().filter_map(|id| number(parse(id))).collect();
        let mut gone = HashSet::new();
        for taken in taken {
            match taken.split_once(' ') {
                // What lay between what the group was given last and the new first entry.
                Some((given, first)) => {
                    let (given, first) = (parse(given), parse(first));
                    if given < first {
                        let unread = witnessed.range(given..first).map(|(id, _)| *id).filter(|id| *id != given);
                        gone.extend(unread.filter_map(number));
                    }
                }
                None => gone.extend(number(parse(taken))),
            }
        }
        Self { events, witnessed, given_up, handled, taken: gone }
    }

    /// Posts of which a worker of theirs may have changed the counts, or should have.
    fn touched(&self) -> HashSet<&str> {
        let mut points = HashMap::<&str, Vec<&str>>::new();
        for op in self.events.iter().flat_map(|event| &event.ops) {
            points.entry(&op.uri).or_default().extend(op.points.iter().map(String::as_str));
        }
        let theirs = self.events.iter().filter(|event| self.is_theirs(event.seq));
        theirs
            .flat_map(|event| &event.ops)
            .flat_map(|op| points[op.uri.as_str()].iter().copied().chain([op.uri.as_str()]))
            .collect()
    }

    fn is_theirs(&self, seq: u64) -> bool {
        self.handled.contains(&seq) || self.taken.contains(&seq)
    }

    /// The events that had to do with a post or its counts.
    fn about(&self, uri: &str) -> Vec<u64> {
        let about =
            |event: &&Event| event.ops.iter().any(|op| op.uri == uri || op.points.iter().any(|post| post == uri));
        self.events.iter().filter(about).map(|event| event.seq).collect()
    }

    fn taken_post(&self, uri: &str) -> bool {
        let of_post = |event: &&Event| event.ops.iter().any(|op| op.uri == uri);
        self.events.iter().filter(of_post).any(|event| self.taken.contains(&event.seq))
    }
}

/// Numbers of what the TypeScript ingestion does not number.
fn by_data(events: &[Event]) -> HashMap<&str, u64> {
    events.iter().filter_map(|event| Some((event.unnumbered.as_deref()?, event.seq))).collect()
}

// === impl Verdict ===

impl Verdict {
    fn compare_stream(&mut self, evidence: &Evidence) {
        let (mut there, mut data, mut doubled) = (HashSet::new(), HashSet::new(), Vec::new());
        let mut repeating = None;
        for (id, seen) in &evidence.witnessed {
            if seen.again {
                self.requeued += 1;
                continue;
            }
            data.extend(seen.data.as_deref());
            let Some(seq) = seen.seq else { continue };
            let again = !there.insert(seq);
            match (seen.ours, again) {
                (true, true) if repeating.is_some_and(|at| seq > at) => self.finished += 1,
                (true, true) => doubled.push(format!("{seq} at {}-{}", id.0, id.1)),
                (false, true) => self.theirs_doubled += 1,
                (_, false) => {}
            }
            // At a takeover the newest number counts, also where it is not the greatest.
            repeating = match (seen.ours, again) {
                (false, true) => Some(seq),
                (true, true) => repeating.map(|_| seq),
                (_, false) => None,
            };
        }
        let mut missing = Vec::new();
        for event in &evidence.events {
            let unnumbered = event.unnumbered.as_deref().is_some_and(|unnumbered| data.contains(unnumbered));
            if there.contains(&event.seq) || unnumbered || !event.makes_entry {
                continue;
            }
            if evidence.given_up.contains_key(&event.seq) {
                self.given_up += 1;
            } else {
                missing.push(event.seq);
            }
        }
        self.events = evidence.events.len();
        (self.missing, self.doubled) = (missing.len(), doubled.len());
        self.taken = evidence.taken.len();
        self.tell("events are missing from the stream", &missing);
        self.tell("events were written by ours although they were there", &doubled);
    }

    async fn compare_rows(&mut self, rig: &Rig, evidence: &Evidence) {
        let mut rows = HashSet::new();
        for table in event::TABLES {
            let uris = format!("SELECT uri FROM {table}");
            let uris: Vec<String> = sqlx::query_scalar(AssertSqlSafe(uris)).fetch_all(&rig.pool).await.unwrap();
            rows.extend(uris);
        }
        let outcomes = event::outcomes(&evidence.events);
        let (mut missing, mut back) = (Vec::new(), Vec::new());
        for (uri, outcome) in &outcomes {
            let gone =
                outcome.seqs.iter().any(|seq| evidence.taken.contains(seq) || evidence.given_up.contains_key(seq));
            let theirs = outcome.seqs.iter().any(|seq| evidence.is_theirs(*seq));
            self.rows += 1;
            if outcome.stands && !gone && !rows.contains(*uri) {
                missing.push(format!("{uri} of {:?}{}", outcome.seqs, if theirs { ", by theirs" } else { "" }));
            } else if outcome.deleted && !gone && !theirs && rows.contains(*uri) {
                back.push(format!("{uri} of {:?}", outcome.seqs));
            }
        }
        self.tell("records have no row", &missing);
        self.tell("deleted records have a row", &back);
    }

    async fn compare_counts(&mut self, rig: &Rig, evidence: &Evidence) {
        let touched = evidence.touched();
        let found = Counts::all(rig).await;
        self.counts = found.len();
        let (mut bare, mut wrong) = (Vec::new(), Vec::new());
        for post in &found {
            if !post.has_row && !evidence.taken_post(&post.uri) {
                let theirs = if touched.contains(post.uri.as_str()) { ", theirs had a hand in it" } else { "" };
                bare.push(format!("{post}, of {:?}{theirs}", evidence.about(&post.uri)));
            }
            if post.shown != post.counted {
                if touched.contains(post.uri.as_str()) {
                    self.theirs_miscounted += 1;
                } else {
                    wrong.push(format!("{post}, of {:?}", evidence.about(&post.uri)));
                }
            }
        }
        self.tell("posts have no row of counts", &bare);
        self.tell("posts that only ours had a hand in have wrong counts", &wrong);
        let done = rig.run(&["migrate", "--recount"]).await;
        if !done.status.success() {
            self.wrong.push(format!("migrate --recount: {}", String::from_utf8_lossy(&done.stderr)));
        }
        let found = Counts::all(rig).await;
        let wrong = found.iter().filter(|post| !post.has_row || post.shown != post.counted);
        let wrong: Vec<_> = wrong.map(ToString::to_string).collect();
        self.tell("posts have wrong counts after the recount", &wrong);
    }

    fn tell<T: Display>(&mut self, what: &str, found: &[T]) {
        if !found.is_empty() {
            let named: Vec<_> = found.iter().take(NAMED).map(ToString::to_string).collect();
            self.wrong.push(format!("{} {what}: {}", found.len(), named.join("; ")));
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} events: {} missing, {} doubled by ours; by theirs {} given up, {} doubled, {} of which finished by ours, {} trimmed unread; \
             {} put back; {} records and the counts of {} posts compared, {} of them counted wrongly by theirs",
            if self.wrong.is_empty() { "PASS" } else { "FAIL" },
            self.events,
            self.missing,
            self.doubled,
            self.given_up,
            self.theirs_doubled + self.finished,
            self.finished,
            self.taken,
            self.requeued,
            self.rows,
            self.counts,
            self.theirs_miscounted,
        )?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}

// === impl Counts ===

impl Counts {
    async fn all(rig: &Rig) -> Vec<Self> {
        let found: Vec<(String, bool, Vec<i64>, Vec<i64>)> = sqlx::query_as(COUNTS).fetch_all(&rig.pool).await.unwrap();
        found.into_iter().map(|(uri, has_row, shown, counted)| Self { uri, has_row, shown, counted }).collect()
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shows {:?}, has {:?}", self.uri, self.shown, self.counted)?;
        if self.has_row { Ok(()) } else { write!(f, ", no row") }
    }
}
