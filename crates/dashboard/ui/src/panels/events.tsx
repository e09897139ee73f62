/** The live events, with filter and pause. */

import { computed } from "@preact/signals";
import { useRef } from "preact/hooks";
import { Foreign } from "../bidi";
import { ACTIONS, ALL, type LiveEvent, isOpen, newest } from "../filter";
import { age, clock, count, full, nearest, zoneName } from "../format";
import { Panel } from "../parts";
import { events, eventsMissed, eventsSeen, filter, held, lastEvent, now, pause, paused, setFilter } from "../store";
import { EventDetail, openEvent } from "./event";
import "./events.css";

/** How many rows there are: of everything, and of what was asked for. */
const ROWS = [60, 200] as const;

const SHOWN = computed(() => newest(events.value, filter.value, isOpen(filter.value) ? ROWS[0] : ROWS[1]));
const COLLECTIONS = computed(() => [...new Set(events.value.map((event) => event.lexicon))].sort());
const KINDS = [["#commit", "Commits"], ["#identity", "Identities"], ["#account", "Accounts"]] as const;

function Controls() {
  const now = filter.value;
  const set = (part: Partial<typeof now>) => { setFilter({ ...now, ...part }); };
  return (
    <form class="controls" role="search" aria-label="Filter the live events" onSubmit={(event) => event.preventDefault()}>
      <fieldset>
        <legend class="unseen">Kinds</legend>
        {KINDS.map(([kind, name]) => (
          <label key={kind} class="check">
            <input
              type="checkbox"
              checked={!now.without.has(kind)}
              onChange={({ currentTarget }) => {
                const without = new Set(now.without);
                if (currentTarget.checked) without.delete(kind);
                else without.add(kind);
                set({ without });
              }}
            />
            {name}
          </label>
        ))}
      </fieldset>
      <label>
        <span class="unseen">Collection contains</span>
        <input type="text" placeholder="Collection" list="collections" spellcheck={false} autocomplete="off" value={now.collection} onInput={({ currentTarget }) => set({ collection: currentTarget.value })} />
      </label>
      <datalist id="collections">{COLLECTIONS.value.map((name) => <option key={name} value={name} />)}</datalist>
      <label>
        <span class="unseen">DID contains</span>
        <input type="text" placeholder="DID" spellcheck={false} autocomplete="off" value={now.did} onInput={({ currentTarget }) => set({ did: currentTarget.value })} />
      </label>
      <label>
        <span class="unseen">Action</span>
        <select value={now.action} onChange={({ currentTarget }) => set({ action: currentTarget.value })}>
          <option value="">Any action</option>
          {ACTIONS.map((action) => <option key={action} value={action}>{action}</option>)}
        </select>
      </label>
      <button type="button" disabled={isOpen(now)} onClick={() => setFilter(ALL)}>Clear</button>
    </form>
  );
}

/** A new handle stands behind an arrow of ours. */
function Action({ text }: { text: string }) {
  const handle = /^→ (.*)$/s.exec(text ?? "")?.[1];
  return handle === undefined ? <Foreign text={text} /> : <>→ <Foreign text={handle} /></>;
}
/** What the pointer went down on: rows change their text, and a click means what was seen. */
let pointedAt: LiveEvent | null = null;

export function Events() {
  const shown = SHOWN.value;
  const open = isOpen(filter.value);
  const missed = eventsMissed.value;
  const silent = lastEvent.value ? (now.value - lastEvent.value) / 1000 : 0;
  const note = paused.value
    ? `Paused, ${count(held.value)} since`
    : eventsSeen.value === 0 ? "none yet" : `${count(Math.max(eventsSeen.value, shown.length))} ${open ? "seen" : "match"}${silent >= 10 ? `, none for ${age(silent)}` : ""}${missed ? `, ${full(missed)} missed` : ""}`;
  const empty = shown.length > 0 ? "" : open ? "No events yet. They appear here as they arrive." : "No event matches yet. Those that do appear here as they arrive, and stay.";
  const body = useRef<HTMLTableSectionElement>(null);
  // One stop for the tab key: the arrows go from row to row, and Enter opens.
  const go = (event: KeyboardEvent) => {
    const buttons = [...(body.current?.querySelectorAll("button") ?? [])];
    const at = buttons.findIndex((button) => button === document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    buttons[Math.max(0, Math.min(to, buttons.length - 1))]?.focus();
  };
  return (
    <Panel
      id="events"
      title="Live events"
      note={!open && shown.length === ROWS[1] ? `${note} · the newest ${ROWS[1]} shown` : note}
      actions={<button type="button" class="pause" aria-pressed={paused.value} onClick={() => pause(!paused.value)}>{paused.value ? "Resume" : "Pause"}</button>}
    >
      <Controls />
      <div class="scroll" tabIndex={0} role="region" aria-label="Live events, newest first" onKeyDown={go}>
        <table>
          <thead><tr><th scope="col" class="time">Time, {zoneName(now.value)}</th><th scope="col" class="kind">Kind</th><th scope="col" class="collection">Collection</th><th scope="col" class="action">Action</th><th scope="col" class="did">DID</th></tr></thead>
          {/* Rows stay where they are and change their text: nothing moves under the eye or the pointer. */}
          <tbody ref={body}>
            {shown.map((event, index) => (
              <tr key={index} class={event.action === "delete" || event.action === "inactive" ? "gone" : ""} onPointerDown={() => { pointedAt = event; }} onClick={(click) => { if (!(click.target instanceof HTMLButtonElement)) openEvent(pointedAt ?? event); }}>
                <td class="time"><button type="button" class="plain" tabIndex={-1} aria-label={`Open the event of ${clock(nearest(event.timestamp, now.value))}, ${event.lexicon}, ${event.did}`} onClick={(click) => { openEvent(click.detail > 0 ? pointedAt ?? event : event); }}>{clock(nearest(event.timestamp, now.value))}</button></td>
                <td class="kind">{event.type?.slice(1)}</td>
                <td class="collection" title={event.lexicon}><Foreign text={event.lexicon} /></td>
                <td class="action" title={event.action}><Action text={event.action} /></td>
                <td class="did mono" title={event.did}><Foreign text={event.did} /></td>
              </tr>
            ))}
          </tbody>
        </table>
        {empty && <p class="empty">{empty}</p>}
      </div>
      <EventDetail />
    </Panel>
  );
}
