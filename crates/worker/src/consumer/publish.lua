-- Adds to the public counts what each total grew by since it was last published.
-- KEYS: the published totals, the public counts. ARGV: worker/field, field, total, and so on.
local changed = 0
for at = 1, #ARGV, 3 do
  local delta = tonumber(ARGV[at + 2]) - tonumber(redis.call('HGET', KEYS[1], ARGV[at]) or '0')
  if delta ~= 0 then
    redis.call('HINCRBY', KEYS[2], ARGV[at + 1], string.format('%.0f', delta))
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2])
    changed = changed + 1
  end
end
return changed
