//! Measures what Penstock promises of speed and memory, each figure beside a limit or a peer in the same run.
//!
//! Everything measured is a real process: the release build of `penstock`, a redis-server without persistence, a
//! PostgreSQL with fsync. It prints a table and leaves nothing behind.

mod cli;
mod entries;
mod error;
mod figures;
mod host;
mod pds;
mod process;
mod relay;
mod repos;
mod rows;
mod table;

use std::num::NonZeroU64;
use std::process::ExitCode;

use clap::Parser;
use penstock_core::causes::chain;
use penstock_local::testing::TempFolder;
use penstock_replay::Recording;

use cli::{Cli, What};
use error::Error;
use rows::{Bench, backfill, beside, big, identity, ingest, latency, live, proof, signed, tracing, worker};

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run(Cli::parse())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-bench: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Error> {
    let recording = cli.recording.map_or_else(Recording::default, Recording::File);
    if let (Some(address), Some(events)) = (cli.serve, cli.events) {
        return relay::serve(address, recording, events.get(), cli.sign).await;
    }
    if let (Some(address), Some(records)) = (cli.host, cli.events) {
        return pds::serve(address, cli.repos.get(), records.get()).await;
    }
    let here = std::env::current_exe().map_err(Error::io("find this program"))?;
    let penstock = here.with_file_name("penstock");
    if !penstock.is_file() {
        return Err(Error::FindPenstock { path: penstock });
    }
    if let Some(path) = cli.against.as_ref().filter(|path| !path.is_file()) {
        return Err(Error::FindPenstock { path: path.clone() });
    }
    let bench = Bench {
        penstock,
        folder: TempFolder::new()?,
        runs: cli.runs.get(),
        events: cli.events.map(NonZeroU64::get),
        recording,
        against: cli.against,
        repos: cli.repos.get(),
        tap: cli.tap,
    };
    let wanted = |what| cli.what.is_none_or(|wanted| wanted == what);
    let before = host::load();
    let mut lines = Vec::new();
    if wanted(What::Ingest) {
        lines.extend(ingest::measure(&bench).await?);
    }
    if wanted(What::Proof) {
        lines.extend(proof::measure(&bench).await?);
    }
    if wanted(What::Signed) {
        lines.extend(signed::measure(&bench).await?);
    }
    if wanted(What::Latency) {
        lines.extend(latency::measure(&bench).await?);
    }
    if wanted(What::Worker) {
        lines.extend(worker::measure(&bench).await?);
    }
    if wanted(What::Identity) {
        lines.extend(identity::measure(&bench).await?);
    }
    if wanted(What::Tracing) {
        lines.extend(tracing::measure(&bench).await?);
    }
    if wanted(What::Live) {
        lines.extend(live::measure(&bench).await?);
    }
    if wanted(What::Backfill) {
        lines.extend(backfill::measure(&bench).await?);
    }
    if wanted(What::Big) {
        lines.extend(big::measure(&bench).await?);
    }
    if wanted(What::Beside) {
        lines.extend(beside::measure(&bench).await?);
    }
    println!("{}\n\n{}", host::describe(bench.runs, &before), table::markdown(&lines));
    Ok(())
}
