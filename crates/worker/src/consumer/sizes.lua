-- Says of each key how many elements it has and how many bytes it takes: -1 where that may not be asked, 0 where it is not there.
-- KEYS: the keys.
local lengths = { stream = 'XLEN', hash = 'HLEN', list = 'LLEN', zset = 'ZCARD', set = 'SCARD', string = 'STRLEN' }
local sizes = {}
for at, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  local bytes = redis.pcall('MEMORY', 'USAGE', key)
  sizes[2 * at - 1] = lengths[kind] and redis.call(lengths[kind], key) or 0
  if type(bytes) == 'table' then
    sizes[2 * at] = -1
  else
    sizes[2 * at] = bytes or 0
  end
end
return sizes
