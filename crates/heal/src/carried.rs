//! What the filter carries: nothing else is written, and nothing else is missed.

use std::sync::{Arc, Mutex, PoisonError};

use penstock_core::filter::Rules;
use penstock_core::filter_files::{FilterError, Watched, load};
use penstock_core::settings::Settings;
use tokio::task::spawn_blocking;

/// The filter as it stands, read again when a file of it has changed.
#[derive(Debug)]
pub(crate) struct Carried {
    settings: Arc<Settings>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    rules: Arc<Rules>,
    seen: Watched,
}

// === impl Carried ===

impl Carried {
    /// Reads the filter for the first time.
    ///
    /// # Errors
    /// Names what cannot be read.
    pub(crate) fn new(settings: Arc<Settings>) -> Result<Self, FilterError> {
        // Looked at first: what changes meanwhile is read again.
        let seen = Watched::look(&settings.filter);
        let rules = Arc::new(load(&settings.filter)?);
        Ok(Self { settings, held: Mutex::new(Held { rules, seen }) })
    }

    /// Returns the rules as they are. While a file that has changed cannot be read those before stay, as they do in ingest, which says so.
    pub(crate) async fn now(&self) -> Arc<Rules> {
        let settings = Arc::clone(&self.settings);
        let before = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.seen.is_empty() {
                return Arc::clone(&held.rules);
            }
            held.seen.clone()
        };
        let read = spawn_blocking(move || {
            let seen = Watched::look(&settings.filter);
            (seen != before).then(|| load(&settings.filter).ok().map(|rules| (seen, Arc::new(rules)))).flatten()
        });
        let read = read.await.ok().flatten();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, rules)) = read {
            *held = Held { rules, seen };
        }
        Arc::clone(&held.rules)
    }
}
