-- What a stream and a group of it tell of how far the group has come. Fields that a newer Redis tells besides are ignored.
local function lag_fields(pairs)
  local of = {}
  for at = 1, #pairs, 2 do
    of[pairs[at]] = pairs[at + 1]
  end
  return of
end
-- Returns what is told of a group; nothing where it is missing.
local function lag_group(key, group)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local of = lag_fields(info)
    if of.name == group then
      return of
    end
  end
end
-- Counts the entries of a range up to so many: a few at a time, for they may be large.
local function lag_count(key, from, to, most)
  local count = 0
  while count < most do
    local asked = math.min(20, most - count)
    local page = redis.call('XRANGE', key, from, to, 'COUNT', asked)
    count = count + #page
    if #page < asked then
      break
    end
    from = '(' .. page[#page][1]
  end
  return count
end
-- Returns length, first ID, last ID, last delivered ID, what Redis says of the lag, how many unread entries were counted, and of
-- those that were delivered how many are still there; false where it is not told, or there was no need to count.
local function lag_told(key, stream, group, most)
  local last, delivered = stream['last-generated-id'], group['last-delivered-id']
  local first = stream['first-entry'] and stream['first-entry'][1] or false
  local unread, kept = false, false
  if stream['length'] > 0 and delivered ~= last then
    -- A short count is exact whatever Redis makes of the lag.
    unread = lag_count(key, '(' .. delivered, '+', most)
    if unread == most and not group['lag'] then
      kept = lag_count(key, '-', delivered, most)
    end
  end
  return { stream['length'], first, last, delivered, group['lag'] or false, unread, kept }
end
