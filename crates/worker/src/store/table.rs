//! The tables that hold records: their columns and rules.

use std::borrow::Cow;

use Kind::{Bool, Json, Text, Time};

/// A table whose rows are records, in the order in which a batch writes them: gates come before the posts that they
/// stand at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// `app.bsky.feed.threadgate`.
    ThreadGates,
    /// `app.bsky.feed.postgate`.
    PostGates,
    /// `app.bsky.feed.post`.
    Posts,
    /// `app.bsky.feed.like`.
    Likes,
    /// `app.bsky.feed.repost`.
    Reposts,
    /// `app.bsky.bookmark`.
    Bookmarks,
    /// `app.bsky.graph.follow`.
    Follows,
    /// `app.bsky.graph.block`.
    Blocks,
    /// `app.bsky.graph.list`.
    Lists,
    /// `app.bsky.graph.listitem` in the repo of the list's owner.
    ListItems,
    /// `app.bsky.graph.listblock`.
    ListBlocks,
    /// `app.bsky.feed.generator`.
    FeedGenerators,
    /// `app.bsky.graph.starterpack`.
    StarterPacks,
    /// `app.bsky.labeler.service`.
    LabelerServices,
    /// `com.atproto.label.label`.
    Labels,
    /// `app.bsky.graph.verification`.
    Verifications,
    /// Every other collection.
    GenericRecords,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `text` or `varchar`.
    Text,
    /// `jsonb`.
    Json,
    /// `timestamp`.
    Time,
    /// `bool`.
    Bool,
}

/// A count that `post_aggregations` keeps of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Count {
    /// Rows of `likes`.
    Likes,
    /// Rows of `reposts`.
    Reposts,
    /// Rows of `posts` that answer it.
    Replies,
    /// Rows of `quotes`.
    Quotes,
    /// Rows of `bookmarks`.
    Bookmarks,
}

/// One table.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its primary key.
    pub(crate) key: &'static str,
    /// The columns besides the key and the guard.
    pub(crate) columns: &'static [(&'static str, Kind)],
    /// Whether it has `commit_rev` and `commit_seq`, which hold the guard; else that stands in `penstock.stamps`. With them
    /// goes `commit_time`, which then ends `columns`.
    pub(crate) commit: bool,
    /// The column with the DID of the repo, where an index surely begins with it; else rows are found by the key.
    pub(crate) owner: Option<&'static str>,
    /// The columns that are unique together: the second alone where the first is `None`.
    pub(crate) pair: Option<(Option<usize>, usize)>,
    /// The column with the URI that a row counts for, and as what.
    pub(crate) counted: Option<(usize, Count)>,
    /// The field of `db:record_counts`.
    pub(crate) field: Option<&'static str>,
}

const COMMIT: (&str, Kind) = ("commit_time", Time);

const LIKE: [(&str, Kind); 6] =
    [("user_did", Text), ("post_uri", Text), ("subject_cid", Text), ("via", Json), ("created_at", Time), COMMIT];
const FOLLOW: [(&str, Kind); 4] = [("follower_did", Text), ("following_did", Text), ("created_at", Time), COMMIT];
const BLOCK: [(&str, Kind); 4] = [("blocker_did", Text), ("blocked_did", Text), ("created_at", Time), COMMIT];

const PLAIN: Spec =
    Spec { name: "", key: "uri", columns: &[], commit: false, owner: None, pair: None, counted: None, field: None };

static THREAD_GATES: Spec = Spec {
    name: "thread_gates",
    key: "post_uri",
    columns: &[
        ("owner_did", Text),
        ("allow_mentions", Bool),
        ("allow_following", Bool),
        ("allow_list_members", Bool),
        ("allow_list_uris", Json),
        ("created_at", Time),
    ],
    ..PLAIN
};
static POST_GATES: Spec =
    Spec { name: "post_gates", key: "post_uri", columns: &[("embedding_rules", Json), ("created_at", Time)], ..PLAIN };
