-- Keeps that the letters up to an ID are copied. KEYS: the hash beside them. ARGV: the ID.
local before = id_in_field(KEYS[1], 'copied')
if not before or id_is_below(before, ARGV[1]) then
  -- In a full Redis a script may allocate after a first write that needs no memory.
  redis.call('HDEL', KEYS[1], '')
  redis.call('HSET', KEYS[1], 'copied', ARGV[1])
end
return 1
