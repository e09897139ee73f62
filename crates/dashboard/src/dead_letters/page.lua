-- Reads dead letters, the newest first.
-- KEYS: the dead letters. ARGV: where to begin, the most letters, the most bytes besides the last one.
-- Returns the letters, and the ID of the last one where there are older ones, else ''.
local letters, bytes, from, last = {}, 0, ARGV[1], ''
while true do
  local letter = redis.call('XREVRANGE', KEYS[1], from, '-', 'COUNT', 1)[1]
  if not letter then
    return { letters, '' }
  end
  if #letters == tonumber(ARGV[2]) or bytes > tonumber(ARGV[3]) then
    return { letters, last }
  end
  letters[#letters + 1] = letter
  for _, text in ipairs(letter[2]) do
    bytes = bytes + #text
  end
  last = letter[1]
  from = '(' .. last
end
