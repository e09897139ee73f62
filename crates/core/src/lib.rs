//! The contract: keys, groups, stream entries, event model and pipeline settings.

pub mod backoff;
pub mod data;
pub mod dead_letter;
pub mod dialect;
pub mod entry;
pub mod keys;
pub mod live;
pub mod messages;
pub mod redis;
pub mod settings;
pub mod stream;
pub mod time;
