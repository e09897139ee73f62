-- Reads the statistics in one moment.
-- KEYS: the queue, the rate, total of messages, total of batches, messages held by workers, the queued IDs, ID, size and time of the
-- last batch, then what each worker took. ARGV: how many queued IDs are wanted.
local function number(key)
  return redis.call('GET', key) or '0'
end
-- Workers of others take messages out of Redis and only say how many; what ours took they say from time to time.
local held = 0
for at = 10, #KEYS do
  held = held + redis.call('LLEN', KEYS[at])
end
held = math.max(held, tonumber(number(KEYS[5])) or 0)
return {
  redis.call('LLEN', KEYS[1]), rate(KEYS[2]), number(KEYS[3]), number(KEYS[4]), held,
  redis.call('GET', KEYS[7]) or '', number(KEYS[8]), redis.call('GET', KEYS[9]) or '',
  tonumber(ARGV[1]) > 0 and redis.call('LRANGE', KEYS[6], 0, ARGV[1] - 1) or {},
}
