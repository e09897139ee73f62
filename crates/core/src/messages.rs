//! The message buffer: what the API queues, and how workers tell what they persisted.

use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::Serialize;

/// The most characters of a message's content.
pub const MAX_CONTENT: usize = 2000;

/// How many characters a tracking ID has.
pub const TRACKING_ID: usize = 8;

/// How many IDs of queued messages Redis keeps.
pub const QUEUED_IDS: usize = 1000;

/// How many IDs of persisted messages Redis keeps.
pub const PERSISTED_IDS: usize = 200;

/// A message as it stands in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message<'m> {
    /// What the client knows it by.
    pub tracking_id: &'m str,
    /// Who wrote it, above 0.
    pub user_id: i32,
    /// The channel, above 0.
    pub channel_id: i32,
    /// What, 1 to [`MAX_CONTENT`] characters.
    pub content: &'m str,
    /// When the API accepted it, RFC 3339.
    pub created_at: &'m str,
}

/// A Lua function `rate(key)` that tells the messages a second of the last 10 s as `"%.2f"`, and `count(key, messages)` that adds
/// some: of all workers together, by the clock of Redis.
pub const RATE_LUA: &str = "\
local function slot()
  local time = redis.call('TIME')
  return math.floor((time[1] * 1000 + time[2] / 1000) / 200)
end
local function rate(key)
  local now, sum, slots = slot(), 0, redis.call('HGETALL', key)
  for at = 1, #slots, 2 do
    local age = now - slots[at]
    if age >= 0 and age < 50 then
      sum = sum + slots[at + 1]
    end
  end
  return string.format('%.2f', sum / 10)
end
local function count(key, messages)
  local now = slot()
  for _, at in ipairs(redis.call('HKEYS', key)) do
    if now - at < 0 or now - at >= 50 then
      redis.call('HDEL', key, at)
    end
  end
  redis.call('HINCRBY', key, string.format('%.0f', now), messages)
  redis.call('EXPIRE', key, 20)
end
";

/// Draws a tracking ID: [`TRACKING_ID`] characters of base62.
#[must_use]
pub fn tracking_id() -> String {
    rand::rng().sample_iter(Alphanumeric).take(TRACKING_ID).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_in_the_queue_is_pinned() {
        let message = Message {
            tracking_id: "a1B2c3D4",
            user_id: 1,
            channel_id: 2,
            content: "say \"hi\"",
            created_at: "2026-07-04T14:38:08.999Z",
        };
        let json = r#"{"tracking_id":"a1B2c3D4","user_id":1,"channel_id":2,"content":"say \"hi\"","created_at":"2026-07-04T14:38:08.999Z"}"#;
        assert_eq!(serde_json::to_string(&message).unwrap(), json);
    }

    #[test]
    fn tracking_ids_are_base62() {
        let id = tracking_id();
        assert!(id.len() == TRACKING_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
        assert_ne!(id, tracking_id());
    }
}
