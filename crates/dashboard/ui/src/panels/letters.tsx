/** Dead letters: what failed for good, by reason, and what to do with it. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Refusal, ask } from "../api";
import { Foreign, Json } from "../bidi";
import { bytes } from "../bytes";
import { Copy, pretty } from "../copy";
import { clock, count, full, moment, several } from "../format";
import { type Done, type Group, type Letter, type LettersFilter, type Page, NO_FILTER, doneWith, isOpen, keyOf, lettersQuery, nameOf, pathOf, span } from "../letters";
import { Panel, ageOf } from "../parts";
import { act, dim, letters, lettersFilter, metrics, now } from "../store";
import "./letters.css";

const AT = "api/dead-letters";

/** How many letters of a group are asked for at once. */
const PAGE = 50;

/** How long a filter must stand before the server is asked, in ms. */
const TYPING = 400;

/** What is listed: it stays as it is while someone points at it, reads or is about to press a button. */
const shown = signal<readonly Group[] | null>(null);
const inUse = signal(false);
/** By reason: the letters of the groups that are open. */
const pages = signal<Readonly<Record<string, Page>>>({});
/** By key: the data of the letters that are open; null: on its way. */
const data = signal<Readonly<Record<string, string | null>>>({});
const asking = signal<Question | null>(null);

/** What is asked before something is done that cannot be undone, or that is done with many. */
interface Question {
  title: string;
  text: string;
  button: string;
  danger: boolean;
  go: () => void;
}

/** Takes what the server holds, and reads the open groups anew. */
function refresh(): void {
  const groups = letters.value.value?.groups;
  if (!groups) return;
  shown.value = groups;
  const reasons = new Set(groups.map(({ reason }) => reason));
  pages.value = Object.fromEntries(Object.entries(pages.value).filter(([reason]) => reasons.has(reason)));
  for (const [reason, page] of Object.entries(pages.value)) void read(reason, null, Math.max(PAGE, page.items.length));
}

/** Reads a page of a group's letters; without a cursor it takes the place of what was there. */
async function read(reason: string, cursor: string | null, limit = PAGE): Promise<void> {
  const query = lettersQuery(lettersFilter.value, { reason, limit: String(Math.min(1_000, limit)), ...(cursor ? { cursor } : {}) });
  try {
    const page = await ask<Page>(`${AT}?${query}`);
    const before = cursor ? (pages.value[reason]?.items ?? []) : [];
    if (!(reason in pages.value)) return;
    pages.value = { ...pages.value, [reason]: { ...page, items: [...before, ...page.items] } };
    const keys = new Set(Object.values(pages.value).flatMap(({ items }) => items.map(keyOf)));
    data.value = Object.fromEntries(Object.entries(data.value).filter(([key]) => keys.has(key)));
  } catch (error) {
    const problem = error instanceof Refusal ? error.detail : String(error);
    if (reason in pages.value) pages.value = { ...pages.value, [reason]: { items: [], total: 0, cursor: null, ...pages.value[reason], problem } };
  }
}

function toggleGroup(reason: string): void {
  const { [reason]: was, ...others } = pages.value;
  if (was) {
    pages.value = others;
    return;
  }
  pages.value = { ...pages.value, [reason]: { items: [], total: 0, cursor: null } };
  void read(reason, null);
}

function toggleLetter(letter: Letter): void {
  const key = keyOf(letter);
  const { [key]: was, ...others } = data.value;
  data.value = was === undefined ? { ...others, [key]: null } : others;
  if (was !== undefined) return;
  ask<{ data: string; cutOf?: number }>(pathOf(letter)).then(
    (whole) => {
      const rest = whole.cutOf === undefined ? "" : `\n… (the first 512 kB of ${bytes(whole.cutOf)}; Download has all of it)`;
      if (key in data.value) data.value = { ...data.value, [key]: whole.data + rest };
    },
    (error: unknown) => { if (key in data.value) data.value = { ...data.value, [key]: `(${error instanceof Refusal ? error.detail : String(error)})` }; },
  );
}

