-- Reads the numbers of the newest entries, without their data, a few entries at a time and within limits.
-- KEYS: stream    ARGV: the ID to go down from, how many entries at most, roughly how many bytes
-- Returns the ID to go on from ('' if nothing is left); then ID and number of each entry that has one.
local from, most, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = { '' }
while most > 0 and bytes > 0 do
  local count = math.min(most, 20)
  local page = redis.call('XREVRANGE', KEYS[1], from, '-', 'COUNT', count)
  for _, entry in ipairs(page) do
    local seq = number_of(entry[2])
    if seq then
      answer[#answer + 1] = entry[1]
      answer[#answer + 1] = seq
    end
    for at = 1, #entry[2] do
      bytes = bytes - #entry[2][at]
    end
    from = '(' .. entry[1]
  end
  if #page < count then
    return answer
  end
  most = most - count
end
answer[1] = from
return answer
