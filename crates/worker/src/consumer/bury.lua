-- Acknowledges an entry that failed for good and, if it was still pending, puts it among the dead letters.
-- KEYS: the stream, the dead letters, the applied events.
-- ARGV: group, ID, field of the errors, field of the total, field of the kind if a part was applied or '', then
-- type, data, seq, origId, deliveries, error, consumer.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
dead_letter(KEYS[2], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12])
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
if ARGV[5] ~= '' then
  redis.call('HINCRBY', KEYS[3], ARGV[4], 1)
  redis.call('HINCRBY', KEYS[3], ARGV[5], 1)
end
return 1