function change(what: string | ((answer: unknown) => string), path: string, method: string): void {
  void act(what, path, method, () => void letters.ask().then(refresh));
}

function OneLetter({ letter, mixed }: { letter: Letter; mixed: boolean }) {
  const key = keyOf(letter);
  const isOpen = key in data.value;
  const one = pathOf(letter);
  const only = letter.source === "postgres";
  const remove = () => {
    asking.value = {
      title: "Delete this dead letter?", button: "Delete", danger: true, go: () => change("Deleted one dead letter.", one, "DELETE"),
      text: `${letter.uri ?? letter.repo ?? letter.id}: ${letter.error || "no reason given"}. ${only ? "PostgreSQL has the only copy: the event in it is lost." : "The event in it is not written."}`,
    };
  };
  return (
    <li class="letter">
      <div class="head">
        <button type="button" class="inspect" aria-expanded={isOpen} aria-controls={`letter-${key}`} onClick={() => toggleLetter(letter)} title={[letter.uri ?? letter.repo, letter.error].filter(Boolean).join(": ")}>
          <time title={`${moment(letter.at)}, entry ${letter.id}`}>{now.value - letter.at < 43_200_000 ? clock(letter.at) : moment(letter.at)}</time>
          {mixed && <span class="kind">{letter.type}</span>}
          <span class="why"><Foreign text={nameOf(letter)} /></span>
        </button>
        {only && <span class="only" title="Redis no longer has it: pushed out, or lost with Redis">only in PostgreSQL</span>}
        <button type="button" disabled={!letter.replayable} title={letter.replayable ? "" : "Not a stream event, so it cannot be replayed"} aria-label={`Replay ${letter.id}`} onClick={() => change("Replayed one entry.", `${one}/replay`, "POST")}>Replay</button>
        <button type="button" class="danger" aria-label={`Delete ${letter.id}`} onClick={remove}>Delete</button>
      </div>
      <div id={`letter-${key}`} hidden={!isOpen}>
        {isOpen && (
          <>
            <dl class="rows">
              <div><dt>Error</dt><dd><Foreign text={letter.error || "none given"} /></dd></div>
              {letter.uri && <div><dt>URI</dt><dd class="mono"><Foreign text={letter.uri} /> <Copy text={letter.uri} what="URI" /></dd></div>}
              {letter.repo && <div><dt>DID</dt><dd class="mono"><Foreign text={letter.repo} /> <Copy text={letter.repo} what="DID" /></dd></div>}
              <div><dt>Entry</dt><dd class="mono">{letter.id}{letter.origId && letter.origId !== letter.id && `, originally ${letter.origId}`}</dd></div>
              <div><dt>Sequence, deliveries</dt><dd>{letter.seq || "none"}, {letter.deliveries || "unknown"}</dd></div>
              {letter.consumer && <div><dt>Worker</dt><dd class="mono">{letter.consumer}</dd></div>}
            </dl>
            <pre tabIndex={0} aria-label={`Data of ${letter.id}`}>{data.value[key] === null ? "Reading …" : <Json text={pretty(data.value[key])} />}</pre>
            {data.value[key] !== null && <p class="buttons"><Copy text={JSON.stringify({ ...letter, data: data.value[key] })} what="letter as JSON" label="Copy as JSON" /></p>}
          </>
        )}
      </div>
    </li>
  );
}

