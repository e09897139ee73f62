/** One event, whole: where its record is, which revision it was, and what stands in PostgreSQL of it. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Refusal, ask } from "../api";
import { Foreign, Json } from "../bidi";
import { Copy, pretty } from "../copy";
import { type LiveEvent, uriOf } from "../filter";
import { clock, nearest, zoneName } from "../format";
import { now } from "../store";

interface Stored {
  uri: string;
  /** The table that holds it. */
  table: string | null;
  record: unknown;
  links: { name: string; href: string }[];
}

const shown = signal<LiveEvent | null>(null);
const stored = signal<Stored | null>(null);
const problem = signal("");

/** Shows an event, and asks for its record. */
export function openEvent(event: LiveEvent): void {
  shown.value = event;
  stored.value = null;
  problem.value = "";
  const uri = uriOf(event);
  if (!uri) return;
  ask<Stored>(`api/events/record?uri=${encodeURIComponent(uri)}`).then(
    (answer) => { if (shown.value === event) stored.value = answer; },
    (error: unknown) => { if (shown.value === event) problem.value = error instanceof Refusal ? error.detail : String(error); },
  );
}

function Row({ name, value, copy }: { name: string; value: string | number | undefined; copy?: boolean }) {
  if (value === undefined || value === "") return null;
  return <div><dt>{name}</dt><dd class="mono"><bdi>{value}</bdi>{copy && <> <Copy text={String(value)} what={name} /></>}</dd></div>;
}

/** What is known of the record, in a sentence. */
function said(event: LiveEvent): string {
  if (!uriOf(event)) return event.type === "#commit" ? "Ingest did not tell the record's key: another program's, or an older version." : "";
  if (problem.value) return `No record: ${problem.value}.`;
  if (!stored.value) return "Reading the record …";
  if (stored.value.record === null) return event.action === "delete" ? "No row in PostgreSQL: it was deleted." : "No row in PostgreSQL: not written yet, deleted since, or of a kind that is not stored.";
  return `As stored in PostgreSQL, ${stored.value.table}:`;
}

export function EventDetail() {
  const dialog = useRef<HTMLDialogElement>(null);
  const event = shown.value;
  useEffect(() => {
    if (event) dialog.current?.showModal();
    else dialog.current?.close();
  }, [event]);
  const record = stored.value?.record ?? null;
  return (
    <dialog ref={dialog} class="detail-of" aria-labelledby="h-event" onClose={() => { shown.value = null; }}>
      <h2 id="h-event">{event ? <>{event.type?.slice(1)}: <Foreign text={event.action} /></> : "Event"}</h2>
      {event && (
        <>
          <dl class="rows">
            <Row name="URI" value={uriOf(event)} copy />
            <Row name="DID" value={event.did} copy />
            <Row name="Collection" value={event.lexicon} />
            <Row name="Revision" value={event.rev} />
            <Row name="Sequence" value={event.seq} />
            <Row name={`Time, ${zoneName(now.value)}`} value={clock(nearest(event.timestamp, now.peek()))} />
          </dl>
          <p class="note" role="status">{said(event)}</p>
          {record !== null && <pre tabIndex={0} aria-label="The record"><Json text={pretty(record)} /></pre>}
          <p class="buttons">
            {stored.value?.links.map(({ name, href }) => <a key={href} href={href} target="_blank" rel="noopener noreferrer">{name}</a>)}
            <Copy text={JSON.stringify({ ...event, uri: uriOf(event) || undefined, record: record ?? undefined }, null, 2)} what="event as JSON" label="Copy as JSON" />
            <button type="button" class="primary" onClick={() => { shown.value = null; }}>Close</button>
          </p>
        </>
      )}
    </dialog>
  );
}
