/** Which of the live events are shown. */

export interface LiveEvent {
  /** `#commit`, `#identity` or `#account`. */
  type: string;
  /** The collection, or what stands for it. */
  lexicon: string;
  did: string;
  action: string;
  /** `HH:MM:SS`, in UTC. */
  timestamp: string;
  /** Of a commit, where ingest tells it. */
  rkey?: string;
  rev?: string;
  /** The relay's number. */
  seq?: number;
  /** Where it stands in the server's stream, `process-number`. */
  id?: string;
}

export interface Filter {
  /** Kinds that are left out. */
  without: ReadonlySet<string>;
  /** Part of the collection's name. */
  collection: string;
  /** Part of the DID. */
  did: string;
  /** One of `ACTIONS`, or empty for all. */
  action: string;
}

export const ACTIONS = ["create", "update", "delete", "handle", "active", "inactive"] as const;

export const ALL: Filter = { without: new Set(), collection: "", did: "", action: "" };

/** Says whether the filter lets everything through. */
export function isOpen(filter: Filter): boolean {
  return filter.without.size === 0 && !filter.collection.trim() && !filter.did.trim() && !filter.action;
}

/** Says whether the event is shown. */
export function matches(filter: Filter, event: LiveEvent): boolean {
  if (filter.without.has(event.type)) return false;
  if (filter.action && action(event) !== filter.action) return false;
  return holds(event.lexicon, filter.collection) && holds(event.did, filter.did);
}

/** The newest that match, at most so many, newest first; the events come oldest first. */
export function newest(events: readonly LiveEvent[], filter: Filter, most: number): LiveEvent[] {
  const found: LiveEvent[] = [];
  for (let at = events.length - 1; at >= 0 && found.length < most; at -= 1) {
    const event = events[at];
    if (event && matches(filter, event)) found.push(event);
  }
  return found;
}

/** In the order of the server's stream: what it had kept may be older than what is here. Of several servers as they came. */
export function inOrder(events: LiveEvent[]): LiveEvent[] {
  const numbers = events.map(({ id = "" }) => Number(id.slice(id.lastIndexOf("-") + 1)));
  const last = events.at(-1)?.id ?? "";
  const server = last.slice(0, last.lastIndexOf("-") + 1);
  const sorted = numbers.every((number, at) => at === 0 || number >= (numbers[at - 1] ?? 0));
  if (sorted || !server || !events.every(({ id }) => id?.startsWith(server))) return events;
  return events.map((event, at) => ({ event, number: numbers[at] ?? 0 })).sort((a, b) => a.number - b.number).map(({ event }) => event);
}

/** The URI of a commit's record, where it is known. */
export function uriOf(event: LiveEvent): string {
  return event.rkey ? `at://${event.did}/${event.lexicon}/${event.rkey}` : "";
}

/** The action as the filter names it: `→ alice.test` is a new handle. */
export function action(event: LiveEvent): string {
  return event.action?.startsWith("→") ? "handle" : event.action;
}

/** The parts of a text between its stars, in the form in which they are compared. */
function parts(text: string): string[] {
  return text.trim().toLowerCase().split("*").filter(Boolean);
}

function holds(text: string | undefined, part: string): boolean {
  const whole = (text ?? "").toLowerCase();
  let from = 0;
  for (const piece of parts(part)) {
    const at = whole.indexOf(piece, from);
    if (at < 0) return false;
    from = at + piece.length;
  }
  return true;
}

const KINDS = ["#commit", "#identity", "#account"];

/** What the server is asked for, so that it sends only what is shown. */
export function query(filter: Filter): URLSearchParams {
  const asked = new URLSearchParams();
  if (filter.without.size > 0) for (const kind of KINDS) if (!filter.without.has(kind)) asked.append("type", kind.slice(1));
  for (const name of ["collection", "did"] as const) {
    const pattern = parts(filter[name]).join("*");
    if (pattern) asked.append(name, `*${pattern}*`.slice(0, 250));
  }
  if (filter.action) asked.append("action", filter.action);
  return asked;
}

/** The filter in an address, as far as there is one. */
export function fromAddress(search: string): Filter {
  const asked = new URLSearchParams(search);
  const action = asked.get("action") ?? "";
  return {
    without: new Set(KINDS.filter((kind) => (asked.get("without") ?? "").split(",").includes(kind.slice(1)))),
    collection: asked.get("collection") ?? "",
    did: asked.get("did") ?? "",
    action: (ACTIONS as readonly string[]).includes(action) ? action : "",
  };
}

/** The address with the filter in the place of the one that was there; what else is in it stays. */
export function toAddress(search: string, filter: Filter): string {
  const asked = new URLSearchParams(search);
  const said = { without: [...filter.without].map((kind) => kind.slice(1)).join(","), collection: filter.collection.trim(), did: filter.did.trim(), action: filter.action };
  for (const [name, value] of Object.entries(said)) {
    if (value) asked.set(name, value);
    else asked.delete(name);
  }
  const written = asked.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  return written && `?${written}`;
}
