//! The commands: settings first, then logs, then the work.

mod crd;
mod healthcheck;
mod log_level;
mod migrate;
mod replay;
mod run;
mod service;
mod settings;
mod simulate;

use std::io;

use penstock_core::settings::{LogFormat, Origin, SettingError, Settings, SettingsError};
use penstock_telemetry::{LogSettings, TelemetryError};
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command};
use crate::error::Error;

/// Does what the command line says.
pub(crate) fn run(cli: &Cli) -> Result<(), Error> {
    runtime(&cli.command).map_err(Error::Runtime)?.block_on(async {
        match &cli.command {
            Command::Ingest => Box::pin(service::ingest(settings::load(cli)?)).await,
            Command::Worker => Box::pin(service::worker(settings::load(cli)?)).await,
            Command::Dashboard => Box::pin(service::dashboard(settings::load(cli)?)).await,
            Command::Operator => Box::pin(service::operator(settings::load(cli)?)).await,
            Command::Migrate { recount } => migrate::run(&settings::load(cli)?, *recount).await,
            Command::Run(args) => Box::pin(run::run(args, settings::layers(cli)?)).await,
            Command::Replay(args) => replay::run(args, &settings::load(cli)?).await,
            Command::Simulate(args) => simulate::run(args),
            Command::Healthcheck { address } => healthcheck::run(*address, &settings::load(cli)?).await,
            Command::LogLevel { level, address } => {
                log_level::run(level.as_deref(), *address, &settings::load(cli)?).await
            }
            Command::Crd => {
                crd::print();
                Ok(())
            }
            Command::Settings => {
                settings::print();
                Ok(())
            }
        }
    })
}

/// Makes a runtime as wide as the machine. One thread does for the operator, which waits nearly all the time: each keeps memory
/// of its own.
fn runtime(command: &Command) -> io::Result<Runtime> {
    let mut builder = match command {
        Command::Operator => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

/// Starts the log as the settings say.
fn init_logs(settings: &Settings) -> Result<(), Error> {
    let format = match settings.telemetry.log_format {
        LogFormat::Pretty => penstock_telemetry::LogFormat::Pretty,
        LogFormat::Json => penstock_telemetry::LogFormat::Json,
        LogFormat::Auto => penstock_telemetry::LogFormat::Auto,
    };
    let filter = settings.telemetry.log_level.clone();
    penstock_telemetry::init_logs(&LogSettings { format, filter: filter.clone() }).map_err(|error| match error {
        TelemetryError::ParseLogFilter { .. } => Error::Settings(SettingsError(vec![SettingError {
            field: "telemetry.logLevel".to_owned(),
            origin: Origin::Environment("LOG_LEVEL".to_owned()),
            value: filter,
            allowed: "error, warn, info, debug, trace, off, or a filter such as info,penstock_ingest=debug".to_owned(),
        }])),
        error => error.into(),
    })
}