static POSTS: Spec = Spec {
    name: "posts",
    columns: &[
        ("cid", Text),
        ("author_did", Text),
        ("text", Text),
        ("langs", Json),
        ("parent_uri", Text),
        ("parent_cid", Text),
        ("root_uri", Text),
        ("root_cid", Text),
        ("embed", Json),
        ("facets", Json),
        ("tags", Json),
        ("created_at", Time),
        COMMIT,
    ],
    commit: true,
    counted: Some((4, Count::Replies)),
    field: Some("posts"),
    ..PLAIN
};
static LIKES: Spec = Spec {
    name: "likes",
    columns: &LIKE,
    commit: true,
    owner: Some("user_did"),
    pair: Some((Some(0), 1)),
    counted: Some((1, Count::Likes)),
    field: Some("likes"),
    ..PLAIN
};
static REPOSTS: Spec = Spec {
    name: "reposts",
    columns: &LIKE,
    commit: true,
    owner: Some("user_did"),
    pair: Some((Some(0), 1)),
    counted: Some((1, Count::Reposts)),
    field: Some("reposts"),
    ..PLAIN
};
static BOOKMARKS: Spec = Spec {
    name: "bookmarks",
    columns: &[("user_did", Text), ("post_uri", Text), ("created_at", Time)],
    owner: Some("user_did"),
    pair: Some((Some(0), 1)),
    counted: Some((1, Count::Bookmarks)),
    ..PLAIN
};
static FOLLOWS: Spec = Spec {
    name: "follows",
    columns: &FOLLOW,
    commit: true,
    owner: Some("follower_did"),
    pair: Some((Some(0), 1)),
    field: Some("follows"),
    ..PLAIN
};
static BLOCKS: Spec = Spec {
    name: "blocks",
    columns: &BLOCK,
    commit: true,
    owner: Some("blocker_did"),
    pair: Some((Some(0), 1)),
    field: Some("blocks"),
    ..PLAIN
};
static LISTS: Spec = Spec {
    name: "lists",
    columns: &[
        ("cid", Text),
        ("creator_did", Text),
        ("name", Text),
        ("purpose", Text),
        ("description", Text),
        ("avatar_url", Text),
        ("created_at", Time),
    ],
    ..PLAIN
};
static LIST_ITEMS: Spec = Spec {
    name: "list_items",
    columns: &[("cid", Text), ("list_uri", Text), ("subject_did", Text), ("created_at", Time)],
    pair: Some((Some(1), 2)),
    ..PLAIN
};
static LIST_BLOCKS: Spec = Spec {
    name: "list_blocks",
    columns: &[("blocker_did", Text), ("list_uri", Text), ("created_at", Time)],
    owner: Some("blocker_did"),
    pair: Some((Some(0), 1)),
    ..PLAIN
};
static FEED_GENERATORS: Spec = Spec {
    name: "feed_generators",
    columns: &[
        ("cid", Text),
        ("creator_did", Text),
        ("did", Text),
        ("display_name", Text),
        ("description", Text),
        ("avatar_url", Text),
        ("created_at", Time),
    ],
    ..PLAIN
};
static STARTER_PACKS: Spec = Spec {
    name: "starter_packs",
    columns: &[
        ("cid", Text),
        ("creator_did", Text),
        ("name", Text),
        ("description", Text),
        ("list_uri", Text),
        ("feeds", Json),
        ("created_at", Time),
    ],
    ..PLAIN
};
static LABELER_SERVICES: Spec = Spec {
    name: "labeler_services",
    columns: &[("cid", Text), ("creator_did", Text), ("policies", Json), ("created_at", Time)],
    ..PLAIN
};
static LABELS: Spec = Spec {
    name: "labels",
    columns: &[("src", Text), ("subject", Text), ("val", Text), ("neg", Bool), ("created_at", Time)],
    ..PLAIN
};
static VERIFICATIONS: Spec = Spec {
    name: "verifications",
    columns: &[("cid", Text), ("subject_did", Text), ("handle", Text), ("verified_at", Time), ("created_at", Time)],
    pair: Some((None, 1)),
    ..PLAIN
};
static GENERIC_RECORDS: Spec = Spec {
    name: "generic_records",
    columns: &[("cid", Text), ("author_did", Text), ("record_type", Text), ("record", Json), ("created_at", Time)],
    owner: Some("author_did"),
    ..PLAIN
};

const POST: &str = "/app.bsky.feed.post/";
const THREAD_GATE: &str = "/app.bsky.feed.threadgate/";
const POST_GATE: &str = "/app.bsky.feed.postgate/";

// === impl Table ===

impl Table {
    /// Every table, in the order in which a batch writes them.
    pub(crate) const ALL: [Self; 17] = [
        Self::ThreadGates,
        Self::PostGates,
        Self::Posts,
        Self::Likes,
        Self::Reposts,
        Self::Bookmarks,
        Self::Follows,
        Self::Blocks,
        Self::Lists,
        Self::ListItems,
        Self::ListBlocks,
        Self::FeedGenerators,
        Self::StarterPacks,
        Self::LabelerServices,
        Self::Labels,
        Self::Verifications,
        Self::GenericRecords,
    ];

