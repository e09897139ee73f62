//! Made-up records of every collection, and the rows that they ought to become.

use penstock_core::data::Action;
use penstock_core::entry;
use serde_json::{Map, Value, json};

use super::history::REPOS;

/// What kind of record an op is about. The kinds of posts share their collection, and so their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Post,
    Reply,
    Quote,
    QuoteWithMedia,
    Like,
    Repost,
    Bookmark,
    Follow,
    Block,
    List,
    ListItem,
    ListBlock,
    ThreadGate,
    PostGate,
    Generator,
    StarterPack,
    Labeler,
    Label,
    Verification,
    Profile,
    Custom,
}

/// One op of a commit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Op {
    pub(super) kind: Kind,
    pub(super) action: Action,
    pub(super) rkey: u8,
    /// Whether its block was not in the frame.
    pub(super) bare: bool,
    /// The repo that the record points at.
    pub(super) other: usize,
    /// What of that repo.
    pub(super) item: u8,
    /// What it says.
    pub(super) text: u8,
    /// Whether it says when it was made.
    pub(super) dated: bool,
}

/// From here on a record key is a long one.
pub(super) const LONG_KEY: u8 = 200;

/// How long these keys are: of the first one no column takes the URI, of the other one none takes what is
/// derived from the URI of a post.
pub(super) const LONG_KEYS: [usize; 2] = [500, 476];

/// What a column takes of a URI and of a DID.
const URI: usize = 512;
const DID: usize = 255;

/// The times and numbers of an entry that a row carries, as PostgreSQL writes them as JSON.
#[derive(Clone, Debug)]
pub(super) struct Stamped {
    /// When the entry came, or its commit was made.
    pub(super) at: String,
    pub(super) commit_time: Option<String>,
}

// === impl Kind ===

impl Kind {
    /// Those of which only one at a time can have its place.
    pub(super) const PAIRED: [Self; 8] = [
        Self::Like,
        Self::Like,
        Self::Repost,
        Self::Bookmark,
        Self::Follow,
        Self::ListItem,
        Self::ListBlock,
        Self::Verification,
    ];

    /// Every kind; what shares a place or a count is met more often.
    pub(super) const ALL: [Self; 29] = [
        Self::Post,
        Self::Post,
        Self::Reply,
        Self::Quote,
        Self::QuoteWithMedia,
        Self::Like,
        Self::Like,
        Self::Like,
        Self::Like,
        Self::Repost,
        Self::Repost,
        Self::Bookmark,
        Self::Follow,
        Self::Follow,
        Self::Block,
        Self::List,
        Self::ListItem,
        Self::ListItem,
        Self::ListBlock,
        Self::ThreadGate,
        Self::PostGate,
        Self::Generator,
        Self::StarterPack,
        Self::Labeler,
        Self::Label,
        Self::Verification,
        Self::Verification,
        Self::Profile,
        Self::Custom,
    ];

    pub(super) fn collection(self) -> &'static str {
        match self {
            Self::Post | Self::Reply | Self::Quote | Self::QuoteWithMedia => "app.bsky.feed.post",
            Self::Like => "app.bsky.feed.like",
            Self::Repost => "app.bsky.feed.repost",
            Self::Bookmark => "app.bsky.bookmark",
            Self::Follow => "app.bsky.graph.follow",
            Self::Block => "app.bsky.graph.block",
            Self::List => "app.bsky.graph.list",
            Self::ListItem => "app.bsky.graph.listitem",
            Self::ListBlock => "app.bsky.graph.listblock",
            Self::ThreadGate => "app.bsky.feed.threadgate",
            Self::PostGate => "app.bsky.feed.postgate",
            Self::Generator => "app.bsky.feed.generator",
            Self::StarterPack => "app.bsky.graph.starterpack",
            Self::Labeler => "app.bsky.labeler.service",
            Self::Label => "com.atproto.label.label",
            Self::Verification => "app.bsky.graph.verification",
            Self::Profile => "app.bsky.actor.profile",
            Self::Custom => "com.example.note",
        }
    }
}

// === impl Op ===

impl Op {
    /// Returns the collection and key.
    pub(super) fn path(&self) -> String {
        match self.kind {
            Kind::Profile | Kind::Labeler => format!("{}/self", self.kind.collection()),
            _ => match self.rkey {
                rkey @ 0..LONG_KEY => format!("{}/k{rkey}", self.kind.collection()),
                rkey => format!("{}/{}", self.kind.collection(), "k".repeat(LONG_KEYS[usize::from(rkey - LONG_KEY)])),
            },
        }
    }

