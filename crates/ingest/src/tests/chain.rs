//! The chain of each repo, over losses, restarts and what workers have settled.

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::stream::StreamId;
use penstock_wire::rev_number;
use sqlx::AssertSqlSafe;

use super::lost::TABLES;
use super::*;
use crate::intake::chain::Chain;
use crate::resume::unsettled;

pub(super) const REPOS: &str =
    "CREATE TABLE penstock.repos (did text COLLATE \"C\" PRIMARY KEY, rev text, root bytea);";

/// The recording, and three commits in it that follow each other in one repo.
pub(super) struct Recording {
    pub(super) frames: Vec<Bytes>,
    pub(super) links: [Event; 3],
}

impl Recording {
    pub(super) fn new() -> Self {
        let frames = frames(&replay(583));
        let mut commits: BTreeMap<Box<str>, Vec<Event>> = BTreeMap::new();
        for event in events(&frames).into_iter().filter(|event| event.rev.is_some()) {
            commits.entry(event.did.clone()).or_default().push(event);
        }
        let follows = |pair: &[Event]| pair[1].since == pair[0].rev;
        // A `#sync` between them would tell of what was missed.
        let syncs = syncs(&frames);
        let is_quiet = |run: &[Event]| {
            !syncs.iter().any(|sync| sync.did == run[0].did && (run[0].seq..run[2].seq).contains(&sync.seq))
        };
        let chained = |run: &&[Event]| run.windows(2).all(follows) && is_quiet(run);
        let links = commits.values().flat_map(|commits| commits.windows(3)).find(chained).unwrap();
        Self { links: [0, 1, 2].map(|at| links[at].clone()), frames }
    }

    /// The frames without one of these commits.
    pub(super) fn without(&self, link: usize) -> Vec<Bytes> {
        let seq = self.links[link].seq;
        let is_it = |frame: &Bytes| matches!(penstock_wire::decode(frame, &Limits::default()), Ok(Frame::Event(event)) if event.seq == seq);
        self.frames.iter().filter(|frame| !is_it(frame)).cloned().collect()
    }

    pub(super) fn did(&self) -> &str {
        &self.links[0].did
    }
}

fn syncs(frames: &[Bytes]) -> Vec<penstock_wire::Sync> {
    let limits = Limits { proof: true, ..Limits::default() };
    let sync = |frame: &Bytes| match penstock_wire::decode(frame, &limits) {
        Ok(Frame::Sync(sync)) => Some(sync),
        _ => None,
    };
    frames.iter().filter_map(sync).collect()
}

/// The repos with a `#sync` that says something that the commits before it did not.
fn telling(frames: &[Bytes]) -> BTreeSet<String> {
    let limits = Limits { proof: true, ..Limits::default() };
    let mut last: HashMap<String, (String, [u8; 32])> = HashMap::new();
    let mut telling = BTreeSet::new();
    for frame in frames {
        let (did, rev, proof, is_sync) = match penstock_wire::decode(frame, &limits) {
            Ok(Frame::Event(Event { did, rev: Some(rev), proof: Some(proof), .. })) => (did, rev, proof, false),
            Ok(Frame::Sync(sync)) => (sync.did, sync.rev, sync.proof.unwrap(), true),
            _ => continue,
        };
        let new = (rev.into_string(), proof.data);
        let known = last.entry(did.to_string()).or_insert_with(|| (String::new(), [0; 32]));
        // The same tree under another rev says nothing: its host signed it again.
        if is_sync && new.0 >= known.0 && new.1 != known.1 {
            telling.insert(did.to_string());
        }
        if new.0 >= known.0 {
            *known = new;
        }
    }
    telling
}

/// Which entries carry a mark because of a commit, with the reason: those after a `#sync` carry that of the host.
async fn marked(rig: &Rig) -> BTreeMap<u64, String> {
    let found: Vec<(String, HashMap<String, String>)> =
        rig.client.xrange("firehose:events", "-", "+", None).await.unwrap();
    let mark = |fields: &HashMap<String, String>| Some((fields["seq"].parse().unwrap(), fields.get("sync")?.clone()));
    found.iter().filter_map(|(_, fields)| mark(fields)).filter(|(_, why)| why != "sync").collect()
}

