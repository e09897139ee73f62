//! The heads of all dead letters, of Redis and of PostgreSQL: what the list, its groups and its filters are made of.
//!
//! It is kept, and asked for anew when somebody looks: of Redis only what came since, unless letters have gone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::types::Value;
use penstock_core::dead_letter::Author;
use penstock_core::script;
use penstock_core::settings::Settings;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Mutex;

use super::head::{DATA_LOOK, ERROR_LOOK, Head, Source, Wanted};
use super::kept::MOST_KEPT;
use super::{AUTHORS, DeadLetters, MOST_BYTES, text};
use crate::events::Events;
use crate::stored::Stored;

/// For how long what was read is taken as it is.
const FRESH: Duration = Duration::from_secs(1);

/// For how long what PostgreSQL said is taken as it is.
const FRESH_KEPT: Duration = Duration::from_secs(5);

/// How many letters one script reads.
const AT_ONCE: i64 = 500;

/// How many heads of either author are kept at most.
const MOST_HEADS: usize = 50_000;

/// How many groups are told.
const MOST_GROUPS: usize = 200;

/// What is known of PostgreSQL's letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "KeptDeadLetters")]
pub(crate) enum KeptState {
    /// They are among the letters.
    Listed,
    /// The dashboard has no address of PostgreSQL.
    NotUsed,
    /// PostgreSQL does not answer, or was not migrated to this version.
    Unavailable,
}

/// All letters, as they were at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// The newest first.
    pub(crate) heads: Vec<Head>,
    /// Whether there are no others.
    pub(crate) complete: bool,
    pub(crate) postgres: KeptState,
}

/// Letters that failed for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterGroup")]
pub(crate) struct Group {
    /// The reason without what differs from letter to letter.
    pub(crate) reason: String,
    /// The error of the newest of them, as it is.
    pub(crate) example: String,
    pub(crate) count: u64,
    /// How many of them only PostgreSQL has.
    pub(crate) only_in_postgres: u64,
    /// How many of them are events of the stream.
    pub(crate) replayable: u64,
    /// When the first of them was added, epoch milliseconds.
    pub(crate) first: u64,
    /// When the last of them was added, epoch milliseconds.
    pub(crate) last: u64,
    /// Their types.
    pub(crate) types: BTreeSet<String>,
    /// How many repos they are of.
    pub(crate) repos: u64,
}

/// What was read last.
#[derive(Debug, Default)]
pub(crate) struct IndexCache(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    /// Of each author, the oldest first.
    redis: [Vec<Head>; 2],
    kept: Option<(Instant, Result<Vec<Head>, ()>)>,
    index: Option<(Instant, Arc<Index>)>,
    /// How long the last look took: many letters are looked at less often.
    took: Duration,
}

// === impl IndexCache ===

impl IndexCache {
    /// Returns all letters as they were within the last second.
    pub(crate) async fn look(
        &self,
        client: &Client,
        settings: &Settings,
        stored: Option<&Stored>,
        events: &Events,
    ) -> Result<Arc<Index>, Error> {
        // Whoever comes meanwhile waits for the same answer.
        let mut cache = self.0.lock().await;
        let now = Instant::now();
        if let Some((at, index)) = &cache.index
            && now.duration_since(*at) < FRESH.max(cache.took * 5)
        {
            return Ok(Arc::clone(index));
        }
        let letters = DeadLetters::new(client, settings);
        for (author, heads) in AUTHORS.into_iter().zip(&mut cache.redis) {
            letters.heads(author, heads).await?;
        }
        let old = cache.kept.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= FRESH_KEPT);
        if let (true, Some(stored)) = (old, stored) {
            let kept = stored.letters().await.map_err(|error| events.postgres_refused("dead letters", &error));
            cache.kept = Some((now, kept));
        }
        let index = Arc::new(cache.join());
        (cache.index, cache.took) = (Some((now, Arc::clone(&index))), now.elapsed());
        Ok(index)
    }

    /// Has the next look be a new one, as letters were changed.
    pub(crate) async fn forget(&self) {
        let mut cache = self.0.lock().await;
        (cache.kept, cache.index) = (None, None);
    }
}

// === impl Cache ===

