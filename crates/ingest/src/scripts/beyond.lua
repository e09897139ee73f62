-- Returns the number of an entry that a producer wrote; nothing for what a backfill, a replay or a requeue put there.
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
-- Looks through at most so many entries behind an ID, and so many megabytes of them, about. Returns the first one that carries a number ('' where there is none),
-- the last ID before it, and whether there was no more to look through: whoever asks goes on from there.
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
