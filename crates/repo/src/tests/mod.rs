//! Against real servers, and against CARs that somebody made badly.

mod cars;
mod hosts;
mod listings;
mod repos;

use std::time::Duration;

use penstock_identity::Identities;
use penstock_identity::web::Web;
use penstock_telemetry::metrics::Metrics;
use serde_json::{Value, json};

use crate::client::Patience;
use crate::testing::{MadeRepo, World, did};
use crate::{Repo, RepoError, RepoRecord, Repos};

const REV: &str = "3kaaaaaaaaaaa";

/// What reads repos of a world.
fn repos(world: &World, flags: &[(&str, &str)]) -> Repos {
    repos_with(world, flags, Duration::from_secs(60))
}

fn repos_with(world: &World, flags: &[(&str, &str)], wait: Duration) -> Repos {
    let settings = world.settings(flags).unwrap();
    let metrics = Metrics::new();
    let identities = Identities::new(&settings, None, &metrics).unwrap();
    let web = Web::new(&settings.identity).unwrap();
    Repos::with(&settings, identities, &metrics, web, Patience { wait, rate: 8 * 1024 }).unwrap()
}

/// A repo with records of several kinds.
fn mixed(did: &str) -> MadeRepo {
    let mut repo = MadeRepo::of_posts(did, REV, 300);
    for n in 0..200 {
        let subject = format!("at://{did}/app.bsky.feed.post/{n}");
        repo.put(&format!("app.bsky.feed.like/l{n}"), &json!({"$type": "app.bsky.feed.like", "subject": subject}));
        repo.put(&format!("app.bsky.feed.like.more/{n}"), &json!({"n": n, "negative": -n, "half": 0.5, "none": null}));
    }
    let strange = json!({
        "text": "\u{fffd}\u{0}\"\\ é 🦋", "bytes": {"$bytes": "AQID"},
        "link": {"$link": "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"}, "list": [1, [true, {}]],
    });
    repo.put("app.bsky.actor.profile/self", &strange);
    repo
}

async fn all(repo: &mut Repo) -> Result<Vec<RepoRecord>, RepoError> {
    let mut records = Vec::new();
    loop {
        let next = repo.next(64, 20_000).await?;
        if next.is_empty() {
            return Ok(records);
        }
        assert!(next.len() <= 64);
        records.extend(next);
    }
}

/// Holds what was read against what was made.
fn assert_same(records: &[RepoRecord], made: &MadeRepo) {
    let paths: Vec<&str> = records.iter().map(|record| &*record.path).collect();
    let expected: Vec<&String> = made.records.keys().collect();
    assert_eq!(paths, expected);
    for record in records {
        let block = &made.records[&*record.path];
        assert_eq!(*record.cid, *made.cid(&record.path).unwrap().to_string());
        let value: Value = serde_json::from_str(record.record.get()).unwrap();
        assert_eq!(&crate::testing::dag_cbor(&value), block, "{}", record.path);
    }
}

fn word(result: &Result<Repo, RepoError>) -> &'static str {
    result.as_ref().map_or_else(RepoError::word, |_| "ok")
}
