//! How every service runs a Lua script in Redis.
//!
//! A Redis that is full (`maxmemory`, noeviction) refuses commands that may allocate, and a script that runs one, but a script only
//! until its first write: measured on Redis 7.0 and 8.0, Valkey 8.1 and 9.1. So what frees memory, or what others wait for, goes as a
//! script whose first write needs none: `HDEL` of a field that is not there, `EXPIRE`, `LTRIM` of nothing. Redis before 7 does the
//! same, whereas it does not know `#!lua flags=allow-oom`.

use std::time::Duration;

use fred::bytes_utils::Str;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use fred::types::{FromValue, MultipleKeys, Value};

/// A Lua function `needs(commands)` for scripts that write more than once: it ends the script before its first write where this user
/// may not run one of the commands.
pub const NEEDS: &str = include_str!("needs.lua");

/// Runs a script, which is one atomic step in Redis.
///
/// It goes as `EVAL` with its text: Redis knows by the hash what it has compiled, so there is no second round trip, and a
/// Redis that forgot its scripts makes no difference.
///
/// # Errors
/// Redis is away, or the script failed.
pub async fn run<R: FromValue>(
    client: &Client,
    script: impl Into<Str> + Send,
    keys: impl Into<MultipleKeys> + Send,
    arguments: Vec<Value>,
) -> Result<R, Error> {
    client.eval(script, keys, arguments).await
}

/// Sets a field of a hash, in a full Redis too.
///
/// # Errors
/// As [`run`].
pub async fn set_field(client: &Client, key: String, field: &str, value: &str) -> Result<(), Error> {
    const SET: &str = "redis.call('HDEL', KEYS[1], '') redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])";
    run(client, SET, key, vec![field.into(), value.into()]).await
}

/// Sets a field of a hash unless it is there, in a full Redis too.
///
/// # Errors
/// As [`run`].
pub async fn add_field(client: &Client, key: String, field: &str, value: &str) -> Result<(), Error> {
    const ADD: &str = "redis.call('HDEL', KEYS[1], '') redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])";
    run(client, ADD, key, vec![field.into(), value.into()]).await
}

/// Sets a string for a time, in a full Redis too; returns what it was before, if it was there.
///
/// # Errors
/// As [`run`].
pub async fn set_for(client: &Client, key: String, value: &str, time: Duration) -> Result<Option<String>, Error> {
    const SET: &str =
        "redis.call('PEXPIRE', KEYS[1], ARGV[2]) return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'GET')";
    let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    run(client, SET, key, vec![value.into(), time.into()]).await
}

/// Says whether Redis refused something because it is full.
#[must_use]
pub fn is_full(error: &Error) -> bool {
    error.details().starts_with("OOM") || error.details().contains("OOM command not allowed")
}
