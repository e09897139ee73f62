//! The Lua scripts of ingest; each is one atomic step in Redis.
//!
//! They go as `EVAL` with their text: Redis keeps what it compiled, so the text costs a hash of some hundred bytes a
//! batch, and a Redis that forgot its scripts makes no difference.

use penstock_core::dead_letter;

/// Writes one batch behind the fence of lease and cursor.
pub(crate) fn publish() -> String {
    format!("{}{IDS}{}{}", dead_letter::LUA, include_str!("scripts/beyond.lua"), include_str!("scripts/publish.lua"))
}

/// Puts entries that lie idle back at the tail.
pub(crate) fn requeue() -> String {
    format!("{}{IDS}{}", dead_letter::LUA, include_str!("scripts/requeue.lua"))
}

/// Compares IDs, and reads those that are kept.
const IDS: &str = include_str!("scripts/ids.lua");

/// Reads where to read on.
pub(crate) const POSITION: &str =
    concat!(include_str!("scripts/ids.lua"), include_str!("scripts/beyond.lua"), include_str!("scripts/position.lua"));

/// Trims what is acknowledged and shows nothing of another program.
pub(crate) const TRIM: &str =
    concat!(include_str!("scripts/ids.lua"), include_str!("scripts/beyond.lua"), include_str!("scripts/trim.lua"));

/// Reads the numbers of the newest entries.
pub(crate) const NUMBERS: &str = concat!(include_str!("scripts/beyond.lua"), include_str!("scripts/numbers.lua"));

/// Keeps what was found of the position.
pub(crate) const SETTLE: &str = concat!(include_str!("scripts/beyond.lua"), include_str!("scripts/settle.lua"));

/// Writes status and recent events for the lease's holder.
pub(crate) const STATUS: &str = include_str!("scripts/status.lua");

/// Takes the lease where nobody holds it.
pub(crate) const TAKE: &str = include_str!("scripts/take.lua");

/// Renews the lease.
pub(crate) const RENEW: &str = include_str!("scripts/renew.lua");

/// Gives the lease back.
pub(crate) const RELEASE: &str = include_str!("scripts/release.lua");

/// Publishes several live events.
pub(crate) const BROADCAST: &str = include_str!("scripts/broadcast.lua");