async fn rig(relay: SocketAddr) -> (Rig, PgConnection) {
    let mut rig = Rig::new(relay).await;
    // However slow the machine, no connection is replaced: each serves a part of its own.
    rig.set("relay.dataTimeout", "10m");
    rig.set("ingest.leaseTime", "5m");
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let mut postgres = rig.set_database(&url, TABLES).await;
    sqlx::raw_sql(REPOS).execute(&mut postgres).await.unwrap();
    let _: () = rig.client.set("firehose:incarnation", "here", None, None, false).await.unwrap();
    (rig, postgres)
}

/// Acknowledges everything, as workers that have written it.
pub(super) async fn settle(rig: &Rig) {
    let script = "redis.pcall('XGROUP', 'CREATE', KEYS[1], 'firehose-processors', '$', 'MKSTREAM')
      redis.call('XGROUP', 'SETID', KEYS[1], 'firehose-processors', '$')";
    let _: Option<String> = rig.client.eval(script, vec!["firehose:events"], Vec::<String>::new()).await.unwrap();
}

async fn set_row(postgres: &mut PgConnection, did: &str, rev: &str) {
    let row = format!(
        "INSERT INTO penstock.repos (did, rev) VALUES ('{did}', '{rev}') ON CONFLICT (did) DO UPDATE SET rev = excluded.rev"
    );
    sqlx::raw_sql(AssertSqlSafe(row)).execute(postgres).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repo_that_missed_a_commit_is_marked_and_no_other() {
    let recording = Recording::new();
    let (rig, _postgres) = rig(scripted(vec![(recording.frames.clone(), false)]).await.0).await;
    let running = rig.start();
    rig.reaches(583).await;
    running.stop().await;
    assert_eq!(marked(&rig).await, BTreeMap::new());

    let (rig, _postgres) = self::rig(scripted(vec![(recording.without(1), false)]).await.0).await;
    let running = rig.start();
    rig.reaches(583).await;
    assert_eq!(running.count("penstock_ingest_desynchronized_total{reason=\"since\"}"), 1);
    running.stop().await;
    let third = recording.links[2].seq;
    let marked = marked(&rig).await;
    // Later commits of the repo carry it on until the workers have settled this one.
    let later: BTreeSet<u64> = marked.keys().copied().collect();
    let of_repo: BTreeSet<u64> = events(&recording.frames)
        .into_iter()
        .filter(|event| &*event.did == recording.did() && event.rev.is_some() && event.seq >= third)
        .map(|event| event.seq)
        .collect();
    assert!(later == of_repo && marked.values().all(|why| why == "since"), "{marked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_is_marked_beside_the_entries() {
    let recording = Recording::new();
    // The recording's own say nothing new: without the commit before one, that one does.
    assert_eq!(telling(&recording.frames), BTreeSet::new());
    let commits: Vec<Event> = events(&recording.frames).into_iter().filter(|event| event.rev.is_some()).collect();
    let lost = syncs(&recording.frames).into_iter().find_map(|sync| {
        commits.iter().rev().find(|commit| commit.did == sync.did && commit.seq < sync.seq).map(|commit| commit.seq)
    });
    let is_kept =
        |frame: &&Bytes| events(std::slice::from_ref(*frame)).first().is_none_or(|event| Some(event.seq) != lost);
    let served: Vec<Bytes> = recording.frames.iter().filter(is_kept).cloned().collect();
    let syncs: BTreeSet<String> = telling(&served).iter().map(|did| format!("{did} sync")).collect();
    let (rig, _postgres) = rig(scripted(vec![(served, false)]).await.0).await;
    let running = rig.start();
    rig.reaches(583).await;
    running.stop().await;
    let script = "return redis.call('ZRANGE', KEYS[1], 0, -1)";
    let marks: BTreeSet<String> =
        rig.client.eval(script, vec!["firehose:desynchronized"], Vec::<String>::new()).await.unwrap();
    assert!(syncs.len() == 1 && marks == syncs, "{marks:?} {syncs:?}");
}

/// After a restart the state is that of the stream as far as workers have not settled it, and else that of PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_changes_nothing() {
    let recording = Recording::new();
    let [first, second, third] = &recording.links;
    let at =
        recording.frames.iter().position(|frame| events(std::slice::from_ref(frame)).first() == Some(third)).unwrap();
    for (lost, is_settled, row, is_marked) in [
        // Nothing was missed.
        (None, false, None, false),
        (None, true, second.rev.as_deref(), false),
        // Workers have settled it, and others have written what this ingest never saw.
        (Some(1), true, second.rev.as_deref(), false),
        // The second one never came.
        (Some(1), false, None, true),
        (Some(1), true, first.rev.as_deref(), true),
        // A row from before what the stream holds.
        (None, false, first.rev.as_deref(), false),
        // Nothing is known: it begins here.
        (Some(1), true, None, false),
    ] {
        let served = lost.map_or_else(|| recording.frames.clone(), |link| recording.without(link));
        let cut = at - usize::from(lost.is_some());
        let scripts = vec![(served[..cut].to_vec(), false), (served[cut - 1..].to_vec(), false)];
        let (rig, mut postgres) = rig(scripted(scripts).await.0).await;
        let running = rig.start();
        let before = events(&served[..cut]).last().unwrap().seq;
        eventually("the first part", async || rig.cursor().await.is_some_and(|cursor| cursor >= before)).await;
        running.crash().await;
        let _: u64 = rig.client.del("firehose:ingest:lease").await.unwrap();
        if is_settled {
            settle(&rig).await;
        }
        if let Some(rev) = row {
            assert!(rev_number(rev).is_some());
            set_row(&mut postgres, recording.did(), rev).await;
        }
        let running = rig.start();
        rig.reaches(583).await;
        running.stop().await;
        let marked = marked(&rig).await;
        let case = format!("{lost:?} {is_settled} {row:?}: {marked:?}");
        assert_eq!(marked.contains_key(&third.seq), is_marked, "{case}");
        assert!(marked.keys().all(|seq| is_marked && *seq >= third.seq), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_events_go_on_and_nothing_is_marked_wrongly() {
    let recording = Recording::new();
    let rig = Rig::new(scripted(vec![(recording.frames.clone(), false)]).await.0).await;
    let running = rig.start();
    rig.reaches(583).await;
    assert!(running.count("penstock_ingest_verified_total{result=\"unknown\",reason=\"no_state\"}") > 0);
    running.stop().await;
    assert_eq!(marked(&rig).await, BTreeMap::new());
    rig.holds_exactly(&recording.frames).await;
}

/// A replica that was promoted may lack what was written last: then memory counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_stream_lacks_what_was_written_states_are_read_anew() {
    let recording = Recording::new();
    let rig = Rig::new(scripted(vec![(recording.frames.clone(), false)]).await.0).await;
    let running = rig.start();
    rig.reaches(583).await;
    running.stop().await;
    let keys = load(&rig.settings).keys;
    let did = recording.did();
    let read = async |last: StreamId| {
        let mut chain = Chain::new(1 << 16, false);
        chain.read("did:plc:lost", Some(7), None, None);
        chain.read_through(Some(last));
        chain.drop_in_flight();
        let chain = std::sync::Mutex::new(chain);
        unsettled::read(&rig.client, &keys, &chain).await.unwrap();
        let chain = chain.into_inner().unwrap();
        (chain.is_missing("did:plc:lost"), chain.is_missing(did), chain.to_read())
    };
    let last: StreamId = rig.entries().await.last().unwrap().0.parse().unwrap();
    assert_eq!(read(StreamId { ms: last.ms, seq: last.seq + 1 }).await, (true, false, None));
    assert_eq!(read(last).await, (false, true, None), "nothing is read twice");
    let first: StreamId = rig.entries().await[0].0.parse().unwrap();
    assert_eq!(read(first).await, (false, false, None));
    // Settled entries are not read.
    settle(&rig).await;
    assert_eq!(read(StreamId { ms: last.ms, seq: last.seq + 1 }).await, (true, true, None));
}
