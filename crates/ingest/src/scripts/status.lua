-- Writes the status, and the recent events if they are given, for the lease's holder only.
-- KEYS: lease, status, recent events    ARGV: token, status, recent events (or ''), ttl in seconds
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[4])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3], 'EX', ARGV[4])
end
return 1
