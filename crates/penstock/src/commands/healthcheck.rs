//! Asks a process whether it is alive, for Docker and the like.

use penstock_core::settings::Settings;

use crate::cli::HostPort;
use crate::error::Error;

pub(super) async fn run(address: Option<&HostPort>, settings: &Settings) -> Result<(), Error> {
    let address = address.map_or_else(|| settings.telemetry.admin_address.to_string(), ToString::to_string);
    Ok(penstock_telemetry::admin::healthcheck(address).await?)
}
