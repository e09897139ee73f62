-- Reads dead letters of ingest that stand nowhere else, for the one worker whose turn it is.
-- KEYS: those letters, the hash beside them. ARGV: worker, for how long it has its turn in ms, the most letters, the most bytes.
local now = id_time()
local copier = redis.call('HGET', KEYS[2], 'copier')
if copier and copier ~= ARGV[1] and (tonumber(redis.call('HGET', KEYS[2], 'copierUntil')) or 0) > now then
  return {}
end
local from = id_in_field(KEYS[2], 'copied')
if from and redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for at = 1, #info, 2 do
    -- Somebody removed the stream, and Redis' clock went back.
    if info[at] == 'last-generated-id' and id_is_below(info[at + 1], from) then
      redis.call('HDEL', KEYS[2], 'copied')
      from = nil
    end
  end
end
from = from or '0-0'
local letters, bytes = {}, tonumber(ARGV[4])
while #letters < tonumber(ARGV[3]) and bytes > 0 do
  local letter = redis.call('XRANGE', KEYS[1], '(' .. from, '+', 'COUNT', 1)[1]
  if not letter then
    break
  end
  letters[#letters + 1] = letter
  from = letter[1]
  for at = 1, #letter[2] do
    bytes = bytes - #letter[2][at]
  end
end
if #letters > 0 then
  -- In a full Redis a script may allocate after a first write that needs no memory.
  redis.call('HDEL', KEYS[2], '')
  redis.call('HSET', KEYS[2], 'copier', ARGV[1], 'copierUntil', string.format('%.0f', now + tonumber(ARGV[2])))
end
return letters
