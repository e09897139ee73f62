-- Writes the status, the recent events if given, how many entries came since the last time, and what ingest reports beside them, for the
-- lease's holder only.
-- KEYS: lease, status, recent events, this minute's activity, ingest state
-- ARGV: token, status, recent events (or ''), ttl in seconds, field of what came, how many, how long that is kept in seconds; then
-- fields of the state and what each is
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
-- In a full Redis a script may allocate after a first write that needs no memory (take.lua): without a status nobody sees that
-- this ingest lives.
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[4])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3], 'EX', ARGV[4])
end
-- None is told too: a minute that nobody told of is one that nobody saw. A key that somebody overwrote holds nothing up.
if type(redis.pcall('HINCRBY', KEYS[4], ARGV[5], ARGV[6])) == 'number' then
  redis.call('EXPIRE', KEYS[4], ARGV[7])
end
redis.pcall('HSET', KEYS[5], unpack(ARGV, 8))
return 1