    /// Returns the op as an entry carries it.
    pub(super) fn told(&self, repo: &str) -> entry::Op {
        let path = self.path();
        let (collection, rkey) = path.split_once('/').unwrap();
        let puts = self.action != Action::Delete;
        entry::Op {
            action: self.action,
            collection: collection.to_owned(),
            rkey: rkey.to_owned(),
            cid: puts.then(|| self.cid()),
            record: (puts && !self.bare).then(|| self.record(repo)),
        }
    }

    /// Returns the CID of its record: another one for each content.
    pub(super) fn cid(&self) -> String {
        format!("bafy{:?}{}{}{}{}", self.kind, self.other, self.item, self.text, self.dated)
    }

    /// Returns what a record points at: mostly a post, whether or not there is one.
    pub(super) fn subject(&self) -> String {
        let path = match self.item {
            0..=2 => format!("app.bsky.feed.post/k{}", self.item),
            3 => "app.bsky.feed.generator/k0".to_owned(),
            4 => "app.bsky.labeler.service/self".to_owned(),
            _ => format!("app.bsky.feed.post/{}", "k".repeat(500)),
        };
        format!("at://{}/{path}", REPOS[self.other])
    }

    /// Returns a list of the repo itself or of another.
    pub(super) fn list(&self, repo: &str) -> String {
        let owner =
            if self.item < 3 || self.item == 5 && self.text.is_multiple_of(2) { repo } else { REPOS[self.other] };
        let key = if self.item == 5 { "k".repeat(500) } else { "k0".to_owned() };
        format!("at://{owner}/app.bsky.graph.list/{key}")
    }

    /// Returns what it says: as a name too long, with a NUL, or neither.
    fn text(&self) -> String {
        match self.text {
            58 => "e\u{301}".repeat(200),
            59 => "t\0".to_owned(),
            text => format!("t{text}"),
        }
    }

    /// Returns the same as a name is shown: cut before the accent that would be the 256th character.
    pub(super) fn name(&self) -> String {
        if self.text == 58 { "e\u{301}".repeat(127) } else { self.text().replace('\0', "") }
    }

    /// Says a time before all events, or one after them.
    fn dated(&self) -> String {
        let month = if self.text.is_multiple_of(2) { 6 } else { 8 };
        format!("2026-{month:02}-04T10:00:{:02}", self.text)
    }

    /// Returns its record.
    pub(super) fn record(&self, repo: &str) -> Value {
        let subject = json!({"uri": self.subject(), "cid": "bafysubject"});
        let other = REPOS[self.other];
        let text = self.text();
        let mut record = match self.kind {
            Kind::Post => json!({"text": text, "langs": ["en"]}),
            Kind::Reply => {
                json!({"text": text, "reply": {"parent": subject, "root": {"uri": self.root(), "cid": "bafyroot"}}})
            }
            Kind::Quote => json!({"text": text, "embed": self.embed()}),
            Kind::QuoteWithMedia => json!({"text": text, "tags": [text], "embed": self.embed()}),
            Kind::Like if self.text.is_multiple_of(2) => json!({"subject": subject, "via": subject}),
            Kind::Like | Kind::Repost | Kind::Bookmark => json!({ "subject": subject }),
            Kind::Follow | Kind::Block => json!({ "subject": other }),
            Kind::List => json!({"name": text, "purpose": "app.bsky.graph.defs#curatelist"}),
            Kind::ListItem => json!({"list": self.list(repo), "subject": other}),
            Kind::ListBlock => json!({"subject": self.list(repo)}),
            Kind::ThreadGate => json!({"allow": self.rules()}),
            Kind::PostGate => json!({"embeddingRules": [text]}),
            Kind::Generator => json!({"did": "did:web:g", "displayName": text}),
            Kind::StarterPack => json!({"name": text, "list": self.list(repo), "feeds": [{"uri": text}, text]}),
            Kind::Labeler => json!({"policies": {"labelValues": [text]}}),
            Kind::Label => json!({"uri": self.subject(), "val": text, "neg": self.text.is_multiple_of(2)}),
            Kind::Verification => json!({"subject": other, "handle": "h.example"}),
            Kind::Profile => json!({"displayName": text, "description": "d", "pinnedPost": subject}),
            Kind::Custom if self.text == 59 => json!({"n": 1, "n\0": 2}),
            Kind::Custom => json!({ "n": self.text }),
        };
        if self.dated {
            record["createdAt"] = format!("{}Z", self.dated()).into();
        }
        if let Some(named) = self.named() {
            let mention = json!({"$type": "app.bsky.richtext.facet#mention", "did": named});
            let link = json!({"$type": "app.bsky.richtext.facet#link", "uri": "https://example.com"});
            record["facets"] = json!([{"features": [mention, link]}, {"features": [mention]}]);
        }
        record
    }

