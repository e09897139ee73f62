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

/** The action as the filter names it: `→ alice.test` is a new handle. */
export function action(event: LiveEvent): string {
  return event.action?.startsWith("→") ? "handle" : event.action;
}

function holds(text: string | undefined, part: string): boolean {
  const wanted = part.trim().toLowerCase().replace(/\*+$/, "");
  return !wanted || (text ?? "").toLowerCase().includes(wanted);
}
