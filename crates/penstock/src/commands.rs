//! The commands: settings first, then logs, then the work.

mod crd;
mod doctor;
mod healthcheck;
mod log_level;
mod migrate;
mod openapi;
mod replay;
mod run;
mod service;
mod settings;
mod simulate;
mod telemetry;

use std::io;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command};
use crate::error::Error;

/// Does what the command line says.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode, Error> {
    runtime(&cli.command).map_err(Error::Runtime)?.block_on(async {
        let done = match &cli.command {
            Command::Doctor(args) => return Ok(Box::pin(doctor::run(args, &settings::load(cli)?)).await),
            Command::Ingest => Box::pin(service::ingest(settings::load(cli)?)).await,
            Command::Worker => Box::pin(service::worker(settings::load(cli)?)).await,
            Command::Dashboard => Box::pin(service::dashboard(settings::load(cli)?)).await,
            Command::Operator => Box::pin(service::operator(settings::load(cli)?)).await,
            Command::Migrate { recount, rebuild } => migrate::run(&settings::load(cli)?, *recount, *rebuild).await,
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
            Command::Openapi => {
                openapi::print();
                Ok(())
            }
            Command::Settings => {
                settings::print();
                Ok(())
            }
        };
        done.map(|()| ExitCode::SUCCESS)
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
