-- Takes messages until this worker has so many, or the queue none; returns how many it has.
-- KEYS: the queue, what this worker took, messages held by all workers. ARGV: how many at most, how many of them are counted as held,
-- or '' for those that lie there.
local have = redis.call('LLEN', KEYS[2])
-- In a full Redis a script may allocate after a first write that needs no memory: taking messages is how they leave it.
redis.call('LTRIM', KEYS[2], 0, -1)
local counted = tonumber(ARGV[2]) or have
while have < tonumber(ARGV[1]) and redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT') do
  have = have + 1
end
hold(KEYS[3], have - counted)
return have