    /// Returns the post that began the thread of a reply.
    fn root(&self) -> String {
        match self.text % 3 {
            0 => self.subject(),
            text => format!("at://{}/app.bsky.feed.post/k{text}", REPOS[usize::from(self.text) % REPOS.len()]),
        }
    }

    /// Returns whom a post mentions, if anybody.
    pub(super) fn named(&self) -> Option<&'static str> {
        let is_post = self.kind.collection() == "app.bsky.feed.post";
        (is_post && self.text % 3 == 1).then(|| REPOS[usize::from(self.text / 3) % REPOS.len()])
    }

    fn rules(&self) -> Vec<Value> {
        match self.text % 3 {
            0 => vec![],
            1 => vec![json!({"$type": "app.bsky.feed.threadgate#mentionRule"})],
            _ => vec![json!({"$type": "app.bsky.feed.threadgate#listRule", "list": self.subject()})],
        }
    }

    fn embed(&self) -> Value {
        let subject = json!({"uri": self.subject(), "cid": "bafysubject"});
        if self.kind == Kind::Quote {
            json!({"$type": "app.bsky.embed.record", "record": subject})
        } else {
            json!({"$type": "app.bsky.embed.recordWithMedia", "record": {"record": subject}})
        }
    }

    /// Returns when its record was made.
    pub(super) fn created_at(&self, stamped: &Stamped) -> String {
        if self.dated { self.dated() } else { stamped.at.clone() }
    }

    /// Returns where feeds sort its record: by its event where it claims to come from the future.
    pub(super) fn sort_at(&self, stamped: &Stamped) -> String {
        self.created_at(stamped).min(stamped.at.clone())
    }

    /// Returns whether its table takes it: what rows are found by has to fit.
    pub(super) fn has_row(&self, repo: &str) -> bool {
        let uri = format!("at://{repo}/{}", self.path());
        let list = self.list(repo);
        let fits = match self.kind {
            Kind::Like | Kind::Repost | Kind::Bookmark => self.subject().len() <= URI,
            Kind::Follow | Kind::Block | Kind::Verification => REPOS[self.other].len() <= DID,
            Kind::ListItem if list.starts_with(&format!("at://{repo}/")) => {
                list.len() <= URI && REPOS[self.other].len() <= DID
            }
            Kind::ListBlock => list.len() <= URI,
            Kind::Label => self.subject().len() <= URI && self.text < 58,
            _ => true,
        };
        fits && uri.len() <= URI && repo.len() <= DID
    }

    /// Returns whether its row, and what is derived from it, says all of it.
    pub(super) fn is_whole(&self, repo: &str) -> bool {
        let is_cut = self.text == 58;
        match self.kind {
            Kind::Reply => self.subject().len() <= URI && self.root().len() <= URI,
            Kind::Quote | Kind::QuoteWithMedia => self.has_quote(repo),
            Kind::List | Kind::Generator => !is_cut,
            Kind::StarterPack => !is_cut && self.list(repo).len() <= URI,
            _ => true,
        }
    }

    /// Returns whether there is a place for what it quotes.
    pub(super) fn has_quote(&self, repo: &str) -> bool {
        let quote = format!("at://{repo}/{}#quote", self.path());
        self.subject().len() <= URI && quote.len() <= URI
    }

    /// Returns the table of its record and what its row says, but for the key, the rev, the entry, what other rows make
    /// of it, and columns that are never written.
    pub(super) fn row(&self, repo: &str, stamped: &Stamped) -> (&'static str, Map<String, Value>) {
        let record = without_nul(&self.record(repo));
        let other = REPOS[self.other];
        let fitting = |uri: String| Some(uri).filter(|uri| uri.len() <= URI);
        let mut has_commit = false;
        let mut has_cid = true;
        let (table, mut row) = match self.kind {
            Kind::Post | Kind::Reply | Kind::Quote | Kind::QuoteWithMedia => {
                has_commit = true;
                let is_reply = self.kind == Kind::Reply;
                let parent = is_reply.then(|| fitting(self.subject())).flatten();
                let root = is_reply.then(|| fitting(self.root())).flatten();
                let parent_cid = is_reply.then_some("bafysubject");
                let root_cid = is_reply.then_some("bafyroot");
                let row = json!({
                    "author_did": repo, "text": record["text"], "langs": record["langs"], "embed": record["embed"],
                    "parent_uri": parent, "parent_cid": parent_cid, "root_uri": root, "root_cid": root_cid,
                    "facets": record["facets"], "tags": record["tags"].as_array().map_or_else(Vec::new, Clone::clone),
                    "violates_thread_gate": false, "violates_embedding_rules": false,
                });
                ("posts", row)
            }
            Kind::Like | Kind::Repost => {
                (has_commit, has_cid) = (true, false);
                let row = json!({
                    "user_did": repo, "post_uri": self.subject(), "subject_cid": "bafysubject", "via": record["via"],
                });
                (if self.kind == Kind::Like { "likes" } else { "reposts" }, row)
            }
            Kind::Bookmark => {
                has_cid = false;
                ("bookmarks", json!({"user_did": repo, "post_uri": self.subject()}))
            }
            Kind::Follow => {
                (has_commit, has_cid) = (true, false);
                ("follows", json!({"follower_did": repo, "following_did": other}))
            }
            Kind::Block => {
                (has_commit, has_cid) = (true, false);
                ("blocks", json!({"blocker_did": repo, "blocked_did": other}))
            }
            Kind::List => {
                let row = json!({
                    "creator_did": repo, "name": self.name(), "purpose": record["purpose"], "description": null,
                    "avatar_url": null,
                });
                ("lists", row)
            }
            Kind::ListItem if self.list(repo).starts_with(&format!("at://{repo}/")) => {
                ("list_items", json!({"list_uri": self.list(repo), "subject_did": other}))
            }
            Kind::ListBlock => {
                has_cid = false;
                ("list_blocks", json!({"blocker_did": repo, "list_uri": self.list(repo)}))
            }
            Kind::ThreadGate => {
                has_cid = false;
                let lists = if self.text % 3 == 2 { vec![self.subject()] } else { Vec::new() };
                let row = json!({
                    "owner_did": repo, "allow_mentions": self.text % 3 == 1, "allow_following": false,
                    "allow_list_members": self.text % 3 == 2, "allow_list_uris": lists,
                });
                ("thread_gates", row)
            }
            Kind::PostGate => {
                has_cid = false;
                ("post_gates", json!({"embedding_rules": record["embeddingRules"]}))
            }
            Kind::Generator => {
                let row = json!({
                    "creator_did": repo, "did": "did:web:g", "display_name": self.name(),
                    "description": null, "avatar_url": null,
                });
                ("feed_generators", row)
            }
            Kind::StarterPack => {
                let row = json!({
                    "creator_did": repo, "name": self.name(), "description": null, "list_uri": fitting(self.list(repo)),
                    "feeds": [record["name"], record["name"]],
                });
                ("starter_packs", row)
            }
            Kind::Labeler => ("labeler_services", json!({"creator_did": repo, "policies": record["policies"]})),
            Kind::Label => {
                has_cid = false;
                ("labels", json!({"src": repo, "subject": self.subject(), "val": record["val"], "neg": record["neg"]}))
            }
            Kind::Verification => {
                let at = self.created_at(stamped);
                ("verifications", json!({"subject_did": other, "handle": "h.example", "verified_at": at}))
            }
            Kind::ListItem | Kind::Custom | Kind::Profile => {
                let row = json!({"author_did": repo, "record_type": self.kind.collection(), "record": record});
                ("generic_records", row)
            }
        };
        let row = row.as_object_mut().unwrap();
        row.insert("created_at".to_owned(), self.created_at(stamped).into());
        if has_cid {
            row.insert("cid".to_owned(), self.cid().into());
        }
        if has_commit {
            row.insert("commit_time".to_owned(), stamped.commit_time.clone().into());
        }
        (table, std::mem::take(row))
    }
}

/// PostgreSQL holds no NUL: in names something stands in for it.
pub(super) fn without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('\0', "").into(),
        Value::Array(items) => items.iter().map(without_nul).collect(),
        Value::Object(map) => {
            map.iter().map(|(name, value)| (name.replace('\0', "\u{fffd}"), without_nul(value))).collect()
        }
        other => other.clone(),
    }
}
