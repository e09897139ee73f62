/** The live events, with filter and pause. */

import { computed } from "@preact/signals";
import { ACTIONS, ALL, isOpen, newest } from "../filter";
import { age, count, full } from "../format";
import { Panel } from "../parts";
import { events, eventsMissed, eventsSeen, filter, held, lastEvent, now, pause, paused } from "../store";

/** How many rows there are; the rest is a matter for the filter. */
const ROWS = 60;

const SHOWN = computed(() => newest(events.value, filter.value, ROWS));
const COLLECTIONS = computed(() => [...new Set(events.value.map((event) => event.lexicon))].sort());
const KINDS = [["#commit", "Commits"], ["#identity", "Identities"], ["#account", "Accounts"]] as const;

function Controls() {
  const now = filter.value;
  const set = (part: Partial<typeof now>) => { filter.value = { ...now, ...part }; };
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
      <button type="button" disabled={isOpen(now)} onClick={() => { filter.value = ALL; }}>Clear</button>
    </form>
  );
}

export function Events() {
  const shown = SHOWN.value;
  const open = isOpen(filter.value);
  const missed = eventsMissed.value;
  const silent = lastEvent.value ? (now.value - lastEvent.value) / 1000 : 0;
  const note = paused.value
    ? `Paused, ${count(held.value)} since`
    : eventsSeen.value === 0 ? "none yet" : `${count(eventsSeen.value)} seen${silent >= 10 ? `, none for ${age(silent)}` : ""}${missed ? `, ${full(missed)} missed` : ""}`;
  const empty = events.value.length === 0
    ? "No events yet. They show here as they come."
    : shown.length === 0 ? `None of the last ${full(events.value.length)} events match.` : "";
  return (
    <Panel
      id="events"
      title="Live events"
      note={open ? note : `${shown.length === ROWS ? `${ROWS} newest that match` : `${shown.length} match`} of ${full(events.value.length)} · ${note}`}
      actions={<button type="button" class="pause" aria-pressed={paused.value} onClick={() => pause(!paused.value)}>{paused.value ? "Go on" : "Pause"}</button>}
    >
      <Controls />
      <div class="scroll" tabIndex={0} role="region" aria-label="Live events, newest first">
        <table>
          <thead><tr><th scope="col" class="time">Time, UTC</th><th scope="col" class="kind">Kind</th><th scope="col" class="collection">Collection</th><th scope="col" class="action">Action</th><th scope="col" class="did">DID</th></tr></thead>
          {/* Rows stay where they are and change their text: nothing moves under the eye or the pointer. */}
          <tbody>
            {shown.map((event, index) => (
              <tr key={index} class={event.action === "delete" || event.action === "inactive" ? "gone" : ""}>
                <td class="time">{event.timestamp}</td>
                <td class="kind">{event.type?.slice(1)}</td>
                <td class="collection" title={event.lexicon}>{event.lexicon}</td>
                <td class="action" title={event.action}>{event.action}</td>
                <td class="did mono" title={event.did}>{event.did}</td>
              </tr>
            ))}
          </tbody>
        </table>
        {empty && <p class="empty">{empty}</p>}
      </div>
    </Panel>
  );
}
