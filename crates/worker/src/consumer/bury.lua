-- Acknowledges an entry that failed for good and, if it was still pending, puts it among the dead letters.
-- KEYS: the stream, the dead letters, the applied events, three beside the dead letters.
-- ARGV: group, ID, field of the errors, field of the total, field of the kind if a part was applied or '', then
-- type, data, seq, origId, deliveries, error, consumer, DID.
needs({
  { 'XADD', KEYS[2], '*', '', '' }, { 'XDEL', KEYS[2], '1-1' }, { 'HINCRBY', KEYS[3], '', '1' }, { 'ZADD', KEYS[4], '1', '' },
  { 'ZINCRBY', KEYS[5], '1', '' }, { 'HSET', KEYS[6], '', '' },
})
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
dead_letter(KEYS[2], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13])
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
if ARGV[5] ~= '' then
  redis.call('HINCRBY', KEYS[3], ARGV[4], 1)
  redis.call('HINCRBY', KEYS[3], ARGV[5], 1)
end
return 1
