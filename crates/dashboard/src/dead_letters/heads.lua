-- Reads the heads of dead letters, the oldest first: all but most of their data.
-- KEYS: the dead letters. ARGV: where to begin, the most letters, the most bytes besides the last one, how much of the data and
-- of the error.
-- Returns the heads, each its ID, the length of its data, and then its fields, cut; where to go on or ''; and how many there are.
local heads, bytes, from = {}, 0, ARGV[1]
local cut = { data = tonumber(ARGV[4]), error = tonumber(ARGV[5]) }
for _ = 1, tonumber(ARGV[2]) do
  local letter = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
  if not letter then
    return { heads, '', redis.call('XLEN', KEYS[1]) }
  end
  local head = { letter[1], 0 }
  for at = 1, #letter[2], 2 do
    local name, value = letter[2][at], letter[2][at + 1]
    bytes = bytes + #value
    if name == 'data' then
      head[2] = #value
    end
    head[#head + 1] = string.sub(name, 1, 100)
    head[#head + 1] = string.sub(value, 1, cut[name] or 300)
  end
  heads[#heads + 1] = head
  from = '(' .. letter[1]
  if bytes > tonumber(ARGV[3]) then
    break
  end
end
return { heads, from, redis.call('XLEN', KEYS[1]) }
