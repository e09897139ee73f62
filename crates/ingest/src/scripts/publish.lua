-- Writes one batch: entries, dead letters, cursor, what stands beside the cursor; renews the lease.
-- Writes nothing unless the lease is mine, no other program has added to the stream since my batch before, the cursor is
-- what that one left, and nobody found this Redis lost.
-- KEYS: lease, cursor, stream, source, state, dead letters, incarnation
-- ARGV: token, lease ms, cursor expected, cursor new, event time, host whose source is to be set (or ''),
--       field and value that keep the place on the host before (or ''), incarnation expected (or ''), incarnation to be
--       set with the cursor (or ''), ID below which no entry may come (or ''), how many entries of others are looked
--       through (or '' where others may write as they like), entries, dead letters,
--       then per entry: type, data, seq; per dead letter: data, seq, error, consumer; per entry that is traced: which one
--       it is, from 1 and ascending, and its traceparent
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then
  return { 'lease', holder or '' }
end
-- What others put behind our newest entry: numbers are a second producer's, whose cursor may come seconds later.
local newest = ARGV[12] ~= '' and id_in(KEYS[5], 'newest')
if newest then
  local foreign, looked, all = beyond(KEYS[3], newest, tonumber(ARGV[12]))
  if looked ~= newest then
    redis.call('HSET', KEYS[5], 'newest', looked)
  end
  if foreign ~= '' then
    return { 'foreign', foreign }
  end
  if not all then
    return { 'behind', looked }
  end
end
local cursor = redis.call('GET', KEYS[2]) or ''
if cursor ~= ARGV[3] then
  return { 'cursor', cursor }
end
if ARGV[9] ~= '' then
  local incarnation = redis.call('GET', KEYS[7]) or ''
  if incarnation ~= ARGV[9] then
    return { 'incarnation', incarnation }
  end
end
local entries, letters = tonumber(ARGV[13]), tonumber(ARGV[14])
local at = 15
local first, last = '', ''
-- A script that fails keeps what it wrote: so what can fail, a key of another type for instance, comes first.
if ARGV[11] ~= '' then
  local generated
  if redis.call('EXISTS', KEYS[3]) == 1 then
    local info = redis.call('XINFO', 'STREAM', KEYS[3])
    for field = 1, #info, 2 do
      if info[field] == 'last-generated-id' then
        generated = info[field + 1]
      end
    end
  else
    generated = redis.call('TIME')[1] .. '000-0'
  end
  if is_below(generated, ARGV[11]) then
    if redis.call('EXISTS', KEYS[3]) == 0 then
      -- Only with a group can an empty stream be made.
      redis.call('XGROUP', 'CREATE', KEYS[3], 'penstock-floor', '0', 'MKSTREAM')
      redis.call('XGROUP', 'DESTROY', KEYS[3], 'penstock-floor')
    end
    redis.call('XSETID', KEYS[3], ARGV[11])
  end
end
local letter = at + entries * 3
for _ = 1, letters do
  dead_letter(KEYS[6], 'raw', ARGV[letter], ARGV[letter + 1], '', '1', ARGV[letter + 2], ARGV[letter + 3])
  letter = letter + 4
end
local trace = letter
local traced = tonumber(ARGV[trace] or 0)
for entry = 1, entries do
  if entry == traced then
    last = redis.call('XADD', KEYS[3], '*', 'type', ARGV[at], 'data', ARGV[at + 1], 'seq', ARGV[at + 2], 'traceparent', ARGV[trace + 1])
    trace = trace + 2
    traced = tonumber(ARGV[trace] or 0)
  else
    last = redis.call('XADD', KEYS[3], '*', 'type', ARGV[at], 'data', ARGV[at + 1], 'seq', ARGV[at + 2])
  end
  if first == '' then
    first = last
  end
  at = at + 3
end
if last ~= '' and ARGV[12] ~= '' then
  redis.call('HSET', KEYS[5], 'newest', last)
end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[2], ARGV[4])
  redis.call('HSET', KEYS[5], 'cursor', ARGV[4])
  if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[5], 'eventTime', ARGV[5])
  end
  if ARGV[6] ~= '' then
    redis.call('SET', KEYS[4], cjson.encode({ host = ARGV[6], firstId = first, cursorKey = KEYS[2] }))
  end
  if ARGV[7] ~= '' then
    redis.call('HSET', KEYS[5], ARGV[7], ARGV[8])
  end
  if ARGV[10] ~= '' then
    redis.call('SET', KEYS[7], ARGV[10])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 'ok', last }
