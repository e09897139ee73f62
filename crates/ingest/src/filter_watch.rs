//! Reads the filter, and again whenever a file of it changes.

use std::sync::Arc;
use std::time::Duration;

use penstock_core::filter::Rules;
use penstock_core::filter_files::{FilterError, Watched, load};
use penstock_core::settings::Settings;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::filter_events::FilterEvents;

/// How often the files are looked at. A file that has changed is read once it is the same at two looks: it may be being written.
const LOOK: Duration = Duration::from_millis(500);

/// The rules as they were read, and the files as they were by then.
pub(crate) struct Loaded {
    pub(crate) rules: Arc<Rules>,
    seen: Watched,
}

// === impl Loaded ===

impl Loaded {
    /// Reads the rules for the first time.
    pub(crate) fn read(settings: &Settings) -> Result<Self, FilterError> {
        // Looked at first: what changes meanwhile is read again.
        let seen = Watched::look(&settings.filter);
        Ok(Self { rules: Arc::new(load(&settings.filter)?), seen })
    }

    /// Sends the rules anew whenever they change. Where they cannot be read those before stay.
    pub(crate) async fn watch(self, settings: Arc<Settings>, rules: watch::Sender<Arc<Rules>>, events: FilterEvents) {
        let Self { mut seen, .. } = self;
        if seen.is_empty() {
            return;
        }
        let (mut changed, mut has_failed) = (None, false);
        loop {
            sleep(LOOK).await;
            let now = Watched::look(&settings.filter);
            if now == seen {
                changed = None;
                continue;
            }
            if changed.as_ref() != Some(&now) {
                changed = Some(now);
                continue;
            }
            let of = Arc::clone(&settings);
            // Millions of lines take a while.
            let Ok(read) = spawn_blocking(move || load(&of.filter)).await else { continue };
            (seen, changed) = (now, None);
            match read {
                Ok(new) => {
                    if std::mem::take(&mut has_failed) {
                        events.readable();
                    }
                    rules.send_if_modified(|held| {
                        let is_new = held.epoch() != new.epoch();
                        if is_new {
                            *held = Arc::new(new);
                        }
                        is_new
                    });
                }
                Err(error) => {
                    has_failed = true;
                    events.unreadable(&error);
                }
            }
        }
    }
}
