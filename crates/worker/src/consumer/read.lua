-- Reads entries that no consumer has read, until they are as many, or have as many bytes, as wanted: two at a time, so that
-- no more than two go over, however large they are.
-- KEYS: the stream. ARGV: group, consumer, how many at most, how many bytes.
local entries, bytes = {}, 0
local most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
while #entries < most and bytes < most_bytes do
  local count = math.min(2, most - #entries)
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', KEYS[1], '>')
  if not answer then
    break
  end
  local read = answer[1][2]
  for _, entry in ipairs(read) do
    entries[#entries + 1] = entry
    for at = 2, #entry[2], 2 do
      bytes = bytes + #entry[2][at]
    end
  end
  if #read < count then
    break
  end
end
return entries
