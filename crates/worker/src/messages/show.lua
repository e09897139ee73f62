-- Writes the statistics that change by themselves, and all others where there are none.
-- KEYS: the rate, messages a second, messages held by all workers, then what begins: total of messages and of batches, size and IDs of
-- the last batch, mean, 95th and 99th percentile of the latency; then what each worker took.
-- In a full Redis a script may allocate after a first write that needs no memory.
redis.call('HDEL', KEYS[1], '')
redis.call('SET', KEYS[2], rate(KEYS[1]))
for at, begin in ipairs({ '0', '0', '0', '[]', '0.00', '0.00', '0.00' }) do
  redis.call('SET', KEYS[3 + at], begin, 'NX')
end
local held = 0
for at = 11, #KEYS do
  held = held + redis.call('LLEN', KEYS[at])
end
redis.call('SET', KEYS[3], held)
