// The part of better-sqlite3's interface that the PDS and its query builder use, on the SQLite that Node brings. The package itself
// compiles SQLite while it is installed, or downloads it from where npm has nothing to do with.
'use strict';

const { DatabaseSync } = require('node:sqlite');

// By the extended result code: those that the PDS tells apart.
const CODES = new Map([
  [5, 'SQLITE_BUSY'],
  [261, 'SQLITE_BUSY_RECOVERY'],
  [517, 'SQLITE_BUSY_SNAPSHOT'],
  [773, 'SQLITE_BUSY_TIMEOUT'],
  [1555, 'SQLITE_CONSTRAINT_PRIMARYKEY'],
  [2067, 'SQLITE_CONSTRAINT_UNIQUE'],
]);

function attempt(action) {
  try {
    return action();
  } catch (error) {
    if (error.errcode !== undefined) error.code = CODES.get(error.errcode) ?? `SQLITE_${error.errcode}`;
    throw error;
  }
}

// Bytes come as a Buffer there, as a bare Uint8Array from Node.
function withBuffers(row) {
  for (const name in row) {
    const value = row[name];
    if (value instanceof Uint8Array) row[name] = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
  return row;
}

class Statement {
  #inner;

  constructor(inner) {
    this.#inner = inner;
    this.reader = inner.columns().length > 0;
  }

  all(values = []) {
    return attempt(() => this.#inner.all(...values).map(withBuffers));
  }

  run(values = []) {
    return attempt(() => this.#inner.run(...values));
  }

  *iterate(values = []) {
    for (const row of this.#inner.iterate(...values)) yield withBuffers(row);
  }
}

class Database {
  #inner;

  constructor(location, { timeout = 5000 } = {}) {
    this.#inner = attempt(() => new DatabaseSync(location, { timeout }));
    // The tests end the servers and never the machine: waiting for the disk took most of their time.
    this.#inner.exec('PRAGMA synchronous = OFF');
  }

  prepare(sql) {
    return attempt(() => new Statement(this.#inner.prepare(sql)));
  }

  pragma(text) {
    attempt(() => this.#inner.exec(`PRAGMA ${text}`));
  }

  exec(sql) {
    attempt(() => this.#inner.exec(sql));
  }

  close() {
    this.#inner.close();
  }
}

module.exports = Database;
