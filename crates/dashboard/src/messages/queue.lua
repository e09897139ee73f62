-- Queues messages, all or none. KEYS: the queue, the queued IDs. ARGV: the most that may wait, how many IDs are kept, then ID and
-- message, and so on. Returns how many wait, or -1 where there is no room.
local waiting = redis.call('LLEN', KEYS[1])
if waiting + (#ARGV - 2) / 2 > tonumber(ARGV[1]) then
  return -1
end
for at = 3, #ARGV, 2 do
  waiting = redis.call('LPUSH', KEYS[1], ARGV[at + 1])
  redis.call('LPUSH', KEYS[2], ARGV[at])
end
redis.call('LTRIM', KEYS[2], 0, ARGV[2] - 1)
return waiting
