-- Reads in one moment what tells up to where everything is settled.
-- KEYS: the stream, the cursor, the source, the incarnation, the state. ARGV: group, how many entries are looked through at
-- most.
-- Returns source, cursor, incarnation; then, where stream and group exist, the last ID, and the first entry that is not
-- settled: its ID, whether the stream still has it, and the number of the first entry from there on that tells one; then of
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
if redis.call('EXISTS', KEYS[1]) == 0 then
  return answer
end
local delivered
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if field(group, 'name') == ARGV[1] then
    delivered = field(group, 'last-delivered-id')
  end
end
if not delivered then
  return answer
end
answer[4] = field(redis.call('XINFO', 'STREAM', KEYS[1]), 'last-generated-id')
answer[5], answer[6], answer[7] = '', 1, ''
for at, text in ipairs(redis.call('HMGET', KEYS[5], 'requeued', 'requeuedSeq', 'requeuedOrder')) do
  answer[7 + at] = text or ''
end
local from = '(' .. delivered
local pending = redis.call('XPENDING', KEYS[1], ARGV[1])
if pending[1] > 0 then
  from = pending[2]
  answer[5] = from
  answer[6] = #redis.call('XRANGE', KEYS[1], from, from)
end
local left = tonumber(ARGV[2])
while true do
  -- One at a time: entries may be large.
  local entry = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
  if not entry then
    -- No event of a number follows: all those up to the cursor lie before.
    answer[7] = 'cursor'
    break
  end
  if answer[5] == '' then
    answer[5] = entry[1]
  end
  local seq = field(entry[2], 'seq') or ''
  -- A dead letter that is replayed carries an old number, which was settled when it became one; of those that were put back
  -- the least is known.
  if string.match(seq, '^%d+$') and not field(entry[2], 'origId') then
    answer[7] = seq
    break
  end
  left = left - 1
  if left == 0 then
    break
  end
  from = '(' .. entry[1]
end
return answer
