//! Repos as people have them, made of numbers: the same ones in every run, signed, each with the tree of the specification.

use std::collections::HashSet;

use penstock_repo::testing::{MadeRepo, did};
use penstock_wire::rev_text;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// The rev of all of them: of July 2026.
pub(crate) const REV: &str = "3mpcxuyaaaa2a";

/// When the first record was made, in microseconds of the epoch.
const FIRST: u64 = 1_700_000_000_000_000;

/// Between two records of a repo, in microseconds: about a day and a half.
const APART: u64 = 130_000_000_000;

/// Of a thousand records, how many are of a kind; the rest are likes.
const POSTS: u32 = 190;
const FOLLOWS: u32 = 140;
const REPOSTS: u32 = 100;
const BLOCKS: u32 = 20;
const LIST_ITEMS: u32 = 15;
const GATES: u32 = 10;
const LISTS: u32 = 5;
const OTHERS: u32 = 5;

/// Of a hundred records that point at something, how many point at an account that is hosted here.
const HOSTED: u32 = 70;

/// How many accounts there are elsewhere for each that is hosted.
const ELSEWHERE: u64 = 4;

const WORDS: [&str; 24] = [
    "and", "the", "weather", "today", "morning", "of", "birds", "cannot", "believe", "what", "happened", "again",
    "river", "coffee", "with", "a", "friend", "who", "never", "reads", "books", "but", "writes", "them",
];

/// What records are made from.
struct Maker {
    random: StdRng,
    /// Whose repo it is.
    n: u64,
    /// How many accounts are taken for hosted: those that are, or enough for a large repo to point at.
    hosted: u64,
    /// Between two records, in microseconds.
    apart: u64,
    /// What the repo points at: nobody likes or follows twice.
    pointed: HashSet<(&'static str, String)>,
}

/// Makes the nth of so many repos, with so many records.
pub(crate) fn repo(n: u64, repos: u64, records: u64) -> MadeRepo {
    // Those of one repo lie close together where there are many.
    let apart = APART.min(APART * 400 / records.max(1));
    let (random, hosted) = (StdRng::seed_from_u64(n), repos.max(records / 2));
    let mut maker = Maker { random, n, hosted, apart, pointed: HashSet::new() };
    let mut made = MadeRepo::new(&did(n), REV);
    made.put("app.bsky.actor.profile/self", &maker.profile());
    for at in 1..records {
        let time = FIRST + at * apart + n % 1_000;
        let (collection, record) = maker.record(time);
        made.put(&format!("{collection}/{}", rev_text(time << 10)), &record);
    }
    made
}

// === impl Maker ===

impl Maker {
    fn profile(&mut self) -> Value {
        json!({"$type": "app.bsky.actor.profile", "displayName": format!("Account {}", self.n), "description": self.text(15),
            "avatar": {"$type": "blob", "ref": {"$link": self.cid()}, "mimeType": "image/jpeg", "size": 81_234},
            "createdAt": date(FIRST)})
    }

    fn record(&mut self, time: u64) -> (&'static str, Value) {
        let created = date(time);
        let mut least = 0;
        let kind = self.random.random_range(0..1_000_u32);
        let mut is = |share: u32| {
            least += share;
            kind < least
        };
        let (collection, mut record) = if is(POSTS) {
            ("app.bsky.feed.post", self.post())
        } else if is(FOLLOWS) {
            ("app.bsky.graph.follow", json!({"subject": self.account("follow")}))
        } else if is(REPOSTS) {
            ("app.bsky.feed.repost", json!({"subject": self.reference("repost")}))
        } else if is(BLOCKS) {
            ("app.bsky.graph.block", json!({"subject": self.account("block")}))
        } else if is(LIST_ITEMS) {
            let list = format!("at://{}/app.bsky.graph.list/3kaaaaaaaaa2a", did(self.n));
            ("app.bsky.graph.listitem", json!({"list": list, "subject": self.account("item")}))
        } else if is(GATES) {
            let post = format!("at://{}/app.bsky.feed.post/{}", did(self.n), rev_text(time << 10));
            ("app.bsky.feed.threadgate", json!({"post": post, "allow": []}))
        } else if is(LISTS) {
            let (name, description) = (self.text(3), self.text(12));
            let purpose = "app.bsky.graph.defs#curatelist";
            ("app.bsky.graph.list", json!({"name": name, "purpose": purpose, "description": description}))
        } else if is(OTHERS) {
            ("com.example.status", json!({"status": self.text(6), "mood": "calm"}))
        } else {
            ("app.bsky.feed.like", json!({"subject": self.reference("like")}))
        };
        if let Some(fields) = record.as_object_mut() {
            fields.insert("$type".to_owned(), collection.into());
            fields.insert("createdAt".to_owned(), created.into());
        }
        (collection, record)
    }

