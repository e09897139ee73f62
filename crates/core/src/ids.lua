-- Says whether an ID of a stream comes before another.
local function id_is_below(id, other)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  ms, seq, other_ms, other_seq = tonumber(ms), tonumber(seq), tonumber(other_ms), tonumber(other_seq)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end
-- Returns the ID in a field of a hash; nothing where there is none, or a text that is none.
local function id_in_field(key, field)
  return string.match(redis.call('HGET', key, field) or '', '^%d+%-%d+$')
end
-- Returns Redis' time in ms, by which IDs are made.
local function id_time()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
