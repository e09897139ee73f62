-- Puts entries that lie idle in the group back at its tail, or among the dead letters once that was done often enough, and
-- acknowledges them: readers that ask for what is new only never come back to what they held. Entries that left the stream
-- are acknowledged as lost. Does nothing unless the lease is mine and no worker of ours lives, who would claim them itself.
--
-- One entry may kill whoever holds it, with all that lay beside it. So what was put back before goes back few at a time, the
-- more tries the fewer of what a consumer holds, once the last of them was delivered; and a try counts only if a worker
-- acknowledged something that stands behind it: while nobody does, it is not the entry's fault.
-- KEYS: lease, stream, state, dead letters, then the keys that show that a consumer is a worker of ours and alive
-- ARGV: token, group, idle time in ms, how many entries, how many bytes, how often an entry is put back at most, from where
--       the look begins ('-' in each round, then what the script before returned), then consumer and number of those
--       that this round has put back not for the first time
-- Returns 'ok'; how many were put back, became dead letters, were lost; whether more may be left ('1' or '0'); from where to
-- go on; ID and consumer of one of each kind ('' where there is none); then consumer and number of those put back not for the
-- first time.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'lease' }
end
for at = 5, #KEYS do
  if redis.call('EXISTS', KEYS[at]) == 1 then
    return { 'alive' }
  end
end
local stream, group, most_bytes, most_times = KEYS[2], ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[6])
local found = redis.call('XPENDING', stream, group, 'IDLE', ARGV[3], ARGV[7], '+', ARGV[4])
local delivered = '0-0'
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local of = {}
  for field = 1, #info, 2 do
    of[info[field]] = info[field + 1]
  end
  if of.name == group then
    delivered = of['last-delivered-id']
  end
end
local through = id_in(KEYS[3], 'requeuedThrough') or '0-0'
-- Returns the newest entry that a worker acknowledged and not this script ('0-0' where none is found).
local worked
local function acknowledged()
  if worked then
    return worked
  end
  worked = '0-0'
  local from = delivered
  for _ = 1, 100 do
    local page = redis.call('XREVRANGE', stream, from, '(' .. through, 'COUNT', 20)
    if #page == 0 then
      break
    end
    local least = page[#page][1]
    local held = redis.call('XPENDING', stream, group, least, page[1][1], 1000)
    if #held == 1000 then
      break
    end
    local is_pending = {}
    for _, pending in ipairs(held) do
      is_pending[pending[1]] = true
    end
    for _, entry in ipairs(page) do
      if not is_pending[entry[1]] then
        worked = entry[1]
        return worked
      end
    end
    from = '(' .. least
  end
  return worked
end
local holds, again = {}, {}
for _, of in ipairs(redis.call('XPENDING', stream, group)[4] or {}) do
  holds[of[1]] = tonumber(of[2])
end
local may_again = #ARGV > 7
for at = 8, #ARGV, 2 do
  again[ARGV[at]] = tonumber(ARGV[at + 1])
end
if not may_again then
  local last = id_in(KEYS[3], 'requeuedAgain')
  may_again = not last or not is_below(delivered, last)
end
local more = #found == tonumber(ARGV[4])
local back, letters, gone = {}, {}, {}
local least_seq, least_order = '', ''
local bytes, looked, news = 0, ARGV[7], {}
for _, pending in ipairs(found) do
  if bytes > most_bytes then
    more = true
    break
  end
  local id, consumer = pending[1], pending[2]
  looked = '(' .. id
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
    local kept = { id = id, consumer = consumer, deliveries = pending[4], of = of, order = order, times = times }
    local counts = times == 0 or is_below(id, acknowledged())
    local share = math.ceil((holds[consumer] or 1) / (times == 1 and 10 or 100))
    if counts and times >= most_times then
      letters[#letters + 1] = kept
    elseif times == 0 or (may_again and (again[consumer] or 0) < share) then
      if times > 0 then
        again[consumer] = (again[consumer] or 0) + 1
        news[consumer] = (news[consumer] or 0) + 1
      end
      kept.next = counts and times + 1 or times
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
  local before = { id_in(KEYS[3], 'requeued'), redis.call('HGET', KEYS[3], 'requeuedSeq'), id_in(KEYS[3], 'requeuedOrder') }
  local first = redis.call('XPENDING', stream, group)[2]
  if before[1] and not is_below(before[1], first) then
    -- Some of those that were put back earlier may not be settled yet.
    if before[2] and string.match(before[2], '^%d+$') and (least_seq == '' or tonumber(before[2]) < tonumber(least_seq)) then
      least_seq = before[2]
    end
    if before[3] and is_below(before[3], least_order) then
      least_order = before[3]
    end
  end
  redis.call('HSET', KEYS[3], 'requeuedSeq', least_seq, 'requeuedOrder', least_order)
end
local last, last_again
for _, kept in ipairs(back) do
  local of = kept.of
  local fields = { 'type', of.type or '', 'data', of.data or '', 'seq', of.seq or '' }
  if of.traceparent then
    fields[#fields + 1] = 'traceparent'
    fields[#fields + 1] = of.traceparent
  end
  for _, text in ipairs({ 'origId', kept.order, 'requeued', tostring(kept.next) }) do
    fields[#fields + 1] = text
  end
  last = redis.call('XADD', stream, '*', unpack(fields))
  redis.call('XACK', stream, group, kept.id)
  if kept.times > 0 then
    last_again = last
  end
end
if last then
  redis.call('HSET', KEYS[3], 'requeued', last)
end
if last_again then
  redis.call('HSET', KEYS[3], 'requeuedAgain', last_again)
end
for _, kind in ipairs({ back, letters }) do
  local kept = kind[#kind]
  if kept and is_below(through, kept.id) then
    through = kept.id
    redis.call('HSET', KEYS[3], 'requeuedThrough', through)
  end
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
local answer = { 'ok', tostring(#back), tostring(#letters), tostring(#gone), more and '1' or '0', looked }
for _, kind in ipairs({ back, letters, gone }) do
  local id, consumer = sample(kind[1])
  answer[#answer + 1] = id
  answer[#answer + 1] = consumer
end
for consumer, count in pairs(news) do
  answer[#answer + 1] = consumer
  answer[#answer + 1] = tostring(count)
end
return answer
