-- Puts dead letters back into the stream as they were, the oldest first, and takes them out of the dead letters.
--
-- What is older than the traces of deletes that are kept is refused: it could bring back what was deleted since. A worker keeps in
-- `below` and `hold` from where on that is, before any trace goes; what is put back here stands in `replayed` and
-- `replayedOrder`, which hold the traces until it is settled.
-- KEYS: the dead letters, the stream, the hash beside the workers' letters, then three beside these letters.
-- ARGV: the first and the last ID, the most letters, the most bytes besides the last one, the most entries that the stream
-- may hold, the share of Redis' memory that may be in use (of 10000), then the types that are events.
-- Returns how many were put back, how many are no events and stay, how many are too old and stay, where to go on or '', and 1
-- if the stream is full.
needs({
  { 'XADD', KEYS[2], '*', '', '' }, { 'HSET', KEYS[3], '', '' }, { 'XDEL', KEYS[1], '1-1' }, { 'ZREM', KEYS[4], '' },
  { 'ZINCRBY', KEYS[5], '1', '' }, { 'HSET', KEYS[6], '', '' },
})
local room = tonumber(ARGV[5]) - redis.call('XLEN', KEYS[2])
-- Whoever may not ask for it does without.
local memory = redis.pcall('INFO', 'memory')
memory = type(memory) == 'string' and memory or ''
local used, most = string.match(memory, 'used_memory:(%d+)'), string.match(memory, 'maxmemory:(%d+)')
if most and tonumber(most) > 0 and tonumber(used) >= tonumber(most) * tonumber(ARGV[6]) / 10000 then
  room = 0
end
local is_event = {}
for at = 7, #ARGV do
  is_event[ARGV[at]] = true
end
local below = id_in_field(KEYS[3], 'below') or '0-0'
local hold = tonumber(redis.call('HGET', KEYS[3], 'hold'))
local oldest = hold and string.format('%.0f-0', math.max(0, id_time() - hold)) or '0-0'
local replayed, left, refused, bytes, from = 0, 0, 0, 0, ARGV[1]
while replayed + left + refused < tonumber(ARGV[3]) and bytes <= tonumber(ARGV[4]) do
  local letter = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', 1)[1]
  if not letter then
    return { replayed, left, refused, '', 0 }
  end
  local fields = {}
  for at = 1, #letter[2], 2 do
    fields[letter[2][at]] = letter[2][at + 1]
    bytes = bytes + #letter[2][at + 1]
  end
  -- Without the ID that it had at first, the letter's own comes nearest.
  local first = string.match(fields.origId or '', '^%d+%-%d+$') or letter[1]
  if not (fields.type and fields.data and is_event[fields.type]) then
    left = left + 1
  elseif id_is_below(first, below) or id_is_below(first, oldest) then
    refused = refused + 1
  elseif room <= 0 then
    return { replayed, left, refused, '', 1 }
  else
    -- In this order: where the stream does not take it, the script ends and the letter stays.
    local entry = redis.call('XADD', KEYS[2], '*', 'type', fields.type, 'data', fields.data, 'seq', fields.seq or '',
      'origId', first)
    local order = id_in_field(KEYS[3], 'replayedOrder')
    redis.call('HSET', KEYS[3], 'replayed', entry, 'replayedOrder', order and id_is_below(order, first) and order or first)
    letter_remove(KEYS[1], letter[1], letter[2])
    replayed = replayed + 1
    room = room - 1
  end
  from = '(' .. letter[1]
end
return { replayed, left, refused, from, 0 }
