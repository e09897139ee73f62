-- Reads in one moment what tells up to where everything is settled.
-- KEYS: the stream, the cursor, the source, the incarnation, the state, the second stream. ARGV: group, how many entries of
-- each stream are looked through at most, how many numbers, the state's field of the second stream.
-- Returns source, cursor, incarnation; then, where stream and group exist, the last ID; of each stream the first entry that is
-- not settled: its ID, whether the stream still has it, and the least number of the first entries from there on that tell one:
-- a host may have put a number among them that lies far ahead, and resuming there would pass over the others; then of
-- the entries that ingest put back at the tail the last ID, the least number and the least first ID ('' where there is none).
local answer = {}
for at, key in ipairs({ KEYS[3], KEYS[2], KEYS[4] }) do
  answer[at] = redis.call('GET', key) or ''
end
local function field(pairs, name)
  for at = 1, #pairs, 2 do
    if pairs[at] == name then
      return pairs[at + 1]
    end
  end
end
-- Returns the last entry that the group was given; nothing where stream or group are missing.
local function delivered_of(stream)
  for _, group in ipairs(redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'GROUPS', stream) or {}) do
    if field(group, 'name') == ARGV[1] then
      return field(group, 'last-delivered-id')
    end
  end
end
-- Returns what is not settled in a stream.
local function unsettled(stream, delivered)
  local first, is_there, number = '', 1, ''
  local from = '(' .. delivered
  local pending = redis.call('XPENDING', stream, ARGV[1])
  if pending[1] > 0 then
    from = pending[2]
    first = from
    is_there = #redis.call('XRANGE', stream, from, from)
  end
  local left, numbers, least = tonumber(ARGV[2]), tonumber(ARGV[3]), nil
  while true do
    -- One at a time: entries may be large.
    local entry = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
    if not entry then
      -- No event of a number follows: all those up to the cursor lie before.
      if not least then
        number = 'cursor'
      end
      break
    end
    if first == '' then
      first = entry[1]
    end
    local seq = field(entry[2], 'seq') or ''
    -- A dead letter that is replayed carries an old number, which was settled when it became one; of those that were put
    -- back the least is known.
    if string.match(seq, '^%d+$') and not field(entry[2], 'origId') then
      if not least or tonumber(seq) < least then
        least, number = tonumber(seq), seq
      end
      numbers = numbers - 1
    end
    left = left - 1
    if left == 0 or numbers == 0 then
      break
    end
    from = '(' .. entry[1]
  end
  return first, is_there, number
end
local delivered = delivered_of(KEYS[1])
if not delivered then
  return answer
end
answer[4] = field(redis.call('XINFO', 'STREAM', KEYS[1]), 'last-generated-id')
answer[5], answer[6], answer[7] = unsettled(KEYS[1], delivered)
local in_bulk = delivered_of(KEYS[6])
if in_bulk then
  answer[8], answer[9], answer[10] = unsettled(KEYS[6], in_bulk)
elseif redis.call('HEXISTS', KEYS[5], ARGV[4]) == 1 then
  -- Gone, although ingest wrote it: nobody knows what of it was settled.
  answer[8], answer[9], answer[10] = '0-0', 0, ''
else
  answer[8], answer[9], answer[10] = '', 1, 'cursor'
end
for at, text in ipairs(redis.call('HMGET', KEYS[5], 'requeued', 'requeuedSeq', 'requeuedOrder')) do
  answer[10 + at] = text or ''
end
return answer
