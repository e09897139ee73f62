//! The one binary: every service and tool of Penstock.

mod allocator;
mod cli;
mod commands;
mod error;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use penstock_core::causes::chain;

use cli::Cli;
use error::{Error, USAGE};

fn main() -> ExitCode {
    if let Some(code) = commands::plugin::main() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) => {
            let _ = asked.print();
            let help = matches!(asked.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if help { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    allocator::bound(&cli.command);
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("penstock: {}", chain(&error));
            ExitCode::from(Error::exit_code(&error))
        }
    }
}
