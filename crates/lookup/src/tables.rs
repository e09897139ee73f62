//! In which tables records stand, and by which column the rows of an account are found.

/// A table whose rows are records of one collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The collection.
    pub collection: &'static str,
    /// The table.
    pub name: &'static str,
    /// The column that a record is found by.
    pub key: &'static str,
    /// How the rows of an account are counted.
    pub(crate) owner: Owner,
    /// Whether the guard stands in the row.
    pub(crate) has_guard: bool,
    /// The columns that are unique together, the account's own left out where it is one.
    pub(crate) pair: Option<(&'static str, &'static str)>,
}

/// How the rows of an account are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// By a column with an index.
    Column(&'static str),
    /// By the guards beside the table, which are in the order of URIs.
    Guards,
}

/// Where every other collection stands, and of some collections what the AppView's tables do not take.
pub const GENERIC: &str = "generic_records";

/// The profile: a row of `users` for each account, by its DID.
pub const PROFILE: &str = "app.bsky.actor.profile";

const fn table(collection: &'static str, name: &'static str, owner: &'static str) -> Table {
    Table { collection, name, key: "uri", owner: Owner::Column(owner), has_guard: false, pair: None }
}

const fn guarded(table: Table, pair: Option<(&'static str, &'static str)>) -> Table {
    Table { has_guard: true, pair, ..table }
}

/// Every table with a collection of its own but that of profiles.
pub(crate) const TABLES: [Table; 16] = [
    guarded(table("app.bsky.feed.post", "posts", "author_did"), None),
    guarded(table("app.bsky.feed.like", "likes", "user_did"), Some(("user_did", "post_uri"))),
    guarded(table("app.bsky.feed.repost", "reposts", "user_did"), Some(("user_did", "post_uri"))),
    Table { pair: Some(("user_did", "post_uri")), ..table("app.bsky.bookmark", "bookmarks", "user_did") },
    guarded(table("app.bsky.graph.follow", "follows", "follower_did"), Some(("follower_did", "following_did"))),
    guarded(table("app.bsky.graph.block", "blocks", "blocker_did"), Some(("blocker_did", "blocked_did"))),
    table("app.bsky.graph.list", "lists", "creator_did"),
    Table {
        owner: Owner::Guards,
        pair: Some(("list_uri", "subject_did")),
        ..table("app.bsky.graph.listitem", "list_items", "")
    },
    Table {
        pair: Some(("blocker_did", "list_uri")),
        ..table("app.bsky.graph.listblock", "list_blocks", "blocker_did")
    },
    table("app.bsky.feed.generator", "feed_generators", "creator_did"),
    table("app.bsky.graph.starterpack", "starter_packs", "creator_did"),
    table("app.bsky.labeler.service", "labeler_services", "creator_did"),
    table("com.atproto.label.label", "labels", "src"),
    Table {
        owner: Owner::Guards,
        pair: Some(("", "subject_did")),
        ..table("app.bsky.graph.verification", "verifications", "")
    },
    // A gate has the key of its post.
    Table { key: "post_uri", ..table("app.bsky.feed.threadgate", "thread_gates", "owner_did") },
    Table { key: "post_uri", owner: Owner::Guards, ..table("app.bsky.feed.postgate", "post_gates", "") },
];

// === impl Table ===

impl Table {
    /// Returns the table of a collection; none where it has none of its own.
    #[must_use]
    pub fn of(collection: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.collection == collection)
    }

    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }

    /// Returns the value of the column that a record is found by.
    #[must_use]
    pub fn key_of(&self, did: &str, rkey: &str) -> String {
        let collection = if self.key == "post_uri" { TABLES[0].collection } else { self.collection };
        format!("at://{did}/{collection}/{rkey}")
    }
}
