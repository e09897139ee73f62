-- Returns the last ID that a stream generated; nothing if there is no stream.
local function last_generated_id(stream)
  local info = redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'STREAM', stream) or {}
  for field = 1, #info, 2 do
    if info[field] == 'last-generated-id' then
      return info[field + 1]
    end
  end
end
-- Returns the number of an entry that a producer wrote; nothing for one from a backfill, a replay or a requeue.
local function number_of(fields)
  local seq
  for at = 1, #fields, 2 do
    if fields[at] == 'origId' then
      return nil
    end
    if fields[at] == 'seq' then
      seq = string.match(fields[at + 1], '^[1-9]%d*$')
    end
  end
  return seq and #seq <= 16 and seq or nil
end
-- Looks through at most so many entries after an ID, and roughly 16 MB of them. Returns the first one with a number ('' if none),
-- the last ID before it, and whether nothing is left to look through: if something is, go on from that ID.
local function beyond(stream, from, most)
  local bytes = 16000000
  while most > 0 and bytes > 0 do
    local count = math.min(most, 20)
    local page = redis.call('XRANGE', stream, '(' .. from, '+', 'COUNT', count)
    for _, entry in ipairs(page) do
      if number_of(entry[2]) then
        return entry[1], from, true
      end
      from = entry[1]
      for at = 1, #entry[2] do
        bytes = bytes - #entry[2][at]
      end
    end
    if #page < count then
      return '', from, true
    end
    most = most - count
  end
  return '', from, false
end
