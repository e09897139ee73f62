-- Claims entries that lay idle, and says of each how often it was delivered, this time included: one at a time, until they are
-- as many, or have as many bytes, as wanted.
-- KEYS: the stream. ARGV: group, consumer, idle time in ms, where to begin, how many at most, how many bytes.
local from, claimed, deleted, bytes = ARGV[4], {}, {}, 0
for _ = 1, tonumber(ARGV[5]) do
  local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], from, 'COUNT', 1)
  local before = from
  from = reply[1]
  for _, entry in ipairs(reply[2]) do
    if not entry or not entry[2] then
      -- Redis 6.2 lists an entry that left the stream as nil, and keeps it pending: newer ones acknowledge and name it.
      local through = from == '0-0' and '+' or from
      for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], before, through, 100, ARGV[2])) do
        if #redis.call('XRANGE', KEYS[1], pending[1], pending[1]) == 0 then
          redis.call('XACK', KEYS[1], ARGV[1], pending[1])
          deleted[#deleted + 1] = pending[1]
        end
      end
    else
      local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
      local times = pending[1] and pending[1][4] or 1
      -- Who gives an entry up for good may set the greatest number there is (XNACK … FATAL), and one more is below 0.
      if times < 1 or times > 1000000 then
        times = 1000000
      end
      claimed[#claimed + 1] = {entry[1], entry[2], times}
      for at = 2, #entry[2], 2 do
        bytes = bytes + #entry[2][at]
      end
    end
  end
  for _, id in ipairs(reply[3] or {}) do
    deleted[#deleted + 1] = id
  end
  if from == '0-0' or bytes >= tonumber(ARGV[6]) then
    break
  end
end
return {from, claimed, deleted}