    /// Returns the tables in which a record of the collection may stand.
    pub(crate) fn homes(collection: &str) -> &'static [Self] {
        match collection {
            "app.bsky.feed.threadgate" => &[Self::ThreadGates],
            "app.bsky.feed.postgate" => &[Self::PostGates],
            "app.bsky.feed.post" => &[Self::Posts],
            "app.bsky.feed.like" => &[Self::Likes],
            "app.bsky.feed.repost" => &[Self::Reposts],
            "app.bsky.bookmark" => &[Self::Bookmarks],
            "app.bsky.graph.follow" => &[Self::Follows],
            "app.bsky.graph.block" => &[Self::Blocks],
            "app.bsky.graph.list" => &[Self::Lists],
            "app.bsky.graph.listitem" => &[Self::ListItems, Self::GenericRecords],
            "app.bsky.graph.listblock" => &[Self::ListBlocks],
            "app.bsky.feed.generator" => &[Self::FeedGenerators],
            "app.bsky.graph.starterpack" => &[Self::StarterPacks],
            "app.bsky.labeler.service" => &[Self::LabelerServices],
            "com.atproto.label.label" => &[Self::Labels],
            "app.bsky.graph.verification" => &[Self::Verifications],
            _ => &[Self::GenericRecords],
        }
    }

    /// Returns the table as the only home of a record.
    pub(crate) fn alone(self) -> &'static [Self] {
        Self::ALL.get(self as usize..=self as usize).unwrap_or_default()
    }

    /// Returns the table of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.spec().name == name)
    }

    /// Returns its columns and rules.
    pub(crate) fn spec(self) -> &'static Spec {
        match self {
            Self::ThreadGates => &THREAD_GATES,
            Self::PostGates => &POST_GATES,
            Self::Posts => &POSTS,
            Self::Likes => &LIKES,
            Self::Reposts => &REPOSTS,
            Self::Bookmarks => &BOOKMARKS,
            Self::Follows => &FOLLOWS,
            Self::Blocks => &BLOCKS,
            Self::Lists => &LISTS,
            Self::ListItems => &LIST_ITEMS,
            Self::ListBlocks => &LIST_BLOCKS,
            Self::FeedGenerators => &FEED_GENERATORS,
            Self::StarterPacks => &STARTER_PACKS,
            Self::LabelerServices => &LABELER_SERVICES,
            Self::Labels => &LABELS,
            Self::Verifications => &VERIFICATIONS,
            Self::GenericRecords => &GENERIC_RECORDS,
        }
    }

    /// Returns the primary key of the record with this URI: a gate is keyed by the post that it stands at.
    pub(crate) fn key_of(self, uri: &str) -> Cow<'_, str> {
        match self {
            Self::ThreadGates => Cow::Owned(uri.replacen(THREAD_GATE, POST, 1)),
            Self::PostGates => Cow::Owned(uri.replacen(POST_GATE, POST, 1)),
            _ => Cow::Borrowed(uri),
        }
    }

    /// Returns the URI of the record with this primary key.
    pub(crate) fn uri_of(self, key: &str) -> Cow<'_, str> {
        match self {
            Self::ThreadGates => Cow::Owned(key.replacen(POST, THREAD_GATE, 1)),
            Self::PostGates => Cow::Owned(key.replacen(POST, POST_GATE, 1)),
            _ => Cow::Borrowed(key),
        }
    }

    /// Writes as SQL the URI of the record whose row's primary key is this expression.
    pub(crate) fn uri_sql(self, key: &str) -> String {
        match self {
            Self::ThreadGates => format!("replace({key}, '{POST}', '{THREAD_GATE}')"),
            Self::PostGates => format!("replace({key}, '{POST}', '{POST_GATE}')"),
            _ => key.to_owned(),
        }
    }

    /// Returns whether its rows say the CIDs of their records.
    pub(crate) fn has_cid(self) -> bool {
        self.spec().columns.iter().any(|(name, _)| *name == "cid")
    }

    /// Returns whether rows of it are shown in `feed_items`, and as what.
    pub(crate) fn feed_type(self) -> Option<&'static str> {
        match self {
            Self::Posts => Some("post"),
            Self::Reposts => Some("repost"),
            _ => None,
        }
    }
}

// === impl Count ===

impl Count {
    /// How many there are.
    pub(crate) const NUMBER: usize = 5;
}

/// The longest URI that a column takes, in bytes.
pub(crate) const MAX_URI: usize = 512;
/// The longest DID, handle or CID that a column takes, in bytes.
pub(crate) const MAX_DID: usize = 255;

/// Returns whether a column takes a DID. Of an account with a longer one all stands in tables of ours.
pub(crate) fn takes_did(did: &str) -> bool {
    did.len() <= MAX_DID
}

/// Returns the DID in an `at://` URI; empty where there is none.
pub(crate) fn repo_of(uri: &str) -> &str {
    uri.strip_prefix("at://").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_counts_point_at_text_columns() {
        for table in Table::ALL {
            let spec = table.spec();
            let pair = spec.pair.into_iter().flat_map(|(a, b)| [a, Some(b)]).flatten();
            for column in pair.chain(spec.counted.map(|(column, _)| column)) {
                assert_eq!(spec.columns[column].1, Text, "{}", spec.name);
            }
            assert_eq!(spec.commit, spec.columns.ends_with(&[COMMIT]), "{}", spec.name);
            assert!(spec.owner.is_none_or(|owner| spec.columns.iter().any(|(name, _)| *name == owner)));
            assert_eq!(Table::named(spec.name), Some(table));
        }
    }

    #[test]
    fn a_gate_is_keyed_by_its_post() {
        let uri = "at://did:plc:a/app.bsky.feed.threadgate/r";
        let key = Table::ThreadGates.key_of(uri);
        assert_eq!(key, "at://did:plc:a/app.bsky.feed.post/r");
        assert_eq!(Table::ThreadGates.uri_of(&key), uri);
        assert_eq!(repo_of(uri), "did:plc:a");
    }
}
