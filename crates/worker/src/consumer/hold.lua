-- Decides which traces of deletes may go, and keeps that before any goes: a replay of what is older is refused from then on.
-- KEYS: the hash beside the workers' letters.
-- ARGV: below which ID all is settled, the least first ID of the letters that may be replayed or '', how long traces are kept at
-- least and how long letters may be replayed, in ms. The first two were read before, in this order: what was replayed since is
-- younger than what this keeps, or stands in `replayed`.
-- Returns the ID below which traces may go.
-- In a full Redis a script may allocate after a first write that needs no memory.
redis.call('HDEL', KEYS[1], '')
local below = string.format('%.0f-0', math.max(0, id_time() - tonumber(ARGV[3])))
local function keep_from(id)
  if id_is_below(id, below) then
    below = id
  end
end
keep_from(ARGV[1])
if ARGV[2] ~= '' then
  keep_from(ARGV[2])
end
local replayed = id_in_field(KEYS[1], 'replayed')
if replayed and id_is_below(replayed, ARGV[1]) then
  redis.call('HDEL', KEYS[1], 'replayed', 'replayedOrder')
elseif replayed then
  keep_from(id_in_field(KEYS[1], 'replayedOrder') or '0-0')
end
local before = id_in_field(KEYS[1], 'below')
if not before or id_is_below(before, below) then
  redis.call('HSET', KEYS[1], 'below', below)
end
redis.call('HSET', KEYS[1], 'hold', ARGV[4])
return below
