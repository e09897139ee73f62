-- Removes those of the named consumers that hold nothing and still gave no sign of life for long; returns their names.
-- KEYS: the stream. ARGV: group, idle time in ms, and the names.
local named = {}
for at = 3, #ARGV do
  named[ARGV[at]] = true
end
local removed = {}
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local of = {}
  for at = 1, #consumer, 2 do
    of[consumer[at]] = consumer[at + 1]
  end
  if named[of.name] and of.pending == 0 and of.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], of.name)
    removed[#removed + 1] = of.name
  end
end
return removed
