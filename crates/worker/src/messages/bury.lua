-- Removes a message that will never be a row and, if it still was there, puts it among the dead letters.
-- KEYS: what this worker took, the dead letters, messages held by all workers, three beside the dead letters. ARGV: the message, type, error, worker.
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then
  return 0
end
hold(KEYS[3], -1)
dead_letter(KEYS[2], ARGV[2], ARGV[1], '', '', '1', ARGV[3], ARGV[4])
return 1
