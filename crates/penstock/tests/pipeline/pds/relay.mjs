// A relay that carries the events of several servers in one sequence. It judges nothing: what a server says about an account that
// is not there any more is carried too.

import { createServer } from 'node:http';

import { decodeAll, encode } from '@atproto/lex-cbor';
import WebSocket, { WebSocketServer } from 'ws';

const PATH = '/xrpc/com.atproto.sync.subscribeRepos';

export class Relay {
  #frames = [];
  #cursors = new Map();
  #clients = new Set();
  #server = createServer();
  #chance = 0;
  #random = 1;
  #lost = 0;

  /** The number of the last event. */
  get last() {
    return this.#frames.length;
  }

  get url() {
    return `ws://127.0.0.1:${this.#server.address().port}`;
  }

  async start(hosts) {
    const sockets = new WebSocketServer({ server: this.#server, path: PATH });
    sockets.on('connection', (socket, request) => this.#serve(socket, request));
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    for (const host of hosts) this.#read(host);
  }

  /** The last number of a host that it has. */
  read_through(host) {
    return this.#cursors.get(host) ?? 0;
  }

  /** From now on so many of 1 commits are carried to nobody; returns how many were since it was told so. */
  lose(chance, seed) {
    const lost = this.#lost;
    this.#chance = chance;
    this.#random = (seed % 2_147_483_646) + 1;
    this.#lost = 0;
    return { lost };
  }

  #isLost(body) {
    if (this.#chance === 0 || !Array.isArray(body.ops)) return false;
    // Lehmer's generator: the same seed loses the same ones.
    this.#random = (this.#random * 48_271) % 2_147_483_647;
    if (this.#random / 2_147_483_647 >= this.#chance) return false;
    this.#lost += 1;
    return true;
  }

  #read(host) {
    const socket = new WebSocket(`${host.replace('http:', 'ws:')}${PATH}?cursor=${this.read_through(host)}`);
    socket.on('message', (data) => {
      const [header, body] = [...decodeAll(data)];
      if (typeof body.seq !== 'number') return;
      this.#cursors.set(host, body.seq);
      if (this.#isLost(body)) return;
      const seq = this.#frames.length + 1;
      const frame = Buffer.concat([encode(header), encode({ ...body, seq })]);
      this.#frames.push(frame);
      for (const client of this.#clients) client.send(frame);
    });
    socket.on('error', () => {});
    socket.on('close', () => setTimeout(() => this.#read(host), 100).unref());
  }

  #serve(socket, request) {
    const cursor = new URL(request.url, 'http://relay').searchParams.get('cursor');
    if (cursor !== null) for (const frame of this.#frames.slice(Number(cursor))) socket.send(frame);
    this.#clients.add(socket);
    socket.on('close', () => this.#clients.delete(socket));
    socket.on('error', () => {});
  }
}
