-- Removes the consumers that hold nothing and gave no sign of life for long; returns their names.
-- KEYS: the stream. ARGV: group, the consumer that asks, idle time in ms.
local removed = {}
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local of = {}
  for at = 1, #consumer, 2 do
    of[consumer[at]] = consumer[at + 1]
  end
  if of.name ~= ARGV[2] and of.pending == 0 and of.idle > tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], of.name)
    removed[#removed + 1] = of.name
  end
end
return removed
