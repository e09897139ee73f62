-- Empties the message buffer. KEYS: total of messages, total of batches, then the lists, then the other keys; ARGV: how many lists.
-- Returns how many messages waited: the first list is the queue, those of the workers follow.
local cleared = 0
for at = 3, 2 + ARGV[1] do
  cleared = cleared + redis.call('LLEN', KEYS[at])
end
for at = 3, #KEYS do
  redis.call('DEL', KEYS[at])
end
redis.call('SET', KEYS[1], 0)
redis.call('SET', KEYS[2], 0)
return cleared
