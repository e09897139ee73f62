//! The Lua scripts of ingest; each is one atomic step in Redis.
//!
//! They are sent with `EVAL`, text and all: Redis caches the compiled script, so the text costs one hash per batch, and a Redis
//! that forgot its scripts makes no difference.

use penstock_core::dead_letter::{self, Author, Bounds};
use penstock_core::settings::Settings;

/// Writes one batch, fenced by the lease and the cursor.
pub(crate) const PUBLISH: &str = concat!(
    include_str!("../../core/src/ids.lua"),
    include_str!("scripts/beyond.lua"),
    include_str!("scripts/publish.lua")
);

/// Writes one batch with dead letters. Few have any, and the code for them is as long as all the rest.
pub(crate) fn publish_letters(settings: &Settings) -> String {
    format!("{}{PUBLISH}", letters(settings))
}

/// Returns a script without the lines that are comments: it goes to Redis with every batch, which hashes it.
pub(crate) fn without_comments(script: &str) -> String {
    let code = script.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("--"));
    code.collect::<Vec<_>>().join("\n")
}

/// Puts idle entries back at the tail.
pub(crate) fn requeue(settings: &Settings) -> String {
    let script = concat!(
        include_str!("../../core/src/ids.lua"),
        include_str!("scripts/put_back.lua"),
        include_str!("scripts/requeue.lua")
    );
    format!("{}{script}", letters(settings))
}

fn letters(settings: &Settings) -> String {
    dead_letter::script(Author::Ingest, Bounds::in_redis(settings))
}

/// Reads the position to resume from.
pub(crate) const POSITION: &str = concat!(
    include_str!("../../core/src/ids.lua"),
    include_str!("scripts/beyond.lua"),
    include_str!("scripts/position.lua")
);

/// Trims what is acknowledged, except what shows another program's position.
pub(crate) const TRIM: &str = concat!(
    include_str!("../../core/src/ids.lua"),
    include_str!("scripts/beyond.lua"),
    include_str!("scripts/trim.lua")
);

/// Reads the sequence numbers of the newest entries.
pub(crate) const NUMBERS: &str = concat!(include_str!("scripts/beyond.lua"), include_str!("scripts/numbers.lua"));

/// Tells up to where the workers have settled the streams.
pub(crate) const SETTLED: &str = concat!(
    include_str!("../../core/src/ids.lua"),
    include_str!("scripts/beyond.lua"),
    include_str!("scripts/put_back.lua"),
    include_str!("scripts/settled.lua")
);

/// Reads which commits the entries of a stream are.
pub(crate) const REVS: &str = concat!(
    include_str!("../../core/src/ids.lua"),
    include_str!("scripts/put_back.lua"),
    include_str!("scripts/revs.lua")
);

/// Stores the position that was found.
pub(crate) const SETTLE: &str = concat!(include_str!("scripts/beyond.lua"), include_str!("scripts/settle.lua"));

/// Moves the entries of the second stream to the first.
pub(crate) const UNLOAD: &str = concat!(
    include_str!("../../core/src/ids.lua"),
    include_str!("scripts/put_back.lua"),
    include_str!("scripts/unload.lua")
);

/// Writes status and recent events, for the lease's holder only.
pub(crate) const STATUS: &str = include_str!("scripts/status.lua");

/// Takes the lease if it is free.
pub(crate) const TAKE: &str = include_str!("scripts/take.lua");

/// Renews the lease.
pub(crate) const RENEW: &str = include_str!("scripts/renew.lua");

/// Releases the lease.
pub(crate) const RELEASE: &str = include_str!("scripts/release.lua");

/// Publishes several live events.
pub(crate) const BROADCAST: &str = include_str!("scripts/broadcast.lua");

/// How many entries behind our newest one a script looks through at most.
pub(crate) const SCAN_LIMIT: u32 = 10_000;
