-- Shows that a worker lives; returns those that gave no sign of life for long, the longest first.
-- KEYS: its sign of life, the workers. ARGV: its name, after how long it counts as dead, in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- In a full Redis a script may allocate after a first write that needs no memory: only who announced itself takes messages.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], 1, 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
return redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - ARGV[2]))
