-- Reads how far behind a group is. KEYS: the stream. ARGV: group, how many entries are counted at most.
-- Returns the entries that are pending, and what is told of the lag; nothing where stream or group is missing.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local group = lag_group(KEYS[1], ARGV[1])
if not group then
  return false
end
local stream = lag_fields(redis.call('XINFO', 'STREAM', KEYS[1]))
return { group['pending'], lag_told(KEYS[1], stream, group, tonumber(ARGV[2])) }
