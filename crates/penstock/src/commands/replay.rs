//! Serves a recording until it is told to end.

use penstock_core::settings::Settings;
use penstock_telemetry::shutdown;
use tracing::info;

use crate::cli::Replay;
use crate::error::Error;

pub(super) async fn run(args: &Replay, settings: &Settings) -> Result<(), Error> {
    super::telemetry::init_logs(settings)?;
    let cancel = shutdown::on_signals()?;
    let mut relay = penstock_replay::bind(args.into()).await?;
    relay.prepared().await?;
    info!(address = %relay.local_addr(), url = %format_args!("ws://{}", relay.local_addr()), "serving the recording");
    Ok(relay.run(cancel).await?)
}
