-- Cuts the fields of an entry to so many bytes, for whoever only looks at it. Returns ID, fields, and how long its data is.
local function cut_letter(letter, most)
  local fields, length = letter[2], 0
  for at = 2, #fields, 2 do
    if fields[at - 1] == 'data' then
      length = #fields[at]
    end
    if #fields[at] > most then
      fields[at] = string.sub(fields[at], 1, most)
    end
  end
  return { letter[1], fields, length }
end
