//! Shows that this worker lives, often enough that its death is seen within seconds.

use std::sync::Arc;

use penstock_core::live::PULSE_TTL;

use crate::state::work::Work;

/// Gives five signs of life in the time that one of them counts, until the end: those who look at the pipeline tell by them
/// who is there. What a Redis that is away makes of it others report.
pub(crate) async fn beat(work: Arc<Work>) {
    loop {
        let _ = work.consumer.pulse(PULSE_TTL).await;
        if work.pause(PULSE_TTL / 5).await.is_err() {
            return;
        }
    }
}
