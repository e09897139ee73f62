-- Returns the fields of an entry by their names.
local function by_name(list)
  local of = {}
  for field = 1, #list, 2 do
    of[list[field]] = list[field + 1]
  end
  return of
end
-- Returns the last entry delivered to a group; nothing if the stream or the group is missing.
local function last_delivered(stream, group)
  for _, info in ipairs(redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'GROUPS', stream) or {}) do
    local of = by_name(info)
    if of.name == group then
      return of['last-delivered-id']
    end
  end
end
-- Returns the fields for a copy of an entry, plus some.
local function copy_with(of, added)
  local fields = { 'type', of.type or '', 'data', of.data or '', 'seq', of.seq or '' }
  for _, name in ipairs({ 'traceparent', 'root', 'sync' }) do
    if of[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = of[name]
    end
  end
  for _, text in ipairs(added) do
    fields[#fields + 1] = text
  end
  return fields
end
-- The least number and the first ID among the entries put back. They bound the workers' checkpoint until the group is past the
-- last of them.
local least_seq, least_order = '', ''
local function lower_bound_to(seq, order)
  seq = string.match(seq or '', '^%d+$')
  if seq and (least_seq == '' or tonumber(seq) < tonumber(least_seq)) then
    least_seq = seq
  end
  if order and (least_order == '' or id_is_below(order, least_order)) then
    least_order = order
  end
end
-- Lowers them to those of entries put back earlier, unless the group is past the last of these.
local function lower_bound_to_earlier(state, first_unsettled)
  local last = id_in_field(state, 'requeued')
  if last and not id_is_below(last, first_unsettled) then
    lower_bound_to(redis.call('HGET', state, 'requeuedSeq'), id_in_field(state, 'requeuedOrder'))
  end
end
