//! Compares the tables with repos as their hosts have them.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use penstock_core::backfill::{Reason, is_did};
use penstock_core::causes::chain;
use penstock_core::settings::Settings;
use penstock_heal::{Engine, HealError, Outcome, ReadError};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::shutdown;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cli::{Audit, Output};
use crate::error::Error;

/// How many repos are compared where nobody says.
const DEFAULT: u32 = 10;

/// How many are named at once.
const PAGE: u32 = 1000;

/// A repo could not be compared.
const UNREAD: u8 = 2;

/// What was found so far.
#[derive(Default)]
struct Found {
    equal: u64,
    different: u64,
    unread: u64,
}

type Compared = (String, Result<Outcome, ReadError>);

pub(super) async fn run(args: &Audit, settings: Settings) -> Result<ExitCode, Error> {
    super::telemetry::init_logs(&settings)?;
    if settings.postgres.url.is_none() {
        return Err(Error::NO_DATABASE);
    }
    if let Some(bad) = args.dids.iter().find(|did| !is_did(did)) {
        eprintln!("penstock: {bad:?} is no DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz");
        return Ok(ExitCode::from(crate::error::USAGE));
    }
    let settings = Arc::new(settings);
    let most = settings.heal.parallelism.get() as usize;
    let store = penstock_heal::open(&settings).await?;
    let engine = Engine::new(settings, store, &Metrics::new(), None)?;
    let stop = shutdown::on_signals()?;
    let mut found = Found::default();
    let compared = stop.run_until_cancelled(compare_all(args, &engine, most, &mut found)).await;
    compared.transpose()?;
    let Found { equal, different, unread } = found;
    eprintln!("{equal} repos equal, {different} different, {unread} not compared");
    Ok(match (different, unread) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(UNREAD),
        _ => ExitCode::FAILURE,
    })
}

async fn compare_all(args: &Audit, engine: &Engine, most: usize, found: &mut Found) -> Result<(), Error> {
    let mut jobs: JoinSet<Compared> = JoinSet::new();
    let mut dids = if args.all {
        engine.repos_after("", PAGE).await?
    } else if args.dids.is_empty() {
        engine.oldest_proofs(args.repos.unwrap_or(DEFAULT)).await?
    } else {
        args.dids.clone()
    };
    while let Some(last) = dids.last().cloned() {
        for did in dids {
            while jobs.len() >= most {
                take(args, engine, jobs.join_next().await, found).await?;
            }
            let (engine, is_full) = (engine.clone(), args.full);
            jobs.spawn(async move {
                let compared = if is_full { engine.compare(&did).await } else { engine.audit(&did).await };
                (did, compared)
            });
        }
        dids = if args.all { engine.repos_after(&last, PAGE).await? } else { Vec::new() };
    }
    while !jobs.is_empty() {
        take(args, engine, jobs.join_next().await, found).await?;
    }
    Ok(())
}

/// Tells what was found of a repo, and remembers it.
async fn take(
    args: &Audit,
    engine: &Engine,
    compared: Option<Result<Compared, tokio::task::JoinError>>,
    found: &mut Found,
) -> Result<(), Error> {
    let Some(compared) = compared else { return Ok(()) };
    let (did, compared) = compared.map_err(|source| Error::Part { part: "audit", source })?;
    match &compared {
        Ok(outcome) if outcome.differences.is_empty() => {
            found.equal += 1;
            if outcome.is_signed {
                engine.prove(&did, &outcome.rev).await?;
            }
        }
        Ok(_) => {
            found.different += 1;
            if args.repair {
                let listed = engine.queue().enqueue(&[&did], Reason::Audit).await;
                listed.map_err(HealError::database("list a repo to be healed"))?;
            }
        }
        Err(_) => found.unread += 1,
    }
    let text = match args.output {
        Output::Json => format!("{}\n", as_json(&did, &compared)),
        Output::Text => as_text(&did, &compared),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::Print)
}

fn as_json(did: &str, compared: &Result<Outcome, ReadError>) -> serde_json::Value {
    match compared {
        Ok(outcome) => {
            let differences = outcome
                .differences
                .iter()
                .map(|one| json!({ "path": one.path, "kind": one.kind.word(), "detail": one.detail }));
            json!({
                "did": did,
                "rev": outcome.rev,
                "records": outcome.records,
                "signed": outcome.is_signed,
                "unfit": outcome.unfit,
                "proof": if outcome.by_root { "root" } else { "records" },
                "differences": differences.collect::<Vec<_>>(),
            })
        }
        Err(error) => json!({ "did": did, "error": chain(error) }),
    }
}

fn as_text(did: &str, compared: &Result<Outcome, ReadError>) -> String {
    let outcome = match compared {
        Ok(outcome) => outcome,
        Err(error) => return format!("{did}  not compared: {}\n", chain(error)),
    };
    let Outcome { rev, records, differences, by_root, .. } = outcome;
    if differences.is_empty() {
        let by_root = if *by_root { ", by its root" } else { "" };
        return format!("{did}  equal at {rev}, {records} records{by_root}\n");
    }
    let mut text = format!("{did}  {} differences at {rev}, {records} records\n", differences.len());
    for one in differences {
        text += &format!("  {:<9} {}  {}\n", one.kind.word(), one.path, one.detail);
    }
    text
}
