-- Reads in one moment what the number of workers is decided on.
-- KEYS: the stream, ingest's state, the applied events, ingest's status, the second stream.
-- ARGV: group, claim time in ms, how many unread entries, idle entries and consumers are counted at most, then the fields
-- of the state (paused, event time) and of the applied events (total, errors).
-- Returns 'wrongtype', key, type; or 'seen', state, applied, and for each of the streams: stream, group, what is told of the lag,
-- consumers, and how many were counted of idle entries, and of those of idle consumers or of none.
local wanted = { 'stream', 'hash', 'hash', 'string', 'stream' }
for at, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= wanted[at] then
    return { 'wrongtype', key, found }
  end
end
local group, claim = ARGV[1], tonumber(ARGV[2])
local state = redis.call('HMGET', KEYS[2], ARGV[6], ARGV[7])
if redis.call('EXISTS', KEYS[4]) == 0 then
  -- The status goes with its ingest, and one that is gone is not paused, whatever it left.
  state[1] = false
end
local applied = redis.call('HMGET', KEYS[3], ARGV[8], ARGV[9])
local function look(key)
  if redis.call('EXISTS', key) == 0 then
    return { {}, {}, false, {}, 0, 0 }
  end
  local stream = lag_fields(redis.call('XINFO', 'STREAM', key))
  local seen = { stream['length'], stream['last-generated-id'], stream['entries-added'] or false }
  local ours = lag_group(key, group)
  if not ours then
    return { seen, {}, false, {}, 0, 0 }
  end
  -- What no consumer holds was handed back, or its consumer was removed under it: it waits for whoever claims it.
  local consumers, held, abandoned = {}, 0, 0
  if ours.consumers > 0 then
    for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
      local of = lag_fields(info)
      held = held + of.pending
      if of.idle >= claim then
        abandoned = abandoned + of.pending
      end
      if (of.idle < claim or of.pending > 0) and #consumers < tonumber(ARGV[5]) then
        consumers[#consumers + 1] = { of.name, of.pending, of.idle }
      end
    end
  end
  abandoned = abandoned + math.max(0, ours.pending - held)
  local idle = 0
  -- Where all are abandoned there is nothing left to look for, and with a long list looking takes long.
  if ours.pending > abandoned then
    idle = #redis.call('XPENDING', key, group, 'IDLE', ARGV[2], '-', '+', ARGV[4])
  end
  local of_group = { ours['last-delivered-id'], ours.pending, ours['entries-read'] or false }
  return { seen, of_group, lag_told(key, stream, ours, tonumber(ARGV[3])), consumers, idle, abandoned }
end
return { 'seen', state, applied, look(KEYS[1]), look(KEYS[5]) }
