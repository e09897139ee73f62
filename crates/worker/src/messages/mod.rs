//! The message buffer: a second, small source. What the API queued becomes rows of `messages`.
//!
//! A worker moves messages from the queue to a list of its own, inserts what lies there in one transaction, and only then
//! removes it, with the statistics in the same script. So the list is the truth, whatever was lost on the way: what lies
//! there is this worker's to write, and a dead worker's goes back into the queue. A row's key makes a second write harmless.

mod buffer;
mod latency;
mod message;
mod presence;
mod writer;

use std::sync::Arc;

use crate::tasks::Tasks;
use crate::work::Work;
use buffer::Buffer;
pub(crate) use message::Row;

/// Starts the tasks of the message buffer, where it is enabled.
pub(crate) fn start(work: &Arc<Work>, tasks: &mut Tasks) {
    if !work.settings.message_buffer.enabled {
        return;
    }
    let buffer = Buffer::new(work.consumer.client().clone(), &work.settings, work.consumer.name());
    tasks.spawn("write messages", writer::write(Arc::clone(work), buffer.clone()));
    tasks.spawn("message presence", presence::announce(Arc::clone(work), buffer.clone()));
    tasks.spawn("message statistics", presence::show(Arc::clone(work), buffer));
}
