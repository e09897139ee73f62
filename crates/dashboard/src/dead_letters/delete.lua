-- Deletes a dead letter. KEYS: the dead letters, three beside them. ARGV: its ID. Returns 1 if it was there.
needs({
  { 'XDEL', KEYS[1], '1-1' }, { 'ZREM', KEYS[2], '' }, { 'ZINCRBY', KEYS[3], '1', '' }, { 'HSET', KEYS[4], '', '' },
})
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if letter and letter_remove(KEYS[1], letter[1], letter[2]) then
  return 1
end
return 0
