use std::collections::HashMap;

use super::*;
use crate::store::parsed::Op;
use crate::store::row::Cell;

const REPO: &str = "did:plc:a";

fn like(post: &str) -> Row<'static> {
    let text = |text: &str| Cell::Text(Some(Cow::Owned(text.to_owned())));
    let cells = vec![text(REPO), text(post), Cell::Text(None), Cell::Json(None), Cell::Time(None), Cell::Time(None)];
    Row { table: Table::Likes, cells, derived: None, cid: None }
}

fn uri(rkey: &str) -> String {
    format!("at://{REPO}/app.bsky.feed.like/{rkey}")
}

fn version(n: u64) -> Version {
    Version { rev: Some(format!("3{n}")), stamp: Some(Stamp::live(StreamId { ms: n, seq: 0 }, None)) }
}

fn op(rkey: &str, n: u64, what: What<'static>) -> Op<'static> {
    Op { repo: REPO, uri: uri(rkey), homes: Table::Likes.alone(), version: version(n), what, kept: None }
}

fn pair(post: &str) -> Pair {
    Pair { table: Table::Likes, a: REPO.to_owned(), b: post.to_owned() }
}

/// Lets a like stand, as the row that holds its pair.
fn stands(seen: &mut Existing, rkey: &str, n: u64, post: &str) {
    let standing = Standing {
        place: Place::Row(Table::Likes),
        version: version(n),
        pair: Some(pair(post)),
        counted: Some(post.to_owned()),
    };
    seen.standing.insert(uri(rkey), vec![standing]);
    seen.holders.insert(pair(post), (uri(rkey), version(n)));
}

fn decided<'b>(ops: &'b [Op<'static>], seen: &Existing, through: Option<StreamId>) -> Plan<'b, 'static> {
    let changes = crate::store::parsed::fold(ops, |_| None, |_, _, _| false);
    decide(changes, seen, |_| through)
}

fn keys<V>(map: &BTreeMap<String, V>) -> Vec<&str> {
    map.keys().map(|uri| uri.rsplit('/').next().unwrap()).collect()
}

#[test]
fn a_new_like_is_inserted_and_counted() {
    let ops = [op("l", 1, What::Put(like("p")))];
    let plan = decided(&ops, &Existing::default(), None);
    assert_eq!(keys(&plan.tables[&Table::Likes].inserts), ["l"]);
    assert_eq!(plan.counts.by_post()["p"], [1, 0, 0, 0, 0]);
}

#[test]
fn what_is_written_already_is_not_written_again() {
    let mut seen = Existing::default();
    stands(&mut seen, "l", 1, "p");
    assert_eq!(decided(&[op("l", 1, What::Put(like("p")))], &seen, None), Plan::default());
    assert_eq!(decided(&[op("l", 0, What::Delete)], &seen, None), Plan::default());
}

#[test]
fn a_like_that_moves_takes_its_count_along() {
    let mut seen = Existing::default();
    stands(&mut seen, "l", 1, "p");
    let ops = [op("l", 2, What::Put(like("q")))];
    let plan = decided(&ops, &seen, None);
    let likes = &plan.tables[&Table::Likes];
    assert_eq!((keys(&likes.inserts), likes.gone.len(), likes.updates.len()), (vec!["l"], 1, 0));
    assert_eq!((plan.counts.by_post()["p"][0], plan.counts.by_post()["q"][0]), (-1, 1));
}

#[test]
fn a_like_rewritten_in_place_leaves_the_counts_alone() {
    let mut seen = Existing::default();
    stands(&mut seen, "l", 1, "p");
    let ops = [op("l", 2, What::Put(like("p")))];
    let plan = decided(&ops, &seen, None);
    assert_eq!(keys(&plan.tables[&Table::Likes].updates), ["l"]);
    assert!(plan.counts.by_post().values().flatten().all(|by| *by == 0));
}

#[test]
fn the_holder_of_a_pair_yields_to_a_greater_rev_only() {
    let mut seen = Existing::default();
    stands(&mut seen, "old", 5, "p");
    let ops = [op("new", 6, What::Put(like("p")))];
    let plan = decided(&ops, &seen, None);
    let likes = &plan.tables[&Table::Likes];
    assert_eq!(likes.demoted, BTreeSet::from([uri("old")]));
    assert_eq!((likes.gone.len(), keys(&likes.inserts)), (1, vec!["new"]));

    let ops = [op("new", 4, What::Put(like("p")))];
    let plan = decided(&ops, &seen, None);
    assert!(plan.tables.is_empty());
    assert_eq!(keys(&plan.shadows.set), ["new"]);
}

#[test]
fn whoever_waits_is_promoted_when_the_holder_goes() {
    let mut seen = Existing::default();
    stands(&mut seen, "old", 5, "p");
    let row = serde_json::value::RawValue::from_string(like("p").to_json()).unwrap();
    let waiting = [3, 4].map(|n| Waiting { uri: uri(&format!("w{n}")), version: version(n), row: row.clone() });
    seen.waiting = HashMap::from([(pair("p"), waiting.to_vec())]);
    let ops = [op("old", 6, What::Delete)];
    let plan = decided(&ops, &seen, None);
    assert_eq!(keys(&plan.tables[&Table::Likes].inserts), ["w4"]);
    assert_eq!(plan.shadows.gone, BTreeSet::from([uri("w4")]));
    assert_eq!(keys(&plan.tombstones.set), ["old"]);
    assert!(plan.counts.by_post().values().flatten().all(|by| *by == 0));
}

#[test]
fn rows_of_a_deleted_account_do_not_stand_in_the_way() {
    let mut seen = Existing::default();
    stands(&mut seen, "old", 5, "p");
    let ops = [op("new", 8, What::Put(like("p")))];
    let plan = decided(&ops, &seen, Some(StreamId { ms: 7, seq: 0 }));
    let likes = &plan.tables[&Table::Likes];
    assert_eq!((likes.demoted.len(), likes.gone.len(), keys(&likes.inserts)), (0, 1, vec!["new"]));
}
