-- Claims entries that lay idle, and says of each how often it was delivered, this time included.
-- KEYS: the stream. ARGV: group, consumer, idle time in ms, where to begin, how many at most.
local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local claimed = {}
for _, entry in ipairs(reply[2]) do
  -- Redis 6.2 lists an entry that left the stream as nil, and keeps it pending.
  if entry and entry[2] then
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
    claimed[#claimed + 1] = {entry[1], entry[2], pending[1] and pending[1][4] or 1}
  end
end
return {reply[1], claimed, reply[3] or {}}