function OneGroup({ group, index }: { group: Group; index: number }) {
  const page = pages.value[group.reason];
  const name = group.reason || "no reason given";
  const these = several(group.count, "dead letter");
  const query = lettersQuery(lettersFilter.value, { reason: group.reason });
  const replay = () => {
    asking.value = {
      title: `Replay ${these}?`, button: "Replay", danger: false, go: () => change((answer) => doneWith("Replayed", answer as Done), `${AT}/replay?${query}`, "POST"),
      text: `All that failed with “${name}” go back into the stream unchanged. Those that fail again come back here; those too old to be replayed stay.`,
    };
  };
  const remove = () => {
    asking.value = {
      title: `Delete ${these}?`, button: "Delete", danger: true, go: () => change((answer) => doneWith("Deleted", answer as Done), `${AT}?${query}`, "DELETE"),
      text: `All that failed with “${name}” are deleted permanently; the events in them are not written.`,
    };
  };
  return (
    <li class="group">
      <div class="head">
        <button type="button" class="inspect" aria-expanded={!!page} aria-controls={`group-${index}`} onClick={() => toggleGroup(group.reason)} title={group.example}>
          <span class="count">{count(group.count)}</span>
          <span class="why"><Foreign text={name} /></span>
        </button>
        {/* Without a reason there is nothing to ask the server for: such letters are dealt with one by one. */}
        <button type="button" disabled={!group.replayable || !group.reason} aria-label={`Replay ${these}: ${name}`} onClick={replay}>Replay</button>
        <button type="button" class="danger" disabled={!group.reason} aria-label={`Delete ${these}: ${name}`} onClick={remove}>Delete</button>
      </div>
      <p class="note">{span(group, now.value)} · {group.types.join(", ")} · {several(group.repos, "repo")}{group.onlyInPostgres > 0 && ` · ${count(group.onlyInPostgres)} only in PostgreSQL`}</p>
      <div id={`group-${index}`} hidden={!page}>
        {page && (
          <>
            {page.problem && <p class="empty">Could not list them: {page.problem}.</p>}
            <ul>
              {page.items.map((letter) => <OneLetter key={keyOf(letter)} letter={letter} mixed={group.types.length > 1} />)}
              {/* Until they come, their place is kept: what is below moves once, at the press of the button. */}
              {page.items.length === 0 && !page.problem && Array.from({ length: Math.min(PAGE, group.count) }, (_, at) => <li key={at} class="letter"><div class="head" /></li>)}
            </ul>
            {page.cursor && <p class="more"><button type="button" onClick={() => void read(group.reason, page.cursor)}>Show {full(Math.min(PAGE, page.total - page.items.length))} more of {full(page.total)}</button></p>}
          </>
        )}
      </div>
    </li>
  );
}

let typing: ReturnType<typeof setTimeout> | undefined;

function setFilter(part: Partial<LettersFilter>): void {
  lettersFilter.value = { ...lettersFilter.value, ...part };
  clearTimeout(typing);
  typing = setTimeout(() => {
    letters.path = `${AT}/groups?${lettersQuery(lettersFilter.value)}`;
    pages.value = {};
    void letters.ask().then(() => letters.ask()).then(refresh);
  }, TYPING);
}

function Controls() {
  const filter = lettersFilter.value;
  return (
    <form class="controls" role="search" aria-label="Filter the dead letters" onSubmit={(event) => event.preventDefault()}>
      <label>
        <span class="unseen">Dead letters contain</span>
        <input type="text" placeholder="Error, URI, DID or ID" spellcheck={false} autocomplete="off" value={filter.text} onInput={({ currentTarget }) => setFilter({ text: currentTarget.value })} />
      </label>
      <label>
        <span class="unseen">Type of dead letters</span>
        <select value={filter.type} onChange={({ currentTarget }) => setFilter({ type: currentTarget.value })}>
          <option value="">Any type</option>
          {["commit", "identity", "account", "raw", "message"].map((type) => <option key={type} value={type}>{type}</option>)}
        </select>
      </label>
      <button type="button" disabled={isOpen(filter)} onClick={() => setFilter(NO_FILTER)}>Clear</button>
      <a class="download" href={`${AT}/export?${lettersQuery(filter)}`} download="dead-letters.jsonl">Download</a>
    </form>
  );
}

