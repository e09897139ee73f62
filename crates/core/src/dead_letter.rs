//! The stream of dead letters: its shape and its bounds.

/// How many dead letters are kept at most, about.
pub const MAX_COUNT: u32 = 10_000;

/// How many bytes the dead letters may take in Redis, about.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The `type` of a frame that could not be decoded: `data` is the frame in base64, and it cannot be replayed.
pub const RAW: &str = "raw";

/// The `type` of a message of the message buffer: `data` is what stood in its queue, and cannot be replayed into the stream.
pub const MESSAGE: &str = "message";

/// A Lua function `dead_letter(key, type, data, seq, origId, deliveries, error, consumer)` for the scripts that add one.
///
/// Bounds both the count and the bytes: the oldest go first, and they stand in PostgreSQL too where a worker wrote them.
pub const LUA: &str = "\
local function dead_letter(key, kind, data, seq, orig, deliveries, err, consumer)
  redis.call('XADD', key, 'MAXLEN', '~', 10000, '*', 'type', kind, 'data', data, 'seq', seq, 'origId', orig,
    'deliveries', deliveries, 'error', err, 'consumer', consumer)
  local length = redis.call('XLEN', key)
  while length > 1 and redis.call('MEMORY', 'USAGE', key) > 67108864 do
    length = length - math.max(1, math.floor(length / 4))
    redis.call('XTRIM', key, 'MAXLEN', length)
  end
end
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::field;

    #[test]
    fn the_script_says_the_bounds_and_the_fields_in_order() {
        assert!(LUA.contains(&MAX_COUNT.to_string()) && LUA.contains(&MAX_BYTES.to_string()));
        let order =
            [field::TYPE, field::DATA, field::SEQ, field::ORIG_ID, field::DELIVERIES, field::ERROR, field::CONSUMER];
        let places: Vec<_> = order.iter().map(|name| LUA.find(&format!("'{name}'")).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
    }
}
