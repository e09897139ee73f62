-- Puts messages that a worker took back into the queue, in their order; returns how many.
-- KEYS: the queue, what it took, its sign of life, the workers, messages held by all workers, and where it leaves the rate.
-- ARGV: its name, 'if dead' or 'leave', how many at most.
if ARGV[2] == 'leave' then
  -- Workers that stay say soon how many they are.
  redis.call('DEL', KEYS[3])
  redis.call('SET', KEYS[6], '0.00')
elseif redis.call('EXISTS', KEYS[3]) == 1 then
  return 0
end
local moved = 0
-- In a full Redis a script may allocate after a first write that needs no memory.
redis.call('LTRIM', KEYS[2], 0, -1)
while moved < tonumber(ARGV[3]) and redis.call('LMOVE', KEYS[2], KEYS[1], 'LEFT', 'RIGHT') do
  moved = moved + 1
end
hold(KEYS[5], -moved)
if moved == 0 then
  -- A command that was long on its way may still put a message there: the name is forgotten after an hour only.
  local seen = redis.call('ZSCORE', KEYS[4], ARGV[1])
  if seen and redis.call('TIME')[1] - seen / 1000 > 3600 then
    redis.call('ZREM', KEYS[4], ARGV[1])
  end
end
return moved
