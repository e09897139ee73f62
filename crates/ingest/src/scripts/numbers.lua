-- Reads the numbers of the newest entries, without their data.
-- KEYS: stream    ARGV: the ID from which it goes down, how many entries
-- Returns how many entries there were, the oldest ID ('' where there is none); then ID and number of each that carries one.
local page = redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])
local answer = { tostring(#page), #page > 0 and page[#page][1] or '' }
for _, entry in ipairs(page) do
  local seq = number_of(entry[2])
  if seq then
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = seq
  end
end
return answer
