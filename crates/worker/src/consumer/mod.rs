//! One consumer of the workers' group: every command that this process sends to the streams.
//!
//! In: what the tasks want to read, claim, renew, acknowledge, dead-letter or publish.
//! Out: deliveries, and what Redis says of the group, the counts and the dead letters.
//! Called by all tasks through [`Consumer`]; each file is one kind of command, with its Lua scripts beside it.

mod acks;
mod claim;
mod client;
mod join;
mod key_sizes;
mod letters;
mod marks;
mod public_counts;
mod roster;
mod stale;
mod survey;
mod weight;

pub(crate) use acks::{Acknowledgement, Burial};
pub(crate) use claim::Claimed;
pub(crate) use client::{ANSWER_BYTES, Answer, Consumer, Delivery, is_group_gone, unless_group_gone};
pub(crate) use join::{JoinError, Joined};
pub(crate) use key_sizes::KeySize;
pub(crate) use letters::{Copied, Retention};
pub(crate) use public_counts::Published;
pub(crate) use survey::StandstillReason;
pub(crate) use weight::weigh;
