-- Puts idle entries of the group back at the tail, or dead-letters them after enough tries, and
-- acknowledges them: consumers that ask only for new entries never return to what they held. Entries that left the stream
-- are acknowledged as lost. Does nothing unless the lease is mine and no worker of ours is alive, which would claim them itself.
--
-- A single entry may crash whoever takes it, along with everything beside it. So entries that were put back before go back few at
-- a time, once the last of them was delivered: the more tries, the smaller the share of what a consumer holds. A try counts only
-- if a worker acknowledged something after the entry: while none does, the entry is not to blame.
-- KEYS: lease, stream, state, dead letters, three that go with them, then the keys that show that a worker of ours is alive
-- ARGV: token, group, idle time in ms, how many entries, how many bytes, how often to put an entry back at most, where to
--       start ('-' in each round, then what the last script returned), then consumer and number of the entries
--       that this round has put back repeatedly
-- Returns 'ok'; how many were put back, dead-lettered, lost; whether more may be left ('1' or '0'); where to
-- go on; ID and consumer of one of each kind ('' if none); then consumer and number of entries put back
-- repeatedly.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'lease' }
end
for at = 8, #KEYS do
  if redis.call('EXISTS', KEYS[at]) == 1 then
    return { 'alive' }
  end
end
local stream, group, most_bytes, most_times = KEYS[2], ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[6])
local found = redis.call('XPENDING', stream, group, 'IDLE', ARGV[3], ARGV[7], '+', ARGV[4])
local delivered = last_delivered(stream, group) or '0-0'
local through = id_in_field(KEYS[3], 'requeuedThrough') or '0-0'
-- Returns the newest entry that a worker, and not this script, acknowledged ('0-0' if none is found).
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
-- Returns the DID of an entry's repo, from the beginning of its data, where producers put it.
local function repo_of(data)
  local did = string.match(data, '^{"repo": ?"(did:[^"\\]*)"') or string.match(data, '^{"did": ?"(did:[^"\\]*)"')
  return did and #did <= 2048 and did or ''
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
  local last = id_in_field(KEYS[3], 'requeuedAgain')
  may_again = not last or not id_is_below(delivered, last)
end
local more = #found == tonumber(ARGV[4])
local back, letters, gone = {}, {}, {}
local bytes, looked, news = 0, ARGV[7], {}
for _, pending in ipairs(found) do
  if bytes > most_bytes then
    more = true
    break
  end
  -- What somebody handed back is no consumer's.
  local id, consumer = pending[1], pending[2] or ''
  looked = '(' .. id
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if not entry then
    gone[#gone + 1] = pending
  else
    local of = by_name(entry[2])
    for field = 2, #entry[2], 2 do
      bytes = bytes + #entry[2][field]
    end
    local order = of.origId or ''
    if not string.match(order, '^%d+%-%d+$') then
      order = id
    end
    local times = tonumber(of.requeued or '0') or 0
    local kept = { id = id, consumer = consumer, deliveries = pending[4], of = of, order = order, times = times }
    local counts = times == 0 or id_is_below(id, acknowledged())
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
      lower_bound_to(of.seq, order)
    end
  end
end
-- In a full Redis a script may allocate after a first write that needs no memory (take.lua): idle entries may be what fills it.
redis.call('HDEL', KEYS[3], '')
if #back > 0 then
  lower_bound_to_earlier(KEYS[3], redis.call('XPENDING', stream, group)[2])
  redis.call('HSET', KEYS[3], 'requeuedSeq', least_seq, 'requeuedOrder', least_order)
end
local last, last_again
for _, kept in ipairs(back) do
  local fields = copy_with(kept.of, { 'origId', kept.order, 'requeued', tostring(kept.next) })
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
  if kept and id_is_below(through, kept.id) then
    through = kept.id
    redis.call('HSET', KEYS[3], 'requeuedThrough', through)
  end
end
for _, kept in ipairs(letters) do
  local of = kept.of
  dead_letter(KEYS[4], of.type or '', of.data or '', of.seq or '', kept.order, tostring(kept.deliveries),
    'no worker acknowledged it although it was requeued ' .. kept.times .. ' times', kept.consumer, repo_of(of.data or ''))
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
