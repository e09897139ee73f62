-- Takes messages until this worker has so many, or the queue none; returns how many it has.
-- KEYS: the queue, what this worker took. ARGV: how many at most.
local have = redis.call('LLEN', KEYS[2])
while have < tonumber(ARGV[1]) and redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT') do
  have = have + 1
end
return have
