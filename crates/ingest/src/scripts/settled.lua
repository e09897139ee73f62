-- Tells up to where the workers have settled both streams.
-- KEYS: stream, second stream, desynchronized repos    ARGV: the workers' group
-- Returns the first entry that is not settled ('' if there is none), the last ID of both streams ('' without any), and how many
-- repos wait to be marked.
local first, last = '', ''
local function lower(id)
  if first == '' or id_is_below(id, first) then
    first = id
  end
end
for at = 1, 2 do
  local newest = last_generated_id(KEYS[at])
  if newest then
    if last == '' or id_is_below(last, newest) then
      last = newest
    end
    local delivered = last_delivered(KEYS[at], ARGV[1])
    if delivered then
      local pending = redis.call('XPENDING', KEYS[at], ARGV[1])
      if pending[1] > 0 then
        lower(pending[2])
      end
    end
    local unread = redis.call('XRANGE', KEYS[at], delivered and '(' .. delivered or '-', '+', 'COUNT', 1)[1]
    if unread then
      lower(unread[1])
    end
  end
end
return { first, last, redis.call('ZCARD', KEYS[3]) }
