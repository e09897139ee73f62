//! Every Redis name that crosses a process boundary, spelled here and nowhere else.

use std::fmt;

use thiserror::Error;

/// The prefix that lets several pipelines share one Redis; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPrefix(String);

/// A text that cannot be a key prefix.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "a key prefix holds at most 128 printable ASCII characters without spaces, for example bluesky: or {{bluesky}}:"
)]
pub struct KeyPrefixError;

/// The names that a setting may give explicitly: such a name is taken as it is, without the prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `REDIS_STREAM_KEY`.
    pub stream: Option<String>,
    /// `REDIS_CURSOR_KEY`.
    pub cursor: Option<String>,
    /// `REDIS_CONSUMER_GROUP`.
    pub group: Option<String>,
}

/// The resolved names of one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: KeyPrefix,
    stream: String,
    bulk: String,
    cursor: String,
    group: String,
}

/// Who wrote dead letters: each has a place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Entries that workers gave up.
    Worker,
    /// Frames, and entries that nobody ever acknowledged.
    Ingest,
}

/// The group of our workers, and of those they replace.
pub const GROUP: &str = "firehose-processors";

/// Another reader's group on the same stream: never touched.
pub const FOREIGN_GROUP: &str = "osprey-consumers";

/// Where the AppView caches what it read from its tables. It is another system's, and so has none of our prefix.
pub mod cache {
    /// String: the counts of a post.
    #[must_use]
    pub fn post_aggregations(post: &str) -> String {
        format!("atproto:cache:post_aggregations:{post}")
    }

    /// String: what an account did with a post.
    #[must_use]
    pub fn post_viewer_states(viewer: &str, post: &str) -> String {
        format!("atproto:cache:post_viewer_states:{viewer}:{post}")
    }

    /// String: the thread around a reply.
    #[must_use]
    pub fn thread_contexts(post: &str) -> String {
        format!("atproto:cache:thread_contexts:{post}")
    }
}

/// What goes over the control channel.
pub const CONTROL_RECONNECT: &str = "reconnect";

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident = $literal:literal;)*) => {
        impl Keys {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> String {
                format!("{}{}", self.prefix.0, $literal)
            })*

            /// Lists every fixed name with its accessor, for the snapshot that pins them.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, String)> {
                vec![
                    ("stream", self.stream.clone()),
                    ("bulk", self.bulk.clone()),
                    ("cursor", self.cursor.clone()),
                    ("group", self.group.clone()),
                    $((stringify!($name), self.$name()),)*
                ]
            }
        }
    };
}

