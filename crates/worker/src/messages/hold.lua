-- Counts messages that a worker took, or no longer has. What goes wrong with it is put right when the statistics are shown.
local function hold(key, more)
  local held = (tonumber(redis.call('GET', key)) or 0) + more
  redis.call('SET', key, string.format('%.0f', math.max(held, 0)))
end
