// What people do with their accounts, over the same HTTP interface that their apps use.

import { writeFile } from 'node:fs/promises';

import { Secp256k1Keypair } from '@atproto/crypto';
import { scripts } from '@atproto/pds';

const PASSWORD = 'correct horse battery staple';

/** Accounts by DID, each with the server that it is at and its sessions. */
export class Accounts {
  #servers;
  #accounts = new Map();

  constructor(servers) {
    this.#servers = servers;
  }

  async create({ server, handle }) {
    const email = `${handle.replaceAll('.', '-')}@mail.test`;
    const made = await this.#call(server, 'com.atproto.server.createAccount', { handle, email, password: PASSWORD });
    this.#accounts.set(made.did, { server, email, sessions: new Map([[server, made.accessJwt]]) });
    return { did: made.did };
  }

  /** Creates a record; `at` names a server that is not the account's present one. */
  create_record({ did, collection, rkey, record }) {
    return this.#write(did, 'createRecord', { collection, rkey, record });
  }

  put_record({ did, collection, rkey, record }) {
    return this.#write(did, 'putRecord', { collection, rkey, record });
  }

  delete_record({ did, collection, rkey }) {
    return this.#write(did, 'deleteRecord', { collection, rkey });
  }

  /** Several writes in one commit, as `com.atproto.repo.applyWrites` takes them. */
  apply_writes({ did, writes }) {
    return this.#write(did, 'applyWrites', { writes });
  }

  /** Every record of these collections, as its server has it now. */
  async list_records({ did, collections }) {
    const { server } = this.#account(did);
    const records = [];
    for (const collection of collections) {
      let cursor;
      do {
        const query = { repo: did, collection, limit: '100', ...(cursor && { cursor }) };
        const page = await this.#ask(server, 'com.atproto.repo.listRecords', query);
        records.push(...page.records);
        cursor = page.cursor;
      } while (cursor);
    }
    return { records };
  }

  async latest_commit({ did }) {
    return this.#ask(this.#account(did).server, 'com.atproto.sync.getLatestCommit', { did });
  }

  /** What a server answers about an account, also where it refuses. */
  async repo_status({ did, server }) {
    const query = new URLSearchParams({ did });
    const answer = await fetch(`${this.#url(server)}/xrpc/com.atproto.sync.getRepoStatus?${query}`);
    return { status: answer.status, body: await answer.json() };
  }

  change_handle({ did, handle }) {
    return this.#as(did, 'com.atproto.identity.updateHandle', { handle });
  }

  /** A new signing key: the server signs with it, and the directory has it. `announced` as the server's own script does it. */
  async rotate_key({ did, announced = false }) {
    const { ctx } = this.#servers[this.#account(did).server];
    const key = await Secp256k1Keypair.create({ exportable: true });
    const { keyLocation } = await ctx.actorStore.getLocation(did);
    if (announced) {
      await writeFile(keyLocation, await key.export());
      // It signs the repo again and sends `#identity` and `#sync`.
      await scripts['rotate-keys'](ctx, [did]);
    } else {
      await ctx.plcClient.updateAtprotoKey(did, ctx.plcRotationKey, key.did());
      await writeFile(keyLocation, await key.export());
      await ctx.sequencer.sequenceIdentity(did);
    }
    return { key: key.did() };
  }

  /** Moves an account with all that it has. The server before is left with an active account, as a person may leave it. */
  async move({ did, to, handle }) {
    const account = this.#account(did);
    const from = account.server;
    const audience = this.#servers[to].ctx.cfg.service.did;
    const proof = await this.#ask(
      from,
      'com.atproto.server.getServiceAuth',
      { aud: audience, lxm: 'com.atproto.server.createAccount' },
      account.sessions.get(from),
    );
    const input = { did, handle, email: account.email, password: PASSWORD };
    const made = await this.#call(to, 'com.atproto.server.createAccount', input, proof.token);
    account.sessions.set(to, made.accessJwt);

    const repo = await fetch(`${this.#url(from)}/xrpc/com.atproto.sync.getRepo?${new URLSearchParams({ did })}`);
    if (!repo.ok) throw new Error(`getRepo answered ${repo.status}`);
    await this.#call(to, 'com.atproto.repo.importRepo', new Uint8Array(await repo.arrayBuffer()), made.accessJwt);

    const wanted = await this.#ask(to, 'com.atproto.identity.getRecommendedDidCredentials', {}, made.accessJwt);
    // A person finds this token in an email.
    const token = await this.#servers[from].ctx.accountManager.createEmailToken(did, 'plc_operation');
    const session = account.sessions.get(from);
    const signed = await this.#call(from, 'com.atproto.identity.signPlcOperation', { token, ...wanted }, session);
    await this.#call(to, 'com.atproto.identity.submitPlcOperation', { operation: signed.operation }, made.accessJwt);
    await this.#call(to, 'com.atproto.server.activateAccount', undefined, made.accessJwt);
    account.server = to;
    return {};
  }

  async deactivate({ did, server = this.#account(did).server }) {
    return this.#call(server, 'com.atproto.server.deactivateAccount', {}, this.#account(did).sessions.get(server));
  }

  async activate({ did, server = this.#account(did).server }) {
    return this.#call(server, 'com.atproto.server.activateAccount', undefined, this.#account(did).sessions.get(server));
  }

  async delete({ did, server = this.#account(did).server }) {
    const token = await this.#servers[server].ctx.accountManager.createEmailToken(did, 'delete_account');
    return this.#call(server, 'com.atproto.server.deleteAccount', { did, password: PASSWORD, token });
  }

  /** The DID that a server gives for a handle below its domain. */
  async did_of(handle) {
    for (const { ctx } of this.#servers) {
      const account = await ctx.accountManager.getAccount(handle, { includeDeactivated: true });
      // Where it was before says the old name for as long as it keeps the account.
      if (account && this.#servers[this.#accounts.get(account.did)?.server]?.ctx === ctx) return account.did;
    }
    return undefined;
  }

  async #write(did, method, input) {
    const { server, sessions } = this.#account(did);
    return this.#call(server, `com.atproto.repo.${method}`, { repo: did, ...input }, sessions.get(server));
  }

  #as(did, method, input) {
    const { server, sessions } = this.#account(did);
    return this.#call(server, method, input, sessions.get(server));
  }

  #account(did) {
    const account = this.#accounts.get(did);
    if (account === undefined) throw new Error(`no account ${did}`);
    return account;
  }

  #url(server) {
    return this.#servers[server].ctx.cfg.service.publicUrl;
  }

  async #ask(server, method, query, token) {
    return this.#answer(method, await fetch(`${this.#url(server)}/xrpc/${method}?${new URLSearchParams(query)}`, {
      headers: token ? { authorization: `Bearer ${token}` } : {},
    }));
  }

  async #call(server, method, input, token) {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    let body;
    if (input instanceof Uint8Array) {
      headers['content-type'] = 'application/vnd.ipld.car';
      body = input;
    } else if (input !== undefined) {
      headers['content-type'] = 'application/json';
      body = JSON.stringify(input);
    }
    return this.#answer(method, await fetch(`${this.#url(server)}/xrpc/${method}`, { method: 'POST', headers, body }));
  }

  async #answer(method, answer) {
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} answered ${answer.status}: ${text}`);
    return text === '' ? {} : JSON.parse(text);
  }
}
