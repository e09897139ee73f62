//! Tells or changes the log level of a process that runs, from the same host or pod.

use std::io::{Write as _, stdout};
use std::net::SocketAddr;

use penstock_core::settings::Settings;
use penstock_telemetry::admin::ask_log_level;

use crate::error::Error;

pub(super) async fn run(level: Option<&str>, address: Option<SocketAddr>, settings: &Settings) -> Result<(), Error> {
    let address = address.unwrap_or(settings.telemetry.admin_address);
    let used = ask_log_level(address, level).await?;
    writeln!(stdout(), "{}", used.trim()).map_err(Error::Print)
}
