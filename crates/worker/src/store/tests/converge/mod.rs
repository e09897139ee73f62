//! The promise: whatever the order, the redelivery and the number of workers, the database ends as if each repo's
//! events had been applied once and in order. The model is a plain fold and shares no code with the store.
//!
//! `PROPTEST_CASES` runs more cases than a test run should, other ones each time unless `PROPTEST_RNG_SEED` names one.
//! What fails is printed as small as it could be made; it becomes a test by name in `found`, not a file of seeds.

mod database;
mod derived;
mod found;
mod history;
mod model;
mod records;
mod snapshots;

use std::time::Duration;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use database::Database;
use history::{Case, cases, crowds, deferred};

/// Runs a property on many cases, or as many as the environment asks for.
fn hold(few: u32, cases: impl Strategy<Value = Case>, property: impl Fn(&Database, &Case) -> Result<(), String>) {
    hold_with(Duration::ZERO, few, cases, property);
}

fn hold_with(
    delete_grace: Duration,
    few: u32,
    cases: impl Strategy<Value = Case>,
    property: impl Fn(&Database, &Case) -> Result<(), String>,
) {
    let asked = |name| std::env::var_os(name).is_some();
    let mut config = Config { failure_persistence: None, max_shrink_iters: 3_000, ..Config::default() };
    if !asked("PROPTEST_CASES") {
        config.cases = few;
        if !asked("PROPTEST_RNG_SEED") {
            config.rng_seed = RngSeed::Fixed(1);
        }
    }
    let database = Database::new(delete_grace);
    let outcome = TestRunner::new(config).run(&cases, |case| {
        database.empty();
        property(&database, &case).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => panic!("{reason}\nof {case}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn any_deal_of_a_history_ends_as_its_events_in_order() {
    hold(100, cases(40), Database::converges_in_turn);
}

#[test]
fn any_deal_to_workers_at_once_ends_as_its_events_in_order() {
    hold(50, cases(60), Database::converges_at_once);
}

#[test]
fn deletions_that_wait_and_may_be_undone_end_as_if_only_those_had_been_that_were_carried_out() {
    hold_with(Duration::from_secs(24 * 3600), 100, deferred(40), Database::converges_in_turn);
}

#[test]
fn deletions_that_wait_end_the_same_whoever_takes_which_event_first() {
    hold_with(Duration::from_secs(24 * 3600), 40, deferred(60), Database::converges_at_once);
}

#[test]
fn records_that_crowd_few_places_end_as_their_events_in_order() {
    hold(60, crowds(20), Database::converges_in_turn);
}

#[test]
fn records_that_crowd_few_places_at_once_end_as_their_events_in_order() {
    hold(30, crowds(30), Database::converges_at_once);
}
