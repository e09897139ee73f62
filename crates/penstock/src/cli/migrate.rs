//! What `migrate` takes.

use std::time::Duration;

use clap::Args;

/// What `migrate` takes.
#[derive(Debug, Args)]
#[command(after_help = super::help::MIGRATE)]
pub(crate) struct Migrate {
    /// Only prints what would be done, which locks it takes, and roughly for how long; changes nothing.
    #[arg(long, visible_alias = "dry-run")]
    pub(crate) plan: bool,
    /// Recomputes the aggregates, for a database whose counts are wrong.
    #[arg(long)]
    pub(crate) recount: bool,
    /// Rebuilds notifications, thread contexts and viewer states from the rows, for a database whose workers did not write them.
    #[arg(long)]
    pub(crate) rebuild: bool,
    /// How long PostgreSQL may take to accept a connection, 1s to 10m.
    #[arg(long, default_value = "10s", value_parser = patience, value_name = "TIME")]
    pub(crate) connect_timeout: Duration,
}

fn patience(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(600);
    super::duration(text).and_then(|time| if allowed.contains(&time) { Ok(time) } else { Err("1s to 10m".to_owned()) })
}
