-- Reads which commits the entries of a stream are, some at a time.
-- KEYS: stream    ARGV: where to begin, as XRANGE takes it, how many entries at most, roughly how many bytes
-- Returns where to go on ('' at the end), the last ID read ('' without any), then of each commit its DID, rev ('' without one),
-- root and why its repo is desynchronized ('' where the entry does not say).
local from, most, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = { '', '' }
while most > 0 and bytes > 0 do
  local count = math.min(most, 20)
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', count)
  for _, entry in ipairs(page) do
    answer[2] = entry[1]
    from = '(' .. entry[1]
    local of = by_name(entry[2])
    local data = of.data or ''
    bytes = bytes - #data
    local did = of.type == 'commit' and string.match(data, '^%s*{%s*"repo"%s*:%s*"([^"\\]+)"')
    if did then
      -- What stands last: the records before it hold what their authors wrote.
      local rev = string.match(string.sub(data, -1000), '.*%],"rev":"(%w+)","time":')
      for _, text in ipairs({ did, rev or '', of.root or '', of.sync or '' }) do
        answer[#answer + 1] = text
      end
    end
  end
  if #page < count then
    return answer
  end
  most = most - count
end
answer[1] = from
return answer
