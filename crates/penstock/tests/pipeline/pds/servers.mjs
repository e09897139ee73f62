// One directory of DIDs and some personal data servers, all real, on ports of their own.

import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';

import { PDS, envToCfg, envToSecrets } from '@atproto/pds';
import plcServer from '@did-plc/server';

const { Database, PlcServer } = plcServer;

/** A port that nobody listens on at this moment. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Starts what wants its port told, with another one where somebody was faster. */
async function onFreePort(start) {
  for (let attempt = 0; ; attempt += 1) {
    const port = await freePort();
    try {
      return await start(port);
    } catch (error) {
      if (error.code !== 'EADDRINUSE' || attempt === 9) throw error;
    }
  }
}

/** A directory, which keeps what it knows while it is down. */
export class Directory {
  #database = Database.mock();
  #server;
  port;

  async start() {
    if (this.port === undefined) {
      this.#server = await onFreePort((port) => this.#listen(port));
      this.port = this.#server.server.address().port;
    } else if (this.#server === undefined) {
      this.#server = await this.#listen(this.port);
    }
  }

  async stop() {
    const server = this.#server;
    this.#server = undefined;
    await server?.destroy();
  }

  async #listen(port) {
    const server = PlcServer.create({ db: this.#database, port });
    const listening = server.start();
    await new Promise((resolve, reject) => {
      server.server?.once('error', reject);
      listening.then(resolve, reject);
    });
    return server;
  }

  get url() {
    return `http://localhost:${this.port}`;
  }
}

/** A personal data server whose accounts have handles below `domain`. */
export async function personalDataServer(folder, domain, plcUrl) {
  await mkdir(folder, { recursive: true });
  const secret = () => randomBytes(32).toString('hex');
  return onFreePort(async (port) => {
    const env = {
      port,
      hostname: 'localhost',
      serviceDid: `did:web:localhost%3A${port}`,
      serviceHandleDomains: [domain],
      dataDirectory: folder,
      blobstoreDiskLocation: join(folder, 'blobs'),
      didPlcUrl: plcUrl,
      inviteRequired: false,
      devMode: true,
      jwtSecret: secret(),
      adminPassword: secret(),
      dpopSecret: secret(),
      plcRotationKeyK256PrivateKeyHex: secret(),
    };
    const pds = await PDS.create(envToCfg(env), envToSecrets(env));
    await pds.start();
    return pds;
  });
}