    /// A post: a reply in two of five, with a picture in one of five, a quote in one of twenty.
    fn post(&mut self) -> Value {
        let words = self.random.random_range(3..40);
        let mut post = json!({"text": self.text(words), "langs": ["en"]});
        let Some(fields) = post.as_object_mut() else { return post };
        if self.random.random_range(0..5_u32) < 2 {
            let parent = self.reference("reply");
            fields.insert("reply".to_owned(), json!({"root": parent, "parent": parent}));
        }
        match self.random.random_range(0..20_u32) {
            0 => {
                let quoted = self.reference("quote");
                fields.insert("embed".to_owned(), json!({"$type": "app.bsky.embed.record", "record": quoted}));
            }
            1..5 => {
                let image = json!({"alt": self.text(10), "aspectRatio": {"width": 1_600, "height": 1_200},
                    "image": {"$type": "blob", "ref": {"$link": self.cid()}, "mimeType": "image/jpeg", "size": 512_345}});
                fields.insert("embed".to_owned(), json!({"$type": "app.bsky.embed.images", "images": [image]}));
            }
            _ => {}
        }
        post
    }

    /// Points at a post, which may or may not be there.
    fn reference(&mut self, by: &'static str) -> Value {
        let cid = self.cid();
        loop {
            let account = self.number();
            let time = FIRST + self.random.random_range(1..400_u64) * self.apart + account % 1_000;
            let uri = format!("at://{}/app.bsky.feed.post/{}", did(account), rev_text(time << 10));
            if self.pointed.insert((by, uri.clone())) {
                return json!({"uri": uri, "cid": cid});
            }
        }
    }

    fn account(&mut self, by: &'static str) -> String {
        loop {
            let account = did(self.number());
            if self.pointed.insert((by, account.clone())) {
                return account;
            }
        }
    }

    fn number(&mut self) -> u64 {
        if self.random.random_range(0..100_u32) < HOSTED {
            self.random.random_range(0..self.hosted)
        } else {
            self.hosted + self.random.random_range(0..self.hosted * ELSEWHERE)
        }
    }

    fn cid(&mut self) -> String {
        penstock_wire::BlockCid::dag_cbor(&self.random.random::<[u8; 32]>()).to_string()
    }

    fn text(&mut self, words: usize) -> String {
        let word = |_| WORDS.get(self.random.random_range(0..WORDS.len())).copied().unwrap_or_default();
        (0..words).map(word).collect::<Vec<_>>().join(" ")
    }
}

/// Writes a time of the epoch as records do.
fn date(micros: u64) -> String {
    let time = i64::try_from(micros / 1_000).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    time.map(|time| format!("{time:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_repo_is_the_same_in_every_run_and_has_something_of_every_kind() {
        let (one, again) = (repo(7, 400, 2_000), repo(7, 400, 2_000));
        assert_eq!(one.car(), again.car());
        assert_eq!(one.records.len(), 2_000);
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for path in one.records.keys() {
            *kinds.entry(path.split_once('/').unwrap().0).or_default() += 1;
        }
        assert_eq!(kinds.len(), 10, "{kinds:?}");
        assert!(kinds["app.bsky.feed.like"] > 900, "{kinds:?}");
        assert!(penstock_wire::rev_number(REV).is_some());
        assert_ne!(repo(8, 400, 10).car(), repo(7, 400, 10).car());
    }
}
