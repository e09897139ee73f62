-- Puts back into the stream what only PostgreSQL holds, under the conditions of replay.lua.
-- KEYS: the stream, the hash beside the workers' letters.
-- ARGV: the most entries that the stream may hold, the share of Redis' memory that may be in use (of 10000), type, data, seq, and
-- the ID that it had at first.
-- Returns `replayed`, `refused` or `full`.
-- Whoever may not ask for it does without.
local memory = redis.pcall('INFO', 'memory')
memory = type(memory) == 'string' and memory or ''
local used, most = string.match(memory, 'used_memory:(%d+)'), string.match(memory, 'maxmemory:(%d+)')
local full = tonumber(ARGV[1]) <= redis.call('XLEN', KEYS[1])
if full or most and tonumber(most) > 0 and tonumber(used) >= tonumber(most) * tonumber(ARGV[2]) / 10000 then
  return 'full'
end
local below = id_in_field(KEYS[2], 'below') or '0-0'
local hold = tonumber(redis.call('HGET', KEYS[2], 'hold'))
local oldest = hold and string.format('%.0f-0', math.max(0, id_time() - hold)) or '0-0'
local first = ARGV[6]
if id_is_below(first, below) or id_is_below(first, oldest) then
  return 'refused'
end
local entry = redis.call('XADD', KEYS[1], '*', 'type', ARGV[3], 'data', ARGV[4], 'seq', ARGV[5], 'origId', first)
local order = id_in_field(KEYS[2], 'replayedOrder')
redis.call('HSET', KEYS[2], 'replayed', entry, 'replayedOrder', order and id_is_below(order, first) and order or first)
return 'replayed'
