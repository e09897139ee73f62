//! Reads whole repos in the foreground, or has healers do it.

mod progress;

use std::io::Write as _;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;

use penstock_core::backfill::{BackfillRequest, BackfillState, BackfillStatus, Scope};
use penstock_core::settings::Settings;
use penstock_heal::{Engine, HealError};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::shutdown;
use sha2::{Digest, Sha256};

use crate::cli::Backfill;
use crate::error::Error;
use progress::Progress;

/// How many repos that were given up are named.
const NAMED: u32 = 20;

pub(super) async fn run(args: &Backfill, mut settings: Settings) -> Result<ExitCode, Error> {
    super::telemetry::init_logs(&settings)?;
    if settings.postgres.url.is_none() {
        return Err(Error::NO_DATABASE);
    }
    if let Some(parallelism) = args.parallelism.and_then(NonZeroU32::new) {
        settings.heal.parallelism = parallelism;
    }
    let settings = Arc::new(settings);
    let store = penstock_heal::open(&settings).await?;
    let request = request(args);
    let name = args.name.clone().unwrap_or_else(|| name(&request));
    let engine = Engine::new(settings, store, &Metrics::new(), Some(name.clone()))?;
    if args.list {
        return list(&engine).await;
    }
    let status = put(&engine, &name, request, args.again).await?;
    if args.to_healers {
        print(&format!("{name}: {}\n", line(&status)))?;
        return Ok(ExitCode::SUCCESS);
    }
    if status.state == BackfillState::Complete {
        print(&format!("{name}: {}; --again begins anew\n", line(&status)))?;
        return Ok(ExitCode::from(u8::from(status.failed > 0)));
    }
    let stop = shutdown::on_signals()?;
    let progress = Progress::new(&status);
    let ended = engine.run_backfill(&name, stop.clone(), |status| progress.tell(status)).await;
    progress.end();
    let Some(status) = ended? else {
        print(&format!("{name}: somebody deleted it\n"))?;
        return Ok(ExitCode::FAILURE);
    };
    print(&format!("{name}: {}\n", line(&status)))?;
    if !status.state.is_over() {
        print("stopped; the same command goes on from here\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let failures = engine.backfills().failures(&name, NAMED).await;
    for (did, word, error) in failures.map_err(HealError::database("read which repos were given up"))? {
        print(&format!("  {did}  {word}: {error}\n"))?;
    }
    let is_good = status.state == BackfillState::Complete && status.failed == 0;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Registers it; where it is over already and that is wanted, anew.
async fn put(engine: &Engine, name: &str, request: BackfillRequest, again: bool) -> Result<BackfillStatus, Error> {
    let status = engine.backfills().put(name, request.clone()).await.map_err(HealError::from)?;
    if status.state == BackfillState::Failed || (again && status.state == BackfillState::Complete) {
        engine.backfills().delete(name).await.map_err(HealError::database("begin a backfill anew"))?;
        return Ok(engine.backfills().put(name, request).await.map_err(HealError::from)?);
    }
    Ok(status)
}

async fn list(engine: &Engine) -> Result<ExitCode, Error> {
    let listed = engine.backfills().list().await.map_err(HealError::database("read which backfills there are"))?;
    for status in listed {
        print(&format!("{}: {}\n", status.name, line(&status)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: &Backfill) -> BackfillRequest {
    let scope = match &args.collection {
        Some(collection) => Scope::Collection(collection.clone()),
        None if args.all || args.list => Scope::All(true),
        None => Scope::Repos(args.dids.clone()),
    };
    let Backfill { relay, rate, parallelism, verify, .. } = args;
    let (relay, rate, parallelism, verify) = (relay.clone(), *rate, *parallelism, *verify);
    BackfillRequest { relay, rate, parallelism, verify, ..BackfillRequest::new(scope) }
}

/// Names a backfill by what it covers, so that the same command finds it again.
fn name(request: &BackfillRequest) -> String {
    let name = match &request.scope {
        Scope::All(_) => "all".to_owned(),
        Scope::Collection(collection) => format!("collection-{collection}"),
        Scope::Repos(repos) => {
            let mut repos: Vec<&str> = repos.iter().map(String::as_str).collect();
            repos.sort_unstable();
            format!("repos-{}", short(&repos.join(" ")))
        }
    };
    request.relay.as_ref().map_or(name.clone(), |relay| format!("{name}-{}", short(relay)))
}

fn short(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Says how far a backfill is.
fn line(status: &BackfillStatus) -> String {
    let BackfillStatus { state, done, failed, listed, total, records, .. } = status;
    let of = total.map_or_else(|| format!("{listed} listed so far"), |total| format!("{total}"));
    let mut line = format!("{}, {done} of {of} repos read, {records} records", state.word());
    if *failed > 0 {
        line += &format!(", {failed} given up");
    }
    if let Some(end) = &status.ends_at {
        line += &format!(", ends about {end}");
    }
    if let Some(error) = status.error.as_ref().filter(|_| *state == BackfillState::Failed) {
        line += &format!(": {error}");
    }
    line
}

fn print(text: &str) -> Result<(), Error> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::Print)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_repos_in_another_order_are_the_same_backfill() {
        let of = |repos: &[&str]| {
            name(&BackfillRequest::new(Scope::Repos(repos.iter().map(|repo| (*repo).to_owned()).collect())))
        };
        assert_eq!(of(&["did:plc:a", "did:plc:b"]), of(&["did:plc:b", "did:plc:a"]));
        assert_ne!(of(&["did:plc:a"]), of(&["did:plc:b"]));
        assert!(penstock_core::backfill::is_name(&of(&["did:plc:a"])));
        let all = BackfillRequest::new(Scope::All(true));
        assert_eq!(name(&all), "all");
        assert_ne!(name(&BackfillRequest { relay: Some("https://relay.test".to_owned()), ..all }), "all");
    }
}
