-- Deletes all dead letters. KEYS: the dead letters, three beside them. Returns how many there were.
letter_forget(KEYS[1])
return redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
