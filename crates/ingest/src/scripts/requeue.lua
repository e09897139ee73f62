-- Puts entries that lie idle in the group back at its tail, or among the dead letters once that was done often enough, and
-- acknowledges them: readers that ask for what is new only never come back to what they held. Entries that left the stream
-- are acknowledged as lost. Does nothing unless the lease is mine and no worker of ours lives, who would claim them itself.
-- KEYS: lease, stream, state, dead letters, then the keys that show that a consumer is a worker of ours and alive
-- ARGV: token, group, idle time in ms, how many entries, how many bytes, how often an entry is put back at most
-- Returns 'ok'; how many were put back, became dead letters, were lost; whether more may be left ('1' or '0'); ID and
-- consumer of one of each kind ('' where there is none).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'lease' }
end
for at = 5, #KEYS do
  if redis.call('EXISTS', KEYS[at]) == 1 then
    return { 'alive' }
  end
end
local stream, group, most_bytes, most_times = KEYS[2], ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[6])
local found = redis.call('XPENDING', stream, group, 'IDLE', ARGV[3], '-', '+', ARGV[4])
local more = #found == tonumber(ARGV[4])
local back, letters, gone = {}, {}, {}
local least_seq, least_order = '', ''
local bytes = 0
for at, pending in ipairs(found) do
  if bytes > most_bytes then
    more = true
    break
  end
  local id = pending[1]
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if not entry then
    gone[#gone + 1] = pending
  else
    local of = {}
    for field = 1, #entry[2], 2 do
      of[entry[2][field]] = entry[2][field + 1]
      bytes = bytes + #entry[2][field + 1]
    end
    local order = of.origId or ''
    if not string.match(order, '^%d+%-%d+$') then
      order = id
    end
    local times = tonumber(of.requeued or '0') or 0
    local kept = { id = id, consumer = pending[2], deliveries = pending[4], of = of, order = order, times = times }
    if times >= most_times then
      letters[#letters + 1] = kept
    else
      back[#back + 1] = kept
      if least_order == '' or is_below(order, least_order) then
        least_order = order
      end
      local seq = string.match(of.seq or '', '^%d+$') and tonumber(of.seq)
      if seq and (least_seq == '' or seq < tonumber(least_seq)) then
        least_seq = of.seq
      end
    end
  end
end
-- A full Redis takes what comes behind a first write that needs no memory (take.lua): what lies here may be what fills it.
redis.call('HDEL', KEYS[3], '')
if #back > 0 then
  local before = redis.call('HMGET', KEYS[3], 'requeued', 'requeuedSeq', 'requeuedOrder')
  local first = redis.call('XPENDING', stream, group)[2]
  if before[1] and not is_below(before[1], first) then
    -- Some of those that were put back earlier may not be settled yet.
    if before[2] and before[2] ~= '' and (least_seq == '' or tonumber(before[2]) < tonumber(least_seq)) then
      least_seq = before[2]
    end
    if before[3] and before[3] ~= '' and is_below(before[3], least_order) then
      least_order = before[3]
    end
  end
  redis.call('HSET', KEYS[3], 'requeuedSeq', least_seq, 'requeuedOrder', least_order)
end
local last
for _, kept in ipairs(back) do
  local of = kept.of
  local fields = { 'type', of.type or '', 'data', of.data or '', 'seq', of.seq or '' }
  if of.traceparent then
    fields[#fields + 1] = 'traceparent'
    fields[#fields + 1] = of.traceparent
  end
  for _, text in ipairs({ 'origId', kept.order, 'requeued', tostring(kept.times + 1) }) do
    fields[#fields + 1] = text
  end
  last = redis.call('XADD', stream, '*', unpack(fields))
  redis.call('XACK', stream, group, kept.id)
end
if last then
  redis.call('HSET', KEYS[3], 'requeued', last)
end
for _, kept in ipairs(letters) do
  local of = kept.of
  dead_letter(KEYS[4], of.type or '', of.data or '', of.seq or '', kept.order, tostring(kept.deliveries),
    'no worker acknowledged it, although it was put back ' .. kept.times .. ' times', kept.consumer)
  redis.call('XACK', stream, group, kept.id)
end
for _, pending in ipairs(gone) do
  redis.call('XACK', stream, group, pending[1])
end
local function sample(kept)
  return kept and (kept.id or kept[1]) or '', kept and (kept.consumer or kept[2]) or ''
end
local answer = { 'ok', tostring(#back), tostring(#letters), tostring(#gone), more and '1' or '0' }
for _, kind in ipairs({ back, letters, gone }) do
  local id, consumer = sample(kind[1])
  answer[#answer + 1] = id
  answer[#answer + 1] = consumer
end
return answer
