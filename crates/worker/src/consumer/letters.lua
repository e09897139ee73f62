-- Looks through some dead letters for the least first ID of those that may be replayed.
-- KEYS: the dead letters. ARGV: from which ID on, for how long after its event one may be replayed in ms, the most letters, the
-- most bytes of them, then the types that are events.
-- Returns the least first ID or '', and where to go on or ''.
local is_event = {}
for at = 5, #ARGV do
  is_event[ARGV[at]] = true
end
local oldest = string.format('%.0f-0', math.max(0, id_time() - tonumber(ARGV[2])))
local least, from, bytes = '', ARGV[1], tonumber(ARGV[4])
for _ = 1, tonumber(ARGV[3]) do
  local letter = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
  if not letter then
    return { least, '' }
  end
  local of = {}
  for at = 1, #letter[2], 2 do
    of[letter[2][at]] = letter[2][at + 1]
    bytes = bytes - #letter[2][at + 1]
  end
  local first = string.match(of.origId or '', '^%d+%-%d+$') or letter[1]
  if is_event[of.type or ''] and not id_is_below(first, oldest) and (least == '' or id_is_below(first, least)) then
    least = first
  end
  from = '(' .. letter[1]
  if bytes <= 0 then
    break
  end
end
return { least, from }