export function Letters() {
  const inRedis = metrics.value?.firehoseStatus.deadLetterLength ?? null;
  const value = letters.value.value;
  const { old, note } = ageOf(letters, 60);
  const box = useRef<HTMLDivElement>(null);
  const reading = Object.keys(data.value).length;
  useEffect(() => {
    // In an empty list there is nothing to point at or to read.
    const busy = inUse.value || reading > 0;
    if (!busy || !shown.value?.length) refresh();
  }, [value, inUse.value, reading]);
  if (letters.missing.value) {
    if (!inRedis) return null;
    return (
      <Panel id="letters" title="Dead letters" note={full(inRedis)} old={dim.value}>
        <p class="empty">{`${several(inRedis, "dead letter")} in Redis. This dashboard cannot list them.`}</p>
      </Panel>
    );
  }
  const list = shown.value ?? [];
  const filtered = !isOpen(lettersFilter.value);
  const total = value?.total ?? inRedis ?? 0;
  const listed = list.reduce((sum, group) => sum + group.count, 0);
  const fresh = value && list.length > 0 ? total - listed : 0;
  const inside = () => box.current?.matches(":hover, :focus-within") ?? false;
  const look = () => setTimeout(() => { inUse.value = inside(); });
  const all = `${filtered ? "the" : total === 1 ? "the" : "all"} ${several(total, "dead letter")}${filtered ? " that match" : ""}`;
  const query = filtered ? lettersQuery(lettersFilter.value) : "all=true";
  const replay = () => {
    asking.value = {
      title: `Replay ${all}?`, button: "Replay", danger: false, go: () => change((answer) => doneWith("Replayed", answer as Done), `${AT}/replay?${query}`, "POST"),
      text: "They go back into the stream unchanged. Those that fail again come back here; those too old to be replayed stay.",
    };
  };
  const purge = () => {
    asking.value = {
      title: `Purge ${all}?`, button: "Purge", danger: true, go: () => change((answer) => doneWith("Deleted", answer as Done), `${AT}?${query}`, "DELETE"),
      text: "They are deleted permanently; the events in them are not written.",
    };
  };
  const kept = value?.onlyInPostgres ? ` · ${count(value.onlyInPostgres)} only in PostgreSQL` : "";
  const unread = value?.postgres === "unavailable" ? " · PostgreSQL not read" : "";
  const partly = value && !value.complete ? " · the oldest left out" : "";
  return (
    <Panel
      id="letters"
      title="Dead letters"
      note={note || `${count(total)}${filtered ? " match" : ""}${kept}${unread}${partly}${fresh > 0 ? `, ${count(fresh)} newer` : ""}`}
      old={old && letters.at.value > 0}
      actions={
        <>
          {fresh !== 0 && list.length > 0 && <button type="button" onClick={refresh}>Show newer</button>}
          <button type="button" disabled={!total} onClick={replay}>Replay all</button>
          <button type="button" class="danger" disabled={!total} onClick={purge}>Purge</button>
        </>
      }
    >
      <Controls />
      <div class="scroll" ref={box} tabIndex={0} role="region" aria-label="Dead letters by reason, most frequent first" onPointerEnter={look} onPointerLeave={look} onFocusIn={look} onFocusOut={look}>
        <ul>{list.map((group, index) => <OneGroup key={group.reason} group={group} index={index} />)}</ul>
        {value && value.reasons > list.length && list.length > 0 && <p class="empty">Plus {full(value.reasons - list.length)} rarer reasons.</p>}
        {list.length === 0 && (
          <p class="empty">{letters.problem.value && !value ? `Could not list them: ${letters.problem.value}.` : filtered ? "No dead letter matches." : "No dead letters. Entries that can never be stored are kept here, with the reason."}</p>
        )}
      </div>
      <Confirm />
    </Panel>
  );
}

function Confirm() {
  const question = asking.value;
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (question) dialog.current?.showModal();
    else dialog.current?.close();
  }, [question]);
  return (
    <dialog ref={dialog} aria-labelledby="h-confirm" onClose={() => { asking.value = null; }}>
      <h2 id="h-confirm">{question?.title}</h2>
      <p class="question"><bdi>{question?.text}</bdi></p>
      <p class="buttons">
        <button type="button" onClick={() => { asking.value = null; }}>Cancel</button>
        <button type="button" class={question?.danger ? "danger" : "primary"} onClick={() => { asking.value = null; question?.go(); }}>{question?.button}</button>
      </p>
    </dialog>
  );
}
