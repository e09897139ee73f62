//! Seeds and shows what is known of accounts.

mod progress;
mod show;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use penstock_core::settings::Settings;
use penstock_identity::import::{Source, Told, import};
use penstock_postgres::{Address, Pool};
use sqlx::postgres::PgPoolOptions;

use crate::cli::{Identity, Import};
use crate::error::Error;
use progress::Progress;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(args: &Identity, settings: &Settings) -> Result<ExitCode, Error> {
    match args {
        Identity::Import(args) => run_import(args, settings).await.map(|()| ExitCode::SUCCESS),
        Identity::Show(args) => show::run(args, settings).await,
    }
}

async fn run_import(args: &Import, settings: &Settings) -> Result<(), Error> {
    super::telemetry::init_logs(settings)?;
    let pool = pool(settings).ok_or(Error::NO_DATABASE)?;
    let source = if args.file == Path::new("-") { Source::Stdin } else { Source::File(args.file.clone()) };
    let progress = Progress::new(&source);
    let totals = import(&pool, source, args.from_start, &|told: Told<'_>| progress.tell(told)).await;
    progress.end(totals.as_ref().ok());
    totals?;
    Ok(())
}

/// Connections to the database, made when they are needed; none where none is set.
fn pool(settings: &Settings) -> Option<Pool> {
    let options = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
    Pool::lazy(Address::of(&settings.postgres)?, options, |_| true).ok()
}
