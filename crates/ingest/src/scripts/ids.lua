-- Says whether an ID comes before another.
local function is_below(id, other)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  ms, seq, other_ms, other_seq = tonumber(ms), tonumber(seq), tonumber(other_ms), tonumber(other_seq)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end
-- Returns an ID that stands in a field; nothing where there is none, or a text that is none.
local function id_in(key, field)
  local id = redis.call('HGET', key, field)
  return id and string.match(id, '^%d+%-%d+$') or nil
end
