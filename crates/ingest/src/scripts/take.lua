-- Takes the lease if it is free; returns whether it is mine ('1' or '0').    KEYS: lease    ARGV: token, lease ms
local holder = redis.call('GET', KEYS[1])
if holder then
  return holder == ARGV[1] and '1' or '0'
end
-- A full Redis refuses a script that allocates only until its first write (measured). Trimming
-- needs the lease, so the first write is one that takes no memory: of a key that does not exist.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return '1'
