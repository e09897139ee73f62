//! Asks a process whether it is alive, for Docker and the like.

use std::net::SocketAddr;

use penstock_core::settings::Settings;

use crate::error::Error;

pub(super) async fn run(address: Option<SocketAddr>, settings: &Settings) -> Result<(), Error> {
    let address = address.unwrap_or(settings.telemetry.admin_address);
    Ok(penstock_telemetry::admin::healthcheck(address).await?)
}
