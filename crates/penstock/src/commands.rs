//! The commands: settings first, then logs, then the work.

mod audit;
mod backfill;
mod console;
mod crd;
mod doctor;
mod healthcheck;
mod identity;
mod log_level;
mod manual;
mod migrate;
mod openapi;
pub(crate) mod plugin;
mod prune;
mod replay;
mod repo;
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
            Command::Identity(args) => return Box::pin(identity::run(args, &settings::load(cli)?)).await,
            Command::Repo(args) => return Box::pin(repo::run(args, &settings::load(cli)?)).await,
            Command::Status(args) => return Box::pin(console::status(args, cli)).await,
            Command::Top(args) => Box::pin(console::top(args, cli)).await,
            Command::Tail(args) => Box::pin(console::tail(args, cli)).await,
            Command::Ingest => Box::pin(service::ingest(settings::load(cli)?)).await,
            Command::Worker => Box::pin(service::worker(settings::load(cli)?)).await,
            Command::Heal => Box::pin(service::heal(settings::load(cli)?)).await,
            Command::Backfill(args) => return Box::pin(backfill::run(args, settings::load(cli)?)).await,
            Command::Audit(args) => return Box::pin(audit::run(args, settings::load(cli)?)).await,
            Command::Dashboard => Box::pin(service::dashboard(settings::load(cli)?)).await,
            Command::Operator => Box::pin(service::operator(settings::load(cli)?)).await,
            Command::Migrate(args) => Box::pin(migrate::run(args, &settings::load(cli)?)).await,
            Command::Prune(args) => Box::pin(prune::run(args, &settings::load(cli)?)).await,
            Command::Run(args) => Box::pin(run::run(args, settings::layers(cli)?)).await,
            Command::Replay(args) => replay::run(args, &settings::load(cli)?).await,
            Command::Simulate(args) => simulate::run(args),
            Command::Healthcheck { address } => healthcheck::run(address.as_ref(), &settings::load(cli)?).await,
            Command::LogLevel { level, address } => {
                log_level::run(level.as_deref(), address.as_ref(), &settings::load(cli)?).await
            }
            Command::Crd => {
                crd::print();
                Ok(())
            }
            Command::Openapi => {
                openapi::print();
                Ok(())
            }
            Command::Settings { format } => {
                settings::print(*format);
                Ok(())
            }
            Command::Completions { shell } => {
                manual::completions(*shell);
                Ok(())
            }
            Command::Man { folder } => manual::pages(folder.as_deref()),
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
