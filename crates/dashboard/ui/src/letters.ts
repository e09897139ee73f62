/** Dead letters as the server tells them, and how they are asked for. */

import { age, clock, count, several } from "./format";

/** Letters that failed for the same reason. */
export interface Group {
  /** The reason without what differs from letter to letter. */
  reason: string;
  example: string;
  count: number;
  onlyInPostgres: number;
  replayable: number;
  /** In ms of the wall clock. */
  first: number;
  last: number;
  types: string[];
  repos: number;
}

export interface Groups {
  groups: Group[];
  reasons: number;
  total: number;
  onlyInPostgres: number;
  complete: boolean;
  postgres: "listed" | "notUsed" | "unavailable";
}

/** A letter without its data. */
export interface Letter {
  source: "redis" | "postgres";
  id: string;
  at: number;
  type: string;
  error: string;
  reason: string;
  repo: string | null;
  uri: string | null;
  seq: string;
  origId: string;
  deliveries: string;
  consumer: string;
  bytes: number;
  replayable: boolean;
}

export interface Page {
  items: Letter[];
  cursor: string | null;
  total: number;
  /** Why there is no more. */
  problem?: string;
}

/** What was done with letters. */
export interface Done {
  replayed?: number;
  left?: number;
  refused?: number;
  deleted?: number;
  more?: boolean;
}

export interface LettersFilter {
  text: string;
  type: string;
}

export const NO_FILTER: LettersFilter = { text: "", type: "" };

export function isOpen(filter: LettersFilter): boolean {
  return !filter.text.trim() && !filter.type;
}

/** What the server is asked for. */
export function lettersQuery(filter: LettersFilter, more: Record<string, string> = {}): string {
  const query = new URLSearchParams(more);
  if (filter.text.trim()) query.set("text", filter.text.trim().slice(0, 200));
  if (filter.type) query.set("type", filter.type);
  return query.toString();
}

/** What tells a letter from all others. */
export function keyOf(letter: Letter): string {
  return `${letter.source}-${letter.id}`;
}

/** What a letter is called in a list: the record first, as that is what differs, then whose it is. */
export function nameOf({ uri, repo, error, seq }: Letter): string {
  const [, path] = /^at:\/\/[^/]+\/(.+)$/.exec(uri ?? "") ?? [];
  return [path, repo].filter(Boolean).join(" · ") || (seq && `sequence ${seq}`) || error;
}

/** Where a letter is, and what is done with it. */
export function pathOf(letter: Letter): string {
  return `${letter.source === "redis" ? "api/redis/dead-letters" : "api/dead-letters/postgres"}/${encodeURIComponent(letter.id)}`;
}

/** Says since when and until when the letters of a group came. */
export function span({ first, last, count: number }: Group, now: number): string {
  const ago = `${age((now - last) / 1000)} ago`;
  if (number === 1) return ago;
  const far = last - first > 86_400_000 || now - first > 86_400_000;
  return `last ${ago}, first ${far ? `${age((now - first) / 1000)} ago` : clock(first)}`;
}

/** Says what came of it: some may be too old for a replay, and some are no events. */
export function doneWith(did: "Replayed" | "Deleted", { replayed = 0, left = 0, refused = 0, deleted = 0, more }: Done): string {
  const stay = [
    refused ? `${count(refused)} older than worker.letterHold` : "",
    left ? `${count(left)} that ${left === 1 ? "is not an event" : "are not events"}` : "",
  ].filter(Boolean);
  const rest = more ? " There are more: do it again once workers have caught up." : "";
  return `${did} ${several(did === "Replayed" ? replayed : deleted, "dead letter")}${stay.length > 0 ? `; kept ${stay.join(" and ")}` : ""}.${rest}`;
}
