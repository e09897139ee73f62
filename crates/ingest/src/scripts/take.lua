-- Takes the lease where nobody holds it; says whether it is mine ('1' or '0').    KEYS: lease    ARGV: token, lease ms
local holder = redis.call('GET', KEYS[1])
if holder then
  return holder == ARGV[1] and '1' or '0'
end
-- A full Redis refuses a script what takes memory only while it has written nothing (measured). Who
-- trims needs the lease: so the first write is one that takes none, of a key that is missing.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return '1'
