-- Writes one batch: entries, dead letters, the cursor and what is stored beside it; renews the lease.
-- Writes nothing unless the lease is mine, no other program has added to the stream since my last batch, the cursor is
-- what that batch left, and nobody has found that this Redis lost its data.
-- KEYS: lease, cursor, stream, source, state, dead letters, incarnation, second stream, three that go with the dead letters,
--       desynchronized repos
-- ARGV: token, lease ms, cursor expected, cursor new, what is stored beside the cursor (a JSON object of fields of the
--       state), the host to set as source (or ''),
--       field and value that keep the position on the previous host (or ''), incarnation expected (or ''), incarnation to
--       set with the cursor (or ''), ID below which no entry may come (or ''), how many entries of others to look
--       through (or '' if others may write freely), gaps, resets and losses to count, number of entries, of dead letters,
--       the repos found desynchronized without an entry that says so, each with a space and why (a JSON array, or ''),
--       the types of the entries by their first letters (or '' if all are commits), whether they say more than that ('1', or ''), then
--       per entry: data, seq, and where they say more: root, with a space and why its repo is desynchronized where it is (or '');
--       per dead letter: data, seq, error, consumer, DID, what identifies it, whether it is a loss; per traced entry: its index, from 1 and ascending, and its traceparent;
--       finally the groups that allow the second stream, as JSON, and a mark for each entry: 'b' if it goes to
--       the second stream (or '' and '')
-- Returns 'ok', the ID of the last entry ('' without any), how many went to the second stream, how many dead letters were
-- written, and how many of them are losses; or why nothing was written, and what was found.
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then
  return { 'lease', holder or '' }
end
if ARGV[16] == '0' then
  -- The cursor alone and letters go into a full Redis too: there a script may allocate after a first write that needs no
  -- memory (take.lua). Events wait.
  redis.call('HDEL', KEYS[5], '')
end
-- Entries after our newest one: a number shows a second producer, whose cursor may follow seconds later.
local newest = ARGV[12] ~= '' and id_in_field(KEYS[5], 'newest')
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
local beside = cjson.decode(ARGV[5])
local entries, letters = tonumber(ARGV[16]), tonumber(ARGV[17])
local kinds, is_chained = ARGV[19], ARGV[20] == '1'
local at, each = 21, is_chained and 3 or 2
local first, last = '', ''
-- A script that fails keeps what it wrote. So whatever can fail, such as a key of another type, comes first.
if ARGV[11] ~= '' then
  -- IDs never go below the clock, nor below the last one.
  local generated = redis.call('TIME')[1] .. '000-0'
  local stream_last = last_generated_id(KEYS[3])
  if stream_last and id_is_below(generated, stream_last) then
    generated = stream_last
  end
  if id_is_below(generated, ARGV[11]) then
    if not stream_last then
      -- An empty stream can only be created with a group.
      redis.call('XGROUP', 'CREATE', KEYS[3], 'penstock-floor', '0', 'MKSTREAM')
      redis.call('XGROUP', 'DESTROY', KEYS[3], 'penstock-floor')
    end
    redis.call('XSETID', KEYS[3], ARGV[11])
  end
