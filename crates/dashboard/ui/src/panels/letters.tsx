/** Dead letters: what failed for good, why, and what to do with it. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { DeadLetter } from "../api";
import { clock, count, entryTime, full, moment, several } from "../format";
import { Panel, ageOf } from "../parts";
import { act, dim, letters, metrics } from "../store";

/** How many are listed; a list of thousands helps nobody. */
const LISTED = 100;
/** How much of an entry is shown, in characters. */
const EXCERPT = 20_000;

const AT = "api/redis/dead-letters";

/** What the stream takes back. */
const EVENTS = ["commit", "identity", "account"];

/** What is listed: it stays as it is while someone points at it, reads or is about to press a button. */
const shown = signal<readonly DeadLetter[] | null>(null);
const inUse = signal(false);
const open = signal<ReadonlySet<string>>(new Set());
const asking = signal<"replay" | "purge" | null>(null);

/** Takes what the server holds, newest first. */
function refresh(): void {
  const items = letters.value.value?.items;
  if (items) shown.value = [...items].sort((a, b) => compare(b.id, a.id));
}

export function compare(a: string, b: string): number {
  const [a1 = 0, a2 = 0] = a.split("-").map(Number);
  const [b1 = 0, b2 = 0] = b.split("-").map(Number);
  return a1 - b1 || a2 - b2;
}

function change(what: string, path: string, method: string): void {
  void act(what, path, method, () => void letters.ask().then(refresh));
}

function Letter({ letter }: { letter: DeadLetter }) {
  const at = entryTime(letter.id);
  const isOpen = open.value.has(letter.id);
  const toggle = () => {
    const next = new Set(open.value);
    if (!next.delete(letter.id)) next.add(letter.id);
    open.value = next;
  };
  const one = `${AT}/${encodeURIComponent(letter.id)}`;
  return (
    <li>
      <div class="head">
        <button type="button" class="inspect" aria-expanded={isOpen} aria-controls={`letter-${letter.id}`} onClick={toggle} title={letter.error ?? ""}>
          <time title={at === null ? letter.id : `${moment(at)}, entry ${letter.id}`}>{at === null ? letter.id : clock(at)}</time>
          <span class="kind">{letter.type}</span>
          <span class="why">{letter.error || "no reason was given"}</span>
        </button>
        <button type="button" disabled={!EVENTS.includes(letter.type)} title={EVENTS.includes(letter.type) ? "" : "This is no event of the stream and cannot be replayed"} aria-label={`Replay ${letter.id}`} onClick={() => change("Replayed one entry.", `${one}/replay`, "POST")}>Replay</button>
        <button type="button" class="danger" aria-label={`Delete ${letter.id}`} onClick={() => change("Deleted one dead letter.", one, "DELETE")}>Delete</button>
      </div>
      <div id={`letter-${letter.id}`} hidden={!isOpen}>
        {isOpen && (
          <>
            <dl class="rows">
              <div><dt>Reason</dt><dd>{letter.error || "none given"}</dd></div>
              <div><dt>Entry</dt><dd class="mono">{letter.id}{letter.origId && `, first ${letter.origId}`}</dd></div>
              <div><dt>Sequence, deliveries</dt><dd>{letter.seq || "none"}, {letter.deliveries ?? "not known"}</dd></div>
              {letter.consumer && <div><dt>Worker</dt><dd class="mono">{letter.consumer}</dd></div>}
            </dl>
            <pre tabIndex={0} aria-label={`Data of ${letter.id}`}>{pretty(letter.data)}</pre>
          </>
        )}
      </div>
    </li>
  );
}

export function Letters() {
  const total = metrics.value?.firehoseStatus.deadLetterLength ?? null;
  const items = letters.value.value?.items;
  const { old, note } = ageOf(letters, 60);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!inUse.value && open.value.size === 0) refresh();
  }, [items, inUse.value, open.value]);
  if (letters.missing.value) {
    return (
      <Panel id="letters" title="Dead letters" note={total === null ? "" : full(total)} old={dim.value}>
        <p class="empty">{total ? `${several(total, "dead letter")} in the stream firehose:dead-letters. This dashboard does not list them.` : "No dead letters."}</p>
      </Panel>
    );
  }
  const list = shown.value ?? [];
  const older = list.length >= LISTED ? Math.max(list.length, total ?? 0) - LISTED : 0;
  const fresh = items ? items.filter((item) => !list.some((one) => one.id === item.id)).length : 0;
  const inside = () => box.current?.matches(":hover, :focus-within") ?? false;
  const look = () => setTimeout(() => { inUse.value = inside(); });
  return (
    <Panel
      id="letters"
      title="Dead letters"
      note={note || (total === null ? "" : fresh > 0 && list.length > 0 ? `${count(total)}, ${fresh} newer` : count(total))}
      old={old && letters.at.value > 0}
      actions={
        <>
          {fresh > 0 && list.length > 0 && <button type="button" onClick={refresh}>Show newer</button>}
          <button type="button" disabled={!total} onClick={() => { asking.value = "replay"; }}>Replay all</button>
          <button type="button" class="danger" disabled={!total} onClick={() => { asking.value = "purge"; }}>Purge</button>
        </>
      }
    >
      <div class="scroll" ref={box} tabIndex={0} role="region" aria-label="Dead letters, newest first" onPointerEnter={look} onPointerLeave={look} onFocusIn={look} onFocusOut={look}>
        <ul>{list.slice(0, LISTED).map((letter) => <Letter key={letter.id} letter={letter} />)}</ul>
        {older > 0 && <p class="empty">And {full(older)} older ones.</p>}
        {list.length === 0 && (
          <p class="empty">{letters.problem.value && !letters.value.value ? `Not listed: ${letters.problem.value}.` : "No dead letters. What PostgreSQL will never take is kept here, with the reason."}</p>
        )}
      </div>
      <Confirm total={total ?? 0} />
    </Panel>
  );
}

function Confirm({ total }: { total: number }) {
  const what = asking.value;
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (what) dialog.current?.showModal();
    else dialog.current?.close();
  }, [what]);
  const all = total === 1 ? "the dead letter" : `all ${several(total, "dead letter")}`;
  const go = () => {
    asking.value = null;
    if (what === "replay") change(`Replayed ${all}.`, `${AT}/replay`, "POST");
    else change(`Purged ${all}.`, AT, "DELETE");
  };
  return (
    <dialog ref={dialog} aria-labelledby="h-confirm" onClose={() => { asking.value = null; }}>
      <h2 id="h-confirm">{what === "purge" ? `Purge ${all}?` : `Replay ${all}?`}</h2>
      <p>{what === "purge" ? "They are deleted for good; the events in them are not applied." : "They go back into the stream as they were. Those that fail again come back here."}</p>
      <p class="buttons">
        <button type="button" onClick={() => { asking.value = null; }}>Cancel</button>
        <button type="button" class={what === "purge" ? "danger" : "primary"} onClick={go}>{what === "purge" ? "Purge" : "Replay"}</button>
      </p>
    </dialog>
  );
}

function pretty(data: unknown): string {
  let text = typeof data === "string" ? data : JSON.stringify(data, null, 2);
  if (typeof data === "string") {
    try {
      text = JSON.stringify(JSON.parse(data), null, 2);
    } catch {
      // Raw frames are base64: shown as they are.
    }
  }
  return text.length > EXCERPT ? `${text.slice(0, EXCERPT)}\n… and ${full(text.length - EXCERPT)} more characters` : text;
}
