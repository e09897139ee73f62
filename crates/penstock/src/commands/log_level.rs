//! Tells or changes the log level of a process that runs, from the same host or pod.

use std::io::{Write as _, stdout};

use penstock_core::settings::Settings;
use penstock_telemetry::admin::ask_log_level;

use crate::cli::HostPort;
use crate::error::Error;

pub(super) async fn run(level: Option<&str>, address: Option<&HostPort>, settings: &Settings) -> Result<(), Error> {
    let address = address.map_or_else(|| settings.telemetry.admin_address.to_string(), ToString::to_string);
    let used = ask_log_level(address, level).await?;
    writeln!(stdout(), "{}", used.trim()).map_err(Error::Print)
}
