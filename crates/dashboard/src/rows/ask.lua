-- Reads in one moment how far the group has come in both streams.
-- KEYS: the stream, the second stream. ARGV: group.
-- Returns the time of Redis in ms, and for each stream { last generated ID, oldest unsettled ID }, false where there is none.
local function of_pairs(pairs)
  local of = {}
  for at = 1, #pairs, 2 do
    of[pairs[at]] = pairs[at + 1]
  end
  return of
end
local function look(key)
  if redis.call('TYPE', key).ok ~= 'stream' then
    return { false, false }
  end
  local last = of_pairs(redis.call('XINFO', 'STREAM', key))['last-generated-id']
  -- Without a group nothing was ever read: the oldest entry is the first one.
  local after = '-'
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local of = of_pairs(info)
    if of.name == ARGV[1] then
      if of.pending > 0 then
        return { last, redis.call('XPENDING', key, ARGV[1])[2] }
      end
      after = '(' .. of['last-delivered-id']
    end
  end
  local next = redis.call('XRANGE', key, after, '+', 'COUNT', 1)[1]
  return { last, next and next[1] or false }
end
local time = redis.call('TIME')
return { time[1] * 1000 + math.floor(time[2] / 1000), look(KEYS[1]), look(KEYS[2]) }
