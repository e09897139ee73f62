-- Stores the position that was found, unless the lease is no longer mine or another program wrote in the meantime.
-- KEYS: lease, cursor, stream, source, state
-- ARGV: token, cursor expected, source expected, the last ID of the stream that was looked at (or ''), how many entries
--       to look through at most, cursor new (or '' to keep it), source new (or '' to keep it), its event time (or '')
-- Returns 'ok'; 'more' and the last ID, if entries are left to look through; 'joined' and the first entry of another program; or
-- why else nothing was written.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'lease' }
end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] or (redis.call('GET', KEYS[4]) or '') ~= ARGV[3] then
  return { 'moved' }
end
local foreign, newest, all = beyond(KEYS[3], ARGV[4] == '' and '0-0' or ARGV[4], tonumber(ARGV[5]))
if foreign ~= '' then
  return { 'joined', foreign }
end
if not all then
  return { 'more', newest }
end
-- In a full Redis a script may allocate after a first write that needs no memory (take.lua); trimming waits for this script.
redis.call('HDEL', KEYS[5], '')
redis.call('HSET', KEYS[5], 'newest', newest)
if ARGV[6] ~= '' then
  redis.call('SET', KEYS[2], ARGV[6])
  redis.call('HSET', KEYS[5], 'cursor', ARGV[6])
  if ARGV[8] ~= '' then
    redis.call('HSET', KEYS[5], 'eventTime', ARGV[8])
  else
    redis.call('HDEL', KEYS[5], 'eventTime')
  end
end
if ARGV[7] ~= '' then
  redis.call('SET', KEYS[4], ARGV[7])
end
return { 'ok', newest }
