-- Reads one dead letter, each field cut.
-- KEYS: the dead letters. ARGV: its ID, the most bytes of a field.
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1], 'COUNT', 1)[1]
return letter and { cut_letter(letter, tonumber(ARGV[2])) } or {}
