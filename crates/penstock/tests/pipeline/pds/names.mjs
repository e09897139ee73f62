// A name server that knows the TXT records of handles, and that every other name is this machine.

import { createSocket } from 'node:dgram';

const TXT = 16;
const A = 1;

export class Names {
  #didOf;
  #silent = new Set();
  #socket = createSocket('udp4');

  constructor(didOf) {
    this.#didOf = didOf;
  }

  get address() {
    const { address, port } = this.#socket.address();
    return `${address}:${port}`;
  }

  async start() {
    this.#socket.on('message', (query, from) => this.#answer(query, from).catch((error) => console.error(error)));
    await new Promise((resolve) => this.#socket.bind(0, '127.0.0.1', resolve));
  }

  /** From here on nobody knows a handle's name, as that of a domain that ran out, or everybody does again. */
  withhold(handle, withheld) {
    if (withheld) this.#silent.add(handle);
    else this.#silent.delete(handle);
  }

  async #answer(query, from) {
    const labels = [];
    let at = 12;
    while (query[at] !== 0) {
      labels.push(query.toString('latin1', at + 1, at + 1 + query[at]));
      at += 1 + query[at];
    }
    const kind = query.readUInt16BE(at + 1);
    const question = query.subarray(12, at + 5);
    const name = labels.join('.').toLowerCase();
    let data;
    let known = true;
    if (name.startsWith('_atproto.')) {
      const handle = name.slice('_atproto.'.length);
      const did = this.#silent.has(handle) ? undefined : await this.#didOf(handle);
      known = did !== undefined;
      if (known && kind === TXT) {
        const text = Buffer.from(`did=${did}`);
        data = Buffer.concat([Buffer.from([text.length]), text]);
      }
    } else if (this.#silent.has(name)) {
      known = false;
    } else if (kind === A) {
      data = Buffer.from([127, 0, 0, 1]);
    }
    const header = Buffer.alloc(12);
    query.copy(header, 0, 0, 2);
    header.writeUInt16BE(0x8580 | (known ? 0 : 3), 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(data ? 1 : 0, 6);
    const answer = [header, question];
    if (data) {
      const record = Buffer.alloc(12);
      record.writeUInt16BE(0xc00c, 0);
      record.writeUInt16BE(kind, 2);
      record.writeUInt16BE(1, 4);
      record.writeUInt32BE(0, 6);
      record.writeUInt16BE(data.length, 10);
      answer.push(record, data);
    }
    this.#socket.send(Buffer.concat(answer), from.port, from.address);
  }
}
