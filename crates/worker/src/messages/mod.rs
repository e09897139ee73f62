//! The message buffer: a second, small source.
//!
//! In: messages that the API queued in Redis.
//! Out: rows of `messages`, the statistics in Redis, dead letters.
//! Started by `streams` if it is enabled.
//!
//! A worker moves messages from the queue to a list of its own, inserts what lies there in one transaction, and only then
//! removes it, with the statistics in the same script. So the list is the truth, whatever was lost on the way: what lies
//! there is this worker's to write, and a dead worker's goes back into the queue. A row's key makes a second write harmless.

mod buffer;
mod latency;
mod persist;
mod queued;
mod workers;

use std::sync::Arc;

use penstock_telemetry::tasks::Tasks;

use crate::state::work::Work;
use buffer::Buffer;

/// Starts the tasks of the message buffer, where it is enabled.
pub(crate) fn start(work: &Arc<Work>, tasks: &mut Tasks) {
    if !work.settings.message_buffer.enabled {
        return;
    }
    let buffer = Buffer::new(work.consumer.client().clone(), &work.settings, work.consumer.name());
    tasks.spawn("write messages", persist::write(Arc::clone(work), buffer.clone()));
    tasks.spawn("message presence", workers::announce(Arc::clone(work), buffer.clone()));
    tasks.spawn("message statistics", workers::show(Arc::clone(work), buffer));
}
