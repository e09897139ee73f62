-- Puts dead letters back into the stream as they were, the oldest first, and takes them out of the dead letters.
-- KEYS: the dead letters, the stream.
-- ARGV: the first and the last ID, the most letters, the most bytes besides the last one, the most entries that the stream
-- may hold, the share of Redis' memory that may be in use (of 10000), then the types that are events.
-- Returns how many were put back, how many are no events and stay, where to go on or '', and 1 if the stream is full.
local room = tonumber(ARGV[5]) - redis.call('XLEN', KEYS[2])
local memory = redis.call('INFO', 'memory')
local used, most = string.match(memory, 'used_memory:(%d+)'), string.match(memory, 'maxmemory:(%d+)')
if tonumber(most) > 0 and tonumber(used) >= tonumber(most) * tonumber(ARGV[6]) / 10000 then
  room = 0
end
local is_event = {}
for at = 7, #ARGV do
  is_event[ARGV[at]] = true
end
local replayed, left, bytes, from = 0, 0, 0, ARGV[1]
while replayed + left < tonumber(ARGV[3]) and bytes <= tonumber(ARGV[4]) do
  local letter = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', 1)[1]
  if not letter then
    return { replayed, left, '', 0 }
  end
  local fields = {}
  for at = 1, #letter[2], 2 do
    fields[letter[2][at]] = letter[2][at + 1]
  end
  if fields.type and fields.data and is_event[fields.type] then
    if room <= 0 then
      return { replayed, left, '', 1 }
    end
    -- Without the ID that it had at first, the letter's own comes nearest.
    local first = fields.origId or ''
    if not string.match(first, '^%d+%-%d+$') then
      first = letter[1]
    end
    -- In this order: where the stream does not take it, the script ends and the letter stays.
    redis.call('XADD', KEYS[2], '*', 'type', fields.type, 'data', fields.data, 'seq', fields.seq or '', 'origId', first)
    redis.call('XDEL', KEYS[1], letter[1])
    replayed = replayed + 1
    room = room - 1
    bytes = bytes + #fields.data
  else
    left = left + 1
  end
  from = '(' .. letter[1]
end
return { replayed, left, from, 0 }