keys! {
    /// String, `EX 10`: the ingest's connection state.
    status = "firehose:status";
    /// String, `EX 10`: the newest broadcast events.
    recent_events = "firehose:recent_events";
    /// Channel: one broadcast event a message.
    broadcast = "firehose:events:broadcast";
    /// Hash: events applied, by kind.
    cluster_metrics = "cluster:metrics";
    /// Hash: rows by table.
    record_counts = "db:record_counts";
    /// Stream: entries that failed for good.
    dead_letters = "firehose:dead-letters";
    /// Sorted set: those by whose they are.
    dead_letters_index = "firehose:dead-letters:index";
    /// Sorted set: whose they are by weight.
    dead_letters_shares = "firehose:dead-letters:shares";
    /// Hash: what is known of them together, and of replays.
    dead_letters_held = "firehose:dead-letters:held";
    /// Stream: what ingest set aside.
    raw_letters = "firehose:dead-letters:raw";
    /// Sorted set: those by whose they are.
    raw_letters_index = "firehose:dead-letters:raw:index";
    /// Sorted set: whose they are by weight.
    raw_letters_shares = "firehose:dead-letters:raw:shares";
    /// Hash: what is known of them together, and how far they are copied.
    raw_letters_held = "firehose:dead-letters:raw:held";
    /// String, `PX`: the token of the ingest that may write.
    ingest_lease = "firehose:ingest:lease";
    /// String: random id of this Redis' life, also in PostgreSQL.
    incarnation = "firehose:incarnation";
    /// String: who owns this prefix.
    pipeline = "firehose:pipeline";
    /// String: the uid of the resource whose the claim is; the operator writes it.
    pipeline_uid = "firehose:pipeline:uid";
    /// Hash: `<worker>/<field>` to the total already added to the public hashes.
    counts_published = "firehose:counts:published";
    /// Hash: stream ID to how often that entry was tried alone and nobody came back to say how it went.
    suspects = "firehose:suspects";
    /// String: whose the cursor is.
    ingest_source = "firehose:ingest:source";
    /// Hash: what ingest knows beside the cursor.
    ingest_state = "firehose:ingest:state";
    /// Sorted set: the DIDs of repos that are desynchronized, each with why, until that is in PostgreSQL.
    desynchronized = "firehose:desynchronized";
    /// String, `PX`: what troubles a service with PostgreSQL.
    database_trouble = "firehose:trouble:postgresql";
    /// Channel: what the dashboard asks of ingest.
    ingest_control = "firehose:ingest:control";
    /// List, at most [`KEPT`](crate::starts::KEPT): when services began.
    starts = "firehose:starts";
    /// List, at most 50: how large each table was, hour by hour.
    table_sizes = "firehose:table-sizes";
    /// List: messages that the API accepted.
    pending_messages = "pending_messages";
    /// Sorted set: workers that take messages, by when they last gave a sign of life, in ms.
    messages_workers = "pending_messages:workers";
    /// Hash: messages persisted in each fifth of a second.
    messages_rate = "pending_messages:rate";
    /// List, at most 1,000: tracking ids queued.
    queued_message_ids = "queued_message_ids";
    /// List, at most 200: tracking ids persisted.
    persisted_message_ids = "persisted_message_ids";
    /// Integer: messages persisted.
    total_messages = "total_messages";
    /// Integer: message batches persisted.
    total_batches = "total_batches";
    /// String `"%.2f"`: messages a second over the last 10 s.
    current_rps = "current_rps";
    /// String `"%.2f"`: how long the writing of a message batch took, mean of the last 100, in ms.
    avg_latency_ms = "avg_latency_ms";
    /// String: 95th percentile of the latency.
    p95_latency_ms = "p95_latency_ms";
    /// String: 99th percentile of the latency.
    p99_latency_ms = "p99_latency_ms";
    /// String: messages held by the worker.
    worker_buffer_size = "worker_buffer_size";
    /// String: the last message batch.
    last_batch_id = "last_batch_id";
    /// String: its size.
    last_batch_size = "last_batch_size";
    /// String: its time.
    last_batch_time = "last_batch_time";
    /// String: its tracking ids.
    last_persisted_ids = "last_persisted_ids";
    /// Channel: one message batch persisted.
    batch_notifications = "batch_notifications";
}

// === impl KeyPrefix ===

