-- Keeps what was found of the position, unless the lease is no longer mine or another program wrote in the meantime.
-- KEYS: lease, cursor, stream, source, state
-- ARGV: token, cursor expected, source expected, the last ID of the stream that was looked at (or ''), how many entries are
--       looked through at most, cursor new (or '' where it stays), source new (or '' where it stays), its event time (or '')
-- Returns 'ok'; 'more' and the last ID, where not all was looked through; 'joined' and the first entry of another program; or
-- in a word why else nothing was written.
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
-- A full Redis takes what comes behind a first write that needs no memory (take.lua), and only what is settled is trimmed.
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
