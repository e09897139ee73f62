//! Opens the database: once for a command, for as long as it takes for the service.

use std::time::{Duration, Instant};

use penstock_core::backoff::Backoff;
use penstock_core::causes::chain;
use penstock_core::servers::{Circumstances, Failing, is_unanswered};
use penstock_core::settings::Settings;
use penstock_core::units::seconds;
use penstock_telemetry::admin::CheckHandle;
use penstock_worker::store::{Store, StoreSettings};
use tracing::{info, warn};

use crate::error::HealError;

/// The pauses between tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Opens the database that the settings name, and checks its tables.
///
/// # Errors
/// None is named, it cannot be reached, or its tables are not those of this version.
pub async fn open(settings: &Settings) -> Result<Store, HealError> {
    let settings = penstock_worker::store_settings(settings).ok_or(HealError::NoDatabase)?;
    open_once(&settings).await
}

async fn open_once(settings: &StoreSettings) -> Result<Store, HealError> {
    let store = Store::connect(settings).await?;
    store.check_schema().await?;
    Ok(store)
}

/// Opens the database, however long that takes.
pub(crate) async fn open_patiently(settings: &StoreSettings, check: &CheckHandle) -> Store {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut trouble = Failing::default();
    loop {
        match open_once(settings).await {
            Ok(store) => {
                if let Some(after) = trouble.over(Instant::now()) {
                    info!(after_seconds = seconds(after), "the healer can use the database again");
                }
                check.ok();
                return store;
            }
            Err(error) => {
                let how = Circumstances { is_away: false, is_unanswered: is_unanswered(&error) };
                check.failing(format!("cannot open the database yet: {}", chain(&error)));
                if let Some(failures) = trouble.failed(Instant::now(), how) {
                    let (action, error) = ("open the database", chain(&error));
                    warn!(action, failures, error, "the database refuses a healer, trying again");
                }
                tokio::time::sleep(backoff.fail()).await;
            }
        }
    }
}
