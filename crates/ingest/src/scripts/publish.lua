-- Writes one batch: entries, dead letters, cursor, what stands beside the cursor; renews the lease.
-- Writes nothing unless the lease is mine and the cursor is what my batch before left.
-- KEYS: lease, cursor, stream, source, state, dead letters
-- ARGV: token, lease ms, cursor expected, cursor new, event time, host whose source is to be set (or ''),
--       entries, dead letters, then per entry: type, data, seq; per dead letter: data, seq, error, consumer
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then
  return { 'lease', holder or '' }
end
local cursor = redis.call('GET', KEYS[2]) or ''
if cursor ~= ARGV[3] then
  return { 'cursor', cursor }
end
local entries, letters = tonumber(ARGV[7]), tonumber(ARGV[8])
local at = 9
local first, last = '', ''
-- A script that fails keeps what it wrote: so what can fail, a key of another type for instance, comes first.
local letter = at + entries * 3
for _ = 1, letters do
  dead_letter(KEYS[6], 'raw', ARGV[letter], ARGV[letter + 1], '', '1', ARGV[letter + 2], ARGV[letter + 3])
  letter = letter + 4
end
for _ = 1, entries do
  last = redis.call('XADD', KEYS[3], '*', 'type', ARGV[at], 'data', ARGV[at + 1], 'seq', ARGV[at + 2])
  if first == '' then
    first = last
  end
  at = at + 3
end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[2], ARGV[4])
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[5], 'eventTime', ARGV[5])
end
if ARGV[6] ~= '' and ARGV[4] ~= '' then
  redis.call('SET', KEYS[4], cjson.encode({ host = ARGV[6], firstId = first }))
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 'ok', last }
