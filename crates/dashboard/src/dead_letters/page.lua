-- Reads dead letters of workers and of ingest, the newest first.
-- KEYS: the dead letters of either. ARGV: where to begin, the most letters, the most bytes besides the last one, the most bytes of a field.
-- Returns the letters, and the ID of the last one where there are older ones, else ''.
local letters, bytes, last = {}, 0, ''
local next_of = {}
for nth, key in ipairs(KEYS) do
  next_of[nth] = redis.call('XREVRANGE', key, ARGV[1], '-', 'COUNT', 1)[1]
end
while true do
  local newest
  for nth in ipairs(KEYS) do
    if next_of[nth] and (not newest or id_is_below(next_of[newest][1], next_of[nth][1])) then
      newest = nth
    end
  end
  if not newest then
    return { letters, '' }
  end
  if #letters == tonumber(ARGV[2]) or bytes > tonumber(ARGV[3]) then
    return { letters, last }
  end
  local letter = next_of[newest]
  letters[#letters + 1] = cut_letter(letter, tonumber(ARGV[4]))
  for _, text in ipairs(letter[2]) do
    bytes = bytes + #text
  end
  last = letter[1]
  next_of[newest] = redis.call('XREVRANGE', KEYS[newest], '(' .. last, '-', 'COUNT', 1)[1]
end
