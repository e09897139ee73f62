//! Removes from the database what the filter leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, stderr};

use penstock_core::filter::Rules;
use penstock_core::filter_files;
use penstock_core::settings::Settings;
use penstock_telemetry::shutdown;
use penstock_worker::store::{ApplyError, OutsideSearch, Store};
use penstock_worker::store_settings;
use tokio::time::{Duration, sleep};

use crate::cli::Prune;
use crate::error::Error;

/// How many records are looked at at once, and removed in one transaction at most.
const PAGE: u32 = 2_000;

/// Whose totals the counts are added to; workers publish them.
const WORKER: &str = "prune";

/// The pause before PostgreSQL is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often what cannot be done now is tried.
const TRIES: u32 = 20;

/// What was found and removed so far, by what leaves it out.
#[derive(Default)]
struct Found {
    by: BTreeMap<String, (BTreeSet<String>, u64)>,
    records: u64,
    removed: u64,
}

pub(super) async fn run(args: &Prune, settings: &Settings) -> Result<(), Error> {
    super::telemetry::init_logs(settings)?;
    let rules = filter_files::load(&settings.filter)?;
    if rules.is_everything() {
        println!("The filter carries everything: nothing is outside.");
        return Ok(());
    }
    let settings = store_settings(settings).ok_or(Error::Missing {
        field: "postgres.url",
        how: "set the database URL, such as DATABASE_URL=postgres://user:password@host/database",
    })?;
    let store = Store::connect(&settings).await.map_err(Error::Store)?;
    let stop = shutdown::on_signals()?;
    let mut found = Found::default();
    let whole = stop.run_until_cancelled(Box::pin(walk(args, &store, &rules, &mut found))).await;
    let is_whole = whole.transpose()?.is_some();
    found.print(args.dry_run, is_whole);
    Ok(())
}

/// Goes through every table once.
async fn walk(args: &Prune, store: &Store, rules: &Rules, found: &mut Found) -> Result<(), Error> {
    let mut search = OutsideSearch::default();
    let shows = stderr().is_terminal();
    while let Some(outside) = store.find_outside(rules, &mut search, PAGE).await.map_err(Error::Store)? {
        for outside in outside {
            let by = rules.repo(&outside.did).or_else(|| rules.collection(&outside.collection));
            let (repos, records) = found.by.entry(by.map(|by| rules.name(by)).unwrap_or_default()).or_default();
            repos.insert(outside.did.clone());
            *records += outside.records;
            found.records += outside.records;
            if args.dry_run {
                continue;
            }
            let mut tries = 0;
            loop {
                match store.remove_outside(WORKER, &outside).await {
                    Ok(removed) => {
                        found.removed += removed;
                        break;
                    }
                    Err(ApplyError::Retry { .. }) if tries < TRIES => {
                        tries += 1;
                        sleep(PAUSE).await;
                    }
                    Err(error) => return Err(Error::Prune(error)),
                }
            }
        }
        if shows {
            eprint!("\r{} records outside, {} removed", found.records, found.removed);
        }
    }
    if shows {
        eprintln!();
    }
    Ok(())
}

// === impl Found ===

impl Found {
    fn print(&self, is_dry: bool, is_whole: bool) {
        for (by, (repos, records)) in &self.by {
            println!("{by}: {records} records of {} repos", repos.len());
        }
        let Self { records, removed, .. } = self;
        match (is_dry, is_whole) {
            (true, true) => println!("{records} records are outside the filter. Nothing was removed."),
            (true, false) => println!("Stopped: {records} records are outside the filter so far."),
            (false, true) => println!("{removed} records removed."),
            (false, false) => {
                println!("Stopped: {removed} records removed so far; the same command goes on from there.");
            }
        }
    }
}
