//! Whether the directory of accounts can be asked, as services ask it.

use penstock_core::settings::Settings;
use penstock_identity::{Identities, ResolveError};
use penstock_telemetry::metrics::Metrics;
use tokio::time::timeout;

use super::SIDE;
use crate::seen::DirectorySeen;
use crate::text;

/// Any account will do: a mirror that does not know it says so.
const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// Asks for one account.
pub(super) async fn look(settings: &Settings) -> DirectorySeen {
    let identities = match Identities::new(settings, None, &Metrics::new()) {
        Ok(identities) => identities,
        Err(error) => return DirectorySeen { error: Some(text::error(&error)) },
    };
    let error = match timeout(SIDE, identities.resolve(DID)).await {
        Ok(Ok(_) | Err(ResolveError::NotFound | ResolveError::Tombstoned)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no reply within {} s", SIDE.as_secs())),
    };
    DirectorySeen { error }
}
