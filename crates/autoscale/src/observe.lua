-- Reads in one moment what the number of workers is decided on.
-- KEYS: the stream, ingest's state, the applied events, ingest's status.
-- ARGV: group, claim time in ms, how many unread entries, idle entries and consumers are counted at most, then the fields
-- of the state (paused, event time) and of the applied events (total, errors).
-- Returns 'wrongtype', key, type; or 'seen', state, applied, stream, group, consumers, and how many were counted of idle
-- entries, of those of idle consumers, and of unread entries (false where there was no need).
local wanted = { 'stream', 'hash', 'hash', 'string' }
for at, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= wanted[at] then
    return { 'wrongtype', key, found }
  end
end
local group, claim = ARGV[1], tonumber(ARGV[2])
local function fields(pairs)
  local of = {}
  for at = 1, #pairs, 2 do
    of[pairs[at]] = pairs[at + 1]
  end
  return of
end
local state = redis.call('HMGET', KEYS[2], ARGV[6], ARGV[7])
if redis.call('EXISTS', KEYS[4]) == 0 then
  -- The status goes with its ingest, and one that is gone is not paused, whatever it left.
  state[1] = false
end
local applied = redis.call('HMGET', KEYS[3], ARGV[8], ARGV[9])
if redis.call('EXISTS', KEYS[1]) == 0 then
  return { 'seen', state, applied, {}, {}, {}, 0, 0, false }
end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local first = stream['first-entry'] and stream['first-entry'][1] or false
local seen = { stream['length'], stream['last-generated-id'], first, stream['entries-added'] or false }
local ours
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local of = fields(info)
  if of.name == group then
    ours = of
  end
end
if not ours then
  return { 'seen', state, applied, seen, {}, {}, 0, 0, false }
end
local delivered = ours['last-delivered-id']
local consumers, abandoned = {}, 0
if ours.consumers > 0 then
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    local of = fields(info)
    if of.idle >= claim then
      abandoned = abandoned + of.pending
    end
    if (of.idle < claim or of.pending > 0) and #consumers < tonumber(ARGV[5]) then
      consumers[#consumers + 1] = { of.name, of.pending, of.idle }
    end
  end
end
local idle = 0
-- Where all are abandoned there is nothing left to look for, and with a long list looking takes long.
if ours.pending > abandoned then
  idle = #redis.call('XPENDING', KEYS[1], group, 'IDLE', ARGV[2], '-', '+', ARGV[4])
end
-- A short count is exact whatever Redis makes of the lag. A few at a time: entries may be large.
local unread = false
if stream['length'] > 0 and delivered ~= stream['last-generated-id'] then
  unread = 0
  local from, most = delivered, tonumber(ARGV[3])
  while unread < most do
    local asked = math.min(20, most - unread)
    local page = redis.call('XRANGE', KEYS[1], '(' .. from, '+', 'COUNT', asked)
    unread = unread + #page
    if #page < asked then
      break
    end
    from = page[#page][1]
  end
end
local of_group = { delivered, ours.pending, ours['entries-read'] or false, ours['lag'] or false }
return { 'seen', state, applied, seen, of_group, consumers, idle, abandoned, unread }
