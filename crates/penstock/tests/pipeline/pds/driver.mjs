// Runs a directory, so many personal data servers, a relay before them and a name server, until its input ends: driver.mjs FOLDER
// SERVERS. The first line of its output has the addresses; then each line of input is a command, `{"do": …, …}`, and is answered
// with one line, `{"ok": …}` or `{"error": …}`, in order.

import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { Accounts } from './accounts.mjs';
import { Names } from './names.mjs';
import { Relay } from './relay.mjs';
import { Directory, personalDataServer } from './servers.mjs';

const [folder, count] = process.argv.slice(2);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
// The servers' scripts report on it.
console.log = () => {};

const directory = new Directory();
await directory.start();
const servers = [];
for (let number = 1; number <= Number(count); number += 1) {
  servers.push(await personalDataServer(join(folder, `pds-${number}`), `.pds${number}.test`, directory.url));
}
const hosts = servers.map((server) => server.ctx.cfg.service.publicUrl);
const relay = new Relay();
await relay.start(hosts);
const accounts = new Accounts(servers);
const names = new Names((handle) => accounts.did_of(handle));
await names.start();

const commands = {
  directory: ({ up }) => (up ? directory.start() : directory.stop()),
  withhold: ({ handle, withheld }) => names.withhold(handle, withheld),
  /** Has the relay lose commits; once it has read what the servers have said so far. */
  lose: async ({ chance, seed }) => {
    while (!(await commands.relayed()).complete) await new Promise((resolve) => setTimeout(resolve, 20));
    return relay.lose(chance, seed);
  },
  /** The relay's last number, whether it has every event of the servers, and their last numbers. */
  relayed: async () => {
    const ends = await Promise.all(servers.map((server) => server.ctx.sequencer.curr()));
    return { complete: ends.every((end, index) => (end ?? 0) <= relay.read_through(hosts[index])), last: relay.last, ends };
  },
};

say({ directory: directory.url, servers: hosts, relay: relay.url, names: names.address });
for await (const line of createInterface({ input: process.stdin })) {
  try {
    const { do: name, ...parameters } = JSON.parse(line);
    const command = commands[name] ?? accounts[name].bind(accounts);
    say({ ok: (await command(parameters)) ?? {} });
  } catch (error) {
    say({ error: String(error?.message ?? error) });
  }
}
process.exit(0);