impl Cache {
    fn join(&self) -> Index {
        let mut heads: Vec<Head> = self.redis.iter().flatten().cloned().collect();
        let mut complete = self.redis.iter().all(|heads| heads.len() < MOST_HEADS);
        let postgres = match &self.kept {
            None => KeptState::NotUsed,
            Some((_, Err(()))) => KeptState::Unavailable,
            Some((_, Ok(kept))) => {
                let here: HashSet<_> = heads.iter().map(Head::identity).collect();
                let more: Vec<Head> =
                    kept.iter().take(MOST_KEPT).filter(|head| !here.contains(&head.identity())).cloned().collect();
                complete &= kept.len() <= MOST_KEPT;
                heads.extend(more);
                KeptState::Listed
            }
        };
        heads.sort_by(|one, other| one.order().cmp(&other.order()));
        Index { heads, complete, postgres }
    }
}

// === impl Index ===

impl Index {
    /// Returns the letters that are wanted, the newest first.
    pub(crate) fn matching<'i>(&'i self, wanted: &'i Wanted) -> impl Iterator<Item = &'i Head> {
        self.heads.iter().filter(|head| wanted.lets_through(head))
    }

    /// Returns the letters that are wanted by their reasons, the reason of most first; and how many reasons there are.
    pub(crate) fn groups(&self, wanted: &Wanted) -> (Vec<Group>, usize) {
        let mut groups: BTreeMap<&str, (Group, HashSet<&str>)> = BTreeMap::new();
        for head in self.matching(wanted) {
            let (group, repos) = groups.entry(&head.reason).or_insert_with(|| (Group::of(head), HashSet::new()));
            group.count += 1;
            group.only_in_postgres += u64::from(head.source == Source::Postgres);
            group.replayable += u64::from(head.replayable);
            group.first = group.first.min(head.at);
            group.last = group.last.max(head.at);
            if !group.types.contains(&head.kind) {
                group.types.insert(head.kind.clone());
            }
            if let Some(repo) = &head.repo {
                repos.insert(repo);
            }
        }
        let all = groups.len();
        let of = |(group, repos): (Group, HashSet<&str>)| Group { repos: repos.len() as u64, ..group };
        let mut groups: Vec<Group> = groups.into_values().map(of).collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.count), std::cmp::Reverse(group.last)));
        groups.truncate(MOST_GROUPS);
        (groups, all)
    }
}

// === impl Group ===

impl Group {
    /// One without letters, whose newest this is.
    fn of(head: &Head) -> Self {
        Self {
            reason: head.reason.clone(),
            example: head.error.clone(),
            count: 0,
            only_in_postgres: 0,
            replayable: 0,
            first: head.at,
            last: head.at,
            types: BTreeSet::new(),
            repos: 0,
        }
    }
}

// === impl DeadLetters ===

impl DeadLetters<'_> {
    /// Brings the heads of an author's letters up to date: what came is read, and all of them where some have gone.
    async fn heads(&self, author: Author, heads: &mut Vec<Head>) -> Result<(), Error> {
        let from = heads.last().map_or_else(|| "-".to_owned(), |head| format!("({}", head.id));
        let length = self.read_heads(author, from, heads).await?;
        if heads.len() as u64 != length {
            heads.clear();
            self.read_heads(author, "-".to_owned(), heads).await?;
        }
        Ok(())
    }

    /// Adds the heads from an ID on, and returns how many letters there are in all.
    async fn read_heads(&self, author: Author, mut from: String, heads: &mut Vec<Head>) -> Result<u64, Error> {
        loop {
            let arguments = vec![
                from.clone().into(),
                AT_ONCE.into(),
                MOST_BYTES.into(),
                (DATA_LOOK as i64).into(),
                // A letter of four bytes may begin at the last.
                (ERROR_LOOK as i64 + 4).into(),
            ];
            let read = script::run(&self.client, include_str!("heads.lua"), vec![self.key(author)], arguments);
            let (some, next, length): (Vec<Value>, String, u64) = self.in_time(read).await?;
            heads.extend(some.into_iter().filter_map(read_head));
            if next.is_empty() || heads.len() >= MOST_HEADS {
                heads.truncate(MOST_HEADS);
                return Ok(length);
            }
            from = next;
        }
    }
}

/// Reads a head as the script tells it: its ID, the length of its data, then its fields.
fn read_head(head: Value) -> Option<Head> {
    let mut parts = head.into_array().into_iter();
    let id = parts.next()?.into_string()?;
    let bytes = parts.next()?.as_u64()?;
    let at = id.split('-').next()?.parse().ok()?;
    let (mut head, mut data) = (Head::new(Source::Redis, id, at, bytes), Vec::new());
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let name = text(name);
        if name == penstock_core::stream::field::DATA {
            data = value.into_bytes().map(|bytes: bytes::Bytes| bytes.to_vec()).unwrap_or_default();
        } else {
            head.set(&name, text(value));
        }
    }
    Some(head.complete(&data))
}
