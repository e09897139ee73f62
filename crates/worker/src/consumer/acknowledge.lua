-- Acknowledges entries, and counts those that were still pending: whoever repeats this counts nothing twice.
-- KEYS: the stream, the applied events, this minute's activity, what this consumer has applied.
-- ARGV: group, field of the total, how long the activity is kept in seconds, how many kinds, for each its two fields and its
-- number of IDs, then the IDs, then keys of the AppView's cache that are stale now. They are no KEYS: whoever may not delete them may still acknowledge.
needs({
  { 'HINCRBY', KEYS[2], '', '1' }, { 'HINCRBY', KEYS[3], '', '1' }, { 'EXPIRE', KEYS[3], '1' }, { 'INCRBY', KEYS[4], '1' },
  { 'EXPIRE', KEYS[4], '1' },
})
local kinds = tonumber(ARGV[4])
local at = 5 + kinds * 3
local total = 0
for kind = 0, kinds - 1 do
  local applied, active, count = ARGV[5 + kind * 3], ARGV[6 + kind * 3], tonumber(ARGV[7 + kind * 3])
  local acknowledged = 0
  -- Lua unpacks some 8,000 values at most.
  for first = at, at + count - 1, 1000 do
    local last = math.min(first + 999, at + count - 1)
    acknowledged = acknowledged + redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, last))
  end
  at = at + count
  if acknowledged > 0 then
    redis.call('HINCRBY', KEYS[2], applied, acknowledged)
    redis.call('HINCRBY', KEYS[3], active, acknowledged)
    total = total + acknowledged
  end
end
for first = at, #ARGV, 1000 do
  redis.pcall('UNLINK', unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
if total > 0 then
  redis.call('HINCRBY', KEYS[2], ARGV[2], total)
  redis.call('EXPIRE', KEYS[3], ARGV[3])
  redis.call('INCRBY', KEYS[4], total)
  redis.call('EXPIRE', KEYS[4], 86400)
end
return total
