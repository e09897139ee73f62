//! What histories show too seldom.

use super::*;

const A: &str = "did:plc:a";

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn link(rev: u64, since: u64) -> Link {
    Link { rev, since: Some(since), root: Some(rev * 10), before: Some(since * 10) }
}

fn row(rev: u64) -> State {
    State { rev, root: Some(rev * 10), ..State::NOTHING }
}

/// A chain that has read a stream without entries.
fn chain() -> Chain {
    let mut chain = Chain::new(1 << 16, true);
    assert_eq!(chain.to_read(), Some(None));
    chain.read_through(None);
    assert_eq!(chain.to_read(), None);
    chain
}

fn late(chain: &Chain) -> Vec<(&str, Why)> {
    chain.late().iter().map(|late| (&*late.did, late.why)).collect()
}

fn publish(chain: &mut Chain, last: u64) {
    chain.send();
    chain.written(Some(id(last)));
}

#[test]
fn commits_carry_a_mark_until_its_entry_is_settled() {
    let mut chain = chain();
    chain.learn(A, row(5), chain.generation());
    let why = Some(Why::Since);
    assert_eq!(chain.commit(A, link(7, 6)), Judged { verdict: Verdict::Breaks(Why::Since), why });
    assert_eq!(chain.commit(A, link(8, 7)), Judged { verdict: Verdict::Follows, why });
    publish(&mut chain, 1);
    assert_eq!(chain.commit(A, link(9, 8)), Judged { verdict: Verdict::Follows, why });
    publish(&mut chain, 2);
    chain.settle(id(1), None);
    assert_eq!(chain.commit(A, link(10, 9)).why, why, "what came last is not settled");
    publish(&mut chain, 3);
    chain.settle(id(3), None);
    assert_eq!(chain.commit(A, link(11, 10)), Judged { verdict: Verdict::Follows, why: None });
}

#[test]
fn a_sync_of_the_tree_that_is_known_marks_nothing() {
    let mut chain = chain();
    chain.learn(A, row(5), chain.generation());
    assert_eq!(chain.sync(A, 7, Some(50)), None, "signed with another key");
    let next = Link { rev: 8, since: Some(7), root: Some(80), before: Some(50) };
    assert_eq!(chain.commit(A, next), Judged { verdict: Verdict::Follows, why: None });
}

#[test]
fn the_mark_of_a_sync_is_carried_until_it_is_moved() {
    let mut chain = chain();
    chain.learn(A, row(5), chain.generation());
    assert_eq!(chain.sync(A, 5, Some(50)), None, "nothing new");
    assert_eq!(chain.sync(A, 7, Some(70)), Some(Verdict::Breaks(Why::Sync)));
    assert_eq!(chain.sync(A, 7, Some(70)), None, "once");
    publish(&mut chain, 1);
    chain.settle(id(1), None);
    assert_eq!(chain.commit(A, link(8, 7)), Judged { verdict: Verdict::Follows, why: Some(Why::Sync) });
    publish(&mut chain, 2);
    chain.settle(id(2), Some(chain.marks_written()));
    assert_eq!(chain.commit(A, link(9, 8)), Judged { verdict: Verdict::Follows, why: None });
}

#[test]
fn an_answer_from_before_something_was_settled_does_not_count() {
    let mut chain = chain();
    let asked = chain.generation();
    chain.learn(A, row(5), asked);
    assert_eq!(chain.commit(A, link(6, 5)).verdict, Verdict::Follows);
    publish(&mut chain, 1);
    chain.settle(id(1), None);
    // It was asked before, and answers late.
    chain.learn(A, row(5), asked);
    assert_eq!(chain.commit(A, link(7, 6)).verdict, Verdict::Follows);
}

#[test]
fn a_repair_by_somebody_else_is_looked_up_before_the_repo_is_marked() {
    let mut chain = chain();
    chain.learn(A, row(5), chain.generation());
    let next = link(9, 8);
    assert!(chain.is_doubtful(A, next) && !chain.is_doubtful(A, link(6, 5)));
    chain.learn_now(A, row(8), chain.generation());
    assert_eq!(chain.commit(A, next).verdict, Verdict::Follows);
    // What is not settled is certain: PostgreSQL cannot know better.
    assert!(!chain.is_doubtful(A, link(12, 11)));
}

#[test]
fn what_could_not_be_judged_is_judged_once_postgresql_answers() {
    let mut chain = chain();
    for (repo, told, expected) in [
        ("did:plc:whole", row(6), Verdict::Follows),
        ("did:plc:new", State::NOTHING, Verdict::First),
        ("did:plc:missed", row(5), Verdict::Breaks(Why::Since)),
        ("did:plc:written", row(7), Verdict::NotNewer),
    ] {
        assert_eq!(chain.commit(repo, link(7, 6)).verdict, Verdict::Unknown(Gap::NoState));
        assert_eq!(chain.deferred(9), [Box::<str>::from(repo)]);
        assert_eq!(chain.judge_deferred(told), Some(expected), "{repo}");
    }
    assert_eq!(late(&chain), [("did:plc:missed", Why::Since)]);
    publish(&mut chain, 1);
    assert!(chain.late().is_empty());
}

#[test]
fn marks_found_late_survive_a_batch_that_is_not_written() {
    let mut chain = chain();
    chain.commit(A, link(7, 6));
    publish(&mut chain, 1);
    chain.judge_deferred(row(5));
    chain.send();
    assert!(chain.late().is_empty());
    chain.drop_in_flight();
    assert_eq!(late(&chain), [(A, Why::Since)]);
}

#[test]
fn what_is_not_written_is_not_marked_late_for_it_comes_again() {
    let mut chain = chain();
    chain.commit(A, link(7, 6));
    chain.send();
    chain.judge_deferred(row(5));
    assert_eq!(late(&chain), [(A, Why::Since)]);
    chain.drop_in_flight();
    assert_eq!(late(&chain), []);
}

#[test]
fn without_a_database_a_chain_begins_with_two_commits_that_follow_each_other() {
    let mut chain = Chain::new(1 << 16, false);
    chain.read_through(None);
    assert_eq!(chain.commit(A, link(5, 4)).verdict, Verdict::Unknown(Gap::NoState));
    assert_eq!(chain.commit(A, link(9, 8)).verdict, Verdict::Unknown(Gap::NoState));
    assert_eq!(chain.commit(A, link(10, 9)).verdict, Verdict::Follows);
    assert_eq!(chain.commit(A, link(12, 11)).verdict, Verdict::Breaks(Why::Since));
    assert!(chain.deferred(9).is_empty());
}

#[test]
fn a_commit_without_a_rev_leaves_nothing_to_compare() {
    let mut chain = Chain::new(1 << 16, true);
    chain.read(A, Some(5), Some(50), None);
    chain.read(A, None, None, None);
    chain.read_through(Some(id(2)));
    assert_eq!(chain.commit(A, link(9, 8)).verdict, Verdict::First);
}