impl KeyPrefix {
    /// Makes a prefix.
    ///
    /// # Errors
    /// Refuses spaces, control and non-ASCII characters, and more than 128 of them.
    pub fn new(text: &str) -> Result<Self, KeyPrefixError> {
        if text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyPrefixError)
        }
    }

    /// Says whether every key with this prefix falls into one hash slot of a Redis Cluster.
    #[must_use]
    pub fn has_hash_tag(&self) -> bool {
        self.hash_tag().is_some()
    }

    fn hash_tag(&self) -> Option<&str> {
        hash_tag(&self.0)
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Keys ===

impl Default for Keys {
    fn default() -> Self {
        Self::new(KeyPrefix::default(), Names::default())
    }
}

impl Keys {
    /// Resolves the names of a pipeline.
    #[must_use]
    pub fn new(prefix: KeyPrefix, names: Names) -> Self {
        let stream = names.stream.unwrap_or_else(|| format!("{prefix}firehose:events"));
        let cursor = names.cursor.unwrap_or_else(|| format!("{prefix}firehose:python_cursor"));
        let group = names.group.unwrap_or_else(|| GROUP.to_owned());
        let bulk = format!("{stream}:bulk");
        Self { prefix, stream, bulk, cursor, group }
    }

    /// The prefix of all names that no setting gives.
    #[must_use]
    pub fn prefix(&self) -> &KeyPrefix {
        &self.prefix
    }

    /// Stream: the events.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Stream: the events of repos that send more than their share; read by the same group when the first one is empty.
    /// Named after the stream, so that in a Cluster both have one slot.
    #[must_use]
    pub fn bulk(&self) -> &str {
        &self.bulk
    }

    /// String: the last sequence number written, in decimal.
    #[must_use]
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The consumer group of the workers.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Stream: the dead letters of workers, or of ingest.
    #[must_use]
    pub fn letters_of(&self, author: Author) -> String {
        match author {
            Author::Worker => self.dead_letters(),
            Author::Ingest => self.raw_letters(),
        }
    }

    /// Names what stands beside those letters: a script that adds or removes one touches it too.
    #[must_use]
    pub fn beside_letters(&self, author: Author) -> [String; 3] {
        match author {
            Author::Worker => [self.dead_letters_index(), self.dead_letters_shares(), self.dead_letters_held()],
            Author::Ingest => [self.raw_letters_index(), self.raw_letters_shares(), self.raw_letters_held()],
        }
    }

    /// Names what all message batches leave: how many messages, and how many batches were persisted.
    #[must_use]
    pub fn message_totals(&self) -> [String; 2] {
        [self.total_messages(), self.total_batches()]
    }

    /// Names what the last message batch leaves: its ID, its size, its time, its tracking IDs.
    #[must_use]
    pub fn last_batch(&self) -> [String; 4] {
        [self.last_batch_id(), self.last_batch_size(), self.last_batch_time(), self.last_persisted_ids()]
    }

    /// Names the latency of message batches: its mean, its 95th and its 99th percentile.
    #[must_use]
    pub fn message_latency(&self) -> [String; 3] {
        [self.avg_latency_ms(), self.p95_latency_ms(), self.p99_latency_ms()]
    }

    /// Hash, kept for `redis.activityRetention`: events applied in one minute, by kind, and [`INCOMING`](crate::live::INCOMING);
    /// `minute` counts from the epoch.
    #[must_use]
    pub fn activity(&self, minute: u64) -> String {
        format!("{}firehose:activity:{minute}", self.prefix)
    }

    /// String, `PX` the claim time: which process last showed that it lives under a consumer's name.
    #[must_use]
    pub fn consumer_alive(&self, consumer: &str) -> String {
        format!("{}firehose:consumer:{consumer}:alive", self.prefix)
    }

    /// String, `PX` [`PULSE_TTL`](crate::live::PULSE_TTL): a worker lives under a consumer's name at this moment.
    #[must_use]
    pub fn consumer_pulse(&self, consumer: &str) -> String {
        format!("{}firehose:consumer:{consumer}:pulse", self.prefix)
    }

    /// Integer, `EX 86400`: entries that a consumer has applied and acknowledged.
    #[must_use]
    pub fn consumer_applied(&self, consumer: &str) -> String {
        format!("{}firehose:consumer:{consumer}:applied", self.prefix)
    }

    /// List: the messages that a worker took and has not yet committed.
    #[must_use]
    pub fn messages_taken(&self, worker: &str) -> String {
        format!("{}pending_messages:taken:{worker}", self.prefix)
    }

    /// String, `PX` 10 s by default: says that the worker holding that list lives.
    #[must_use]
    pub fn messages_taken_alive(&self, worker: &str) -> String {
        format!("{}:alive", self.messages_taken(worker))
    }

    /// Lists the keys that can grow, each with its name in metrics. The others have one value, or a bound and an expiry.
    #[must_use]
    pub fn growing(&self) -> [(&'static str, String); 10] {
        [
            ("firehose:events", self.stream.clone()),
            ("firehose:events:bulk", self.bulk().to_owned()),
            ("firehose:dead-letters", self.dead_letters()),
            ("firehose:dead-letters:raw", self.raw_letters()),
            ("firehose:counts:published", self.counts_published()),
            ("firehose:suspects", self.suspects()),
            ("firehose:ingest:state", self.ingest_state()),
            ("pending_messages", self.pending_messages()),
            ("pending_messages:workers", self.messages_workers()),
            ("pending_messages:rate", self.messages_rate()),
        ]
    }

    /// Names the first key that would fall outside the prefix's hash slot in a Redis Cluster, if any.
    #[must_use]
    pub fn outside_hash_slot(&self) -> Option<&str> {
        let tag = self.prefix.hash_tag();
        [&self.stream, &self.cursor].into_iter().find(|name| tag.is_none() || hash_tag(name) != tag).map(String::as_str)
    }
}

/// The part of a key that Redis Cluster hashes alone: between the first `{` and the next `}`, unless empty.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_literal_is_pinned() {
        let keys = Keys::default();
        let mut pinned: Vec<_> = keys.all().into_iter().map(|(name, key)| format!("{name} {key}")).collect();
        pinned.push(format!("activity {}", keys.activity(29_000_000)));
        pinned.push(format!("consumer_alive {}", keys.consumer_alive("w-0")));
        pinned.push(format!("consumer_pulse {}", keys.consumer_pulse("w-0")));
        pinned.push(format!("consumer_applied {}", keys.consumer_applied("w-0")));
        pinned.push(format!("messages_taken {}", keys.messages_taken("w-0")));
        pinned.push(format!("messages_taken_alive {}", keys.messages_taken_alive("w-0")));
        pinned.push(format!("foreign_group {FOREIGN_GROUP}"));
        pinned.push(format!("control {CONTROL_RECONNECT}"));
        for name in [
            crate::stream::field::TYPE,
            crate::stream::field::DATA,
            crate::stream::field::SEQ,
            crate::stream::field::TRACEPARENT,
            crate::stream::field::ORIG_ID,
            crate::stream::field::REQUEUED,
            crate::stream::field::DELIVERIES,
            crate::stream::field::ERROR,
            crate::stream::field::CONSUMER,
            crate::stream::field::REPO,
        ] {
            pinned.push(format!("field {name}"));
        }
        assert_eq!(pinned.join("\n") + "\n", include_str!("keys.snapshot"));
    }

    #[test]
    fn a_prefix_goes_before_every_name_but_an_explicit_one() {
        let names = Names { stream: Some("my-stream".into()), ..Names::default() };
        let keys = Keys::new(KeyPrefix::new("{b}:").unwrap(), names);
        assert_eq!((keys.stream(), keys.bulk()), ("my-stream", "my-stream:bulk"));
        for (accessor, key) in keys.all() {
            let is_explicit = ["stream", "bulk", "group"].contains(&accessor);
            assert!(key.starts_with("{b}:") || is_explicit, "{accessor} {key}");
        }
        assert_eq!(keys.outside_hash_slot(), Some("my-stream"));
        assert_eq!(Keys::new(KeyPrefix::new("{b}:").unwrap(), Names::default()).outside_hash_slot(), None);
        assert_eq!(Keys::default().outside_hash_slot(), Some("firehose:events"));
    }

    #[test]
    fn the_cache_of_the_appview_has_its_own_names() {
        let post = "at://did:plc:b/app.bsky.feed.post/r";
        assert_eq!(cache::post_aggregations(post), format!("atproto:cache:post_aggregations:{post}"));
        assert_eq!(
            cache::post_viewer_states("did:plc:a", post),
            format!("atproto:cache:post_viewer_states:did:plc:a:{post}")
        );
        assert_eq!(cache::thread_contexts(post), format!("atproto:cache:thread_contexts:{post}"));
    }

    #[test]
    fn metrics_call_keys_as_they_are_called_without_settings() {
        for (name, key) in Keys::default().growing() {
            assert_eq!(name, key);
        }
    }

    #[test]
    fn a_prefix_with_spaces_is_refused() {
        assert!(KeyPrefix::new("a b").is_err());
        assert!(KeyPrefix::new("ä").is_err());
        assert!(!KeyPrefix::new("{}x:").unwrap().has_hash_tag());
    }
}
