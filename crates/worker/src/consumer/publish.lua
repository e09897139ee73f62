-- Adds to the public counts what each total grew by since it was last published. Where they are not there, or nobody noted
-- yet what they begin with, adds nothing. A count below nothing is shown as 0, and what it lacks is kept for what comes.
-- A total of 0 is as none at all, and leaves nothing behind.
-- KEYS: the published totals, the public counts. ARGV: the field of the note; worker/field, field, total, and so on.
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return nil
end
local changed = 0
-- In a full Redis a script may allocate after a first write that needs no memory.
redis.call('HDEL', KEYS[1], '')
for at = 2, #ARGV, 3 do
  local delta = tonumber(ARGV[at + 2]) - tonumber(redis.call('HGET', KEYS[1], ARGV[at]) or '0')
  if delta ~= 0 then
    local field, lacking = ARGV[at + 1], 'lacking ' .. ARGV[at + 1]
    local shown = tonumber(redis.call('HGET', KEYS[2], field) or '0') or 0
    local count = shown + delta - tonumber(redis.call('HGET', KEYS[1], lacking) or '0')
    redis.call('HSET', KEYS[2], field, string.format('%.0f', math.max(count, 0)))
    if count < 0 then
      redis.call('HSET', KEYS[1], lacking, string.format('%.0f', -count))
    else
      redis.call('HDEL', KEYS[1], lacking)
    end
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2])
    changed = changed + 1
  end
  if ARGV[at + 2] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
return changed