end
-- IDs order entries across both streams. So in a batch that goes to both, all entries get their IDs here, above any in
-- either; then the first stream takes the greatest, so that others writing there stay above it.
local marks, aside = ARGV[#ARGV], 0
local ms, seq, now
-- The source names its first entry, which is looked for in the first stream.
local is_open = marks ~= '' and ARGV[6] == '' and redis.call('EXISTS', KEYS[3]) == 1
if is_open then
  local known = {}
  for _, group in ipairs(cjson.decode(ARGV[#ARGV - 1])) do
    known[group] = true
  end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[3])) do
    for field = 1, #info, 2 do
      is_open = is_open and (info[field] ~= 'name' or known[info[field + 1]])
    end
  end
end
if is_open then
  local greatest, bulk_last = last_generated_id(KEYS[3]), last_generated_id(KEYS[8])
  if bulk_last and id_is_below(greatest, bulk_last) then
    greatest = bulk_last
  end
  ms, seq = string.match(greatest, '^(%d+)-(%d+)$')
  ms, seq, now = tonumber(ms), tonumber(seq), id_time()
end
local function next_id()
  if now > ms then
    ms, seq = now, 0
  elseif seq >= 4503599627370496 then
    -- The limit of Lua's numbers.
    ms, seq = ms + 1, 0
  else
    seq = seq + 1
  end
  return string.format('%.0f-%.0f', ms, seq)
end
if ARGV[18] ~= '' then
  for _, repo in ipairs(cjson.decode(ARGV[18])) do
    -- Only the first reason counts. A space sorts before any character of a DID.
    local did = string.match(repo, '^[^ ]+')
    if #redis.call('ZRANGEBYLEX', KEYS[12], '[' .. did .. ' ', '(' .. did .. '!', 'LIMIT', 0, 1) == 0 then
      redis.call('ZADD', KEYS[12], 0, repo)
    end
  end
end
local letter = at + entries * each
-- The host may send again what no event after it moved the cursor past: skip the letters that were written before.
local written, losses = 0, 0
local set_aside = letters > 0 and redis.call('HGET', KEYS[5], 'setAside') or ''
for _ = 1, letters do
  local id = ARGV[letter + 5] .. ' '
  if not string.find(set_aside, id, 1, true) then
    dead_letter(KEYS[6], 'raw', ARGV[letter], ARGV[letter + 1], '', '1', ARGV[letter + 2], ARGV[letter + 3], ARGV[letter + 4])
    written, losses, set_aside = written + 1, losses + tonumber(ARGV[letter + 6]), set_aside .. id
  end
  letter = letter + 7
end
if written > 0 then
  -- The last 64 of them, of 17 characters each.
  redis.call('HSET', KEYS[5], 'setAside', string.sub(set_aside, -1088))
end
local trace = letter
local traced = tonumber(ARGV[trace] or 0)
local types = { [97] = 'account', [99] = 'commit', [105] = 'identity' }
-- Locals: this runs for every event, and to look a global up takes part of that.
local call, args, stream = redis.call, ARGV, KEYS[3]
for entry = 1, entries do
  local kind = kinds == '' and 'commit' or types[string.byte(kinds, entry)]
  local chain = is_chained and args[at + 2] or ''
  local to, id = stream, '*'
  if is_open then
    id = next_id()
    if string.byte(marks, entry) == 98 then
      to, aside = KEYS[8], aside + 1
    end
  end
  if entry == traced or #chain > 16 then
    local fields = { 'type', kind, 'data', args[at], 'seq', args[at + 1] }
    local function add(name, value)
      fields[#fields + 1], fields[#fields + 2] = name, value
    end
    if entry == traced then
      add('traceparent', args[trace + 1])
      trace = trace + 2
      traced = tonumber(args[trace] or 0)
    end
    local root, why = string.match(chain, '^(%x*) *(.*)$')
    if root ~= '' then
      add('root', root)
    end
    if why ~= '' then
      add('sync', why)
    end
    last = call('XADD', to, id, unpack(fields))
  elseif chain ~= '' then
    last = call('XADD', to, id, 'type', kind, 'data', args[at], 'seq', args[at + 1], 'root', chain)
  else
    last = call('XADD', to, id, 'type', kind, 'data', args[at], 'seq', args[at + 1])
  end
  if first == '' then
    first = last
  end
  at = at + each
end
if aside > 0 then
  redis.call('XSETID', KEYS[3], last)
  redis.call('HSET', KEYS[5], 'bulk', last)
end
if last ~= '' and ARGV[12] ~= '' then
  redis.call('HSET', KEYS[5], 'newest', last)
end
-- A field that somebody overwrote must not hold up the events.
for nth, name in ipairs({ 'gaps', 'resets', 'dataLoss' }) do
  local count = tonumber(ARGV[12 + nth]) + (nth == 3 and losses or 0)
  if count > 0 then
    redis.pcall('HINCRBY', KEYS[5], name, count)
  end
end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[2], ARGV[4])
  redis.call('HSET', KEYS[5], 'cursor', ARGV[4])
  for field, value in pairs(beside) do
    redis.call('HSET', KEYS[5], field, value)
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
return { 'ok', last, tostring(aside), tostring(written), tostring(losses) }
