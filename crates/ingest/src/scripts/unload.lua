-- Moves the unsettled entries of the second stream to the tail of the first, for readers that know only the first.
-- KEYS: lease, second stream, stream, state    ARGV: token, group, how many entries, roughly how many bytes
-- Returns how many were moved, and whether more may be left ('1' or '0'); none are unless the lease is mine.
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then
  return { 0, '0' }
end
local from, to, group, most, bytes = KEYS[2], KEYS[3], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local delivered, delivered_first = last_delivered(from, group), last_delivered(to, group)
-- The first unsettled entry of the first stream.
local unsettled = delivered_first or '0-0'
if delivered_first then
  local pending = redis.call('XPENDING', to, group)
  unsettled = pending[1] > 0 and pending[2] or delivered_first
end
local moved, looked, more = 0, nil, '0'
lower_bound_to_earlier(KEYS[4], unsettled)
-- In a full Redis a script may allocate after a first write that needs no memory (take.lua).
redis.call('HDEL', KEYS[4], '')
while moved < most and bytes > 0 do
  -- One at a time: entries may be large.
  local entry = redis.call('XRANGE', from, looked and '(' .. looked or '-', '+', 'COUNT', 1)[1]
  if not entry then
    break
  end
  looked = entry[1]
  local is_unread = not delivered or id_is_below(delivered, looked)
  if is_unread or #redis.call('XPENDING', from, group, looked, looked, 1) > 0 then
    local of = by_name(entry[2])
    for field = 2, #entry[2], 2 do
      bytes = bytes - #entry[2][field]
    end
    local last = redis.call('XADD', to, '*', unpack(copy_with(of, { 'origId', looked })))
    if not is_unread then
      redis.call('XACK', from, group, looked)
    end
    lower_bound_to(of.seq, looked)
    redis.call('HSET', KEYS[4], 'requeued', last, 'requeuedSeq', least_seq, 'requeuedOrder', least_order)
    moved = moved + 1
  end
end
if looked then
  local ms, seq = string.match(looked, '^(%d+)-(%d+)$')
  redis.call('XTRIM', from, 'MINID', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
  more = redis.call('XLEN', from) > 0 and '1' or '0'
end
return { moved, more }
