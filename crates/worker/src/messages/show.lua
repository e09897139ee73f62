-- Writes the statistics that change by themselves, and all others where there are none.
-- KEYS: the rate, what this worker took, messages a second, messages held, then what begins: total of messages and of batches, size
-- and IDs of the last batch, mean, 95th and 99th percentile of the latency.
redis.call('SET', KEYS[3], rate(KEYS[1]))
redis.call('SET', KEYS[4], redis.call('LLEN', KEYS[2]))
for at, begin in ipairs({ '0', '0', '0', '[]', '0.00', '0.00', '0.00' }) do
  redis.call('SET', KEYS[4 + at], begin, 'NX')
end
