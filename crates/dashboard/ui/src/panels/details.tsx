/** Who works, what the relay and the machine say. */

import { carried } from "../carried";
import { NONE, distinct, duration, full, moment, rate } from "../format";
import { Count, Glyph, Panel, ageOf } from "../parts";
import { act, dim, ingest, metrics, workerList, workers } from "../store";
import { type Said, desynchronized, verified } from "../verification";

export function Workers() {
  const list = workerList.value;
  if (!list) return null;
  const { old, note } = ageOf(workers, 5);
  const names = distinct(list.map((worker) => worker.name));
  const fastest = Math.max(1, ...list.map((worker) => worker.entriesPerSecond ?? 0));
  return (
    <Panel id="workers" title="Workers" note={note || `${list.filter((worker) => worker.alive).length} of ${list.length} alive`} old={old}>
      <div class="scroll" tabIndex={0} role="region" aria-label="Workers, each with its rate">
        <table>
          <thead><tr><th scope="col">Name</th><th scope="col" class="number">Entries/s</th><th scope="col" class="number">Pending</th><th scope="col" class="number">Idle</th></tr></thead>
          <tbody>
            {list.map((worker, index) => (
              <tr key={worker.name}>
                <th scope="row" title={worker.name}>
                  <span class={`state ${worker.alive ? "good" : "bad"}`}><Glyph tone={worker.alive ? "good" : "bad"} /><span class="unseen">{worker.alive ? "alive" : "gone"}</span></span>
                  <span class="mono">{names[index]}</span>{!worker.alive && " (gone)"}
                </th>
                <td class="number">
                  <meter min={0} max={fastest} value={worker.entriesPerSecond ?? 0} aria-hidden="true" />
                  {worker.entriesPerSecond === null ? NONE : rate(worker.entriesPerSecond)}
                </td>
                <td class="number"><Count value={worker.pending} /></td>
                <td class="number">{duration(worker.idleSeconds)}</td>
              </tr>
            ))}
          </tbody>
        </table>
        {list.length === 0 && <p class="empty">No workers have reported.</p>}
      </div>
    </Panel>
  );
}

function Line({ name, said }: { name: string; said: Said | null }) {
  return <div><dt>{name}</dt><dd class={said?.warn ? "warn" : ""} title={said?.title}>{said?.line ?? NONE}</dd></div>;
}

export function Relay() {
  const relay = metrics.value?.firehoseStatus;
  const said = ingest.value.value;
  const { old, note } = ageOf(ingest, 5);
  return (
    <Panel
      id="relay"
      title="Relay"
      note={note}
      old={old || dim.value}
      actions={<button type="button" onClick={() => void act("Asked ingest to reconnect.", "api/firehose/reconnect", "POST")}>Reconnect</button>}
    >
      <dl class="rows">
        <div><dt>Address</dt><dd class="mono" title={relay?.url}>{relay?.url || NONE}</dd></div>
        <div><dt>Cursor</dt><dd class="mono" title={relay?.currentCursor ?? ""}>{relay?.currentCursor ?? NONE}</dd></div>
        <div><dt>Newest event</dt><dd title={said?.eventTime ?? ""}>{said?.eventTime ? moment(Date.parse(said.eventTime)) : NONE}</dd></div>
        <div><dt>Known losses</dt><dd class={said?.dataLoss ? "warn" : ""}>{said ? full(said.dataLoss) : NONE}</dd></div>
        <Line name="Verification" said={verified(said?.verification)} />
        <Line name="Desynchronized" said={desynchronized(said?.verification)} />
        <Line name="Filter" said={carried(said?.filter)} />
      </dl>
    </Panel>
  );
}

export function Machine() {
  const known = metrics.value;
  const machine = known?.systemHealth;
  const gauges = [["CPU", machine?.cpu], ["Memory", machine?.memory], ["Disk", machine?.disk]] as const;
  return (
    <Panel id="machine" title="Dashboard host" old={dim.value}>
      <dl class="rows">
        {gauges.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd class={name !== "CPU" && (value ?? 0) >= 90 ? "warn" : ""}>
              <meter min={0} max={100} value={value ?? 0} aria-label={name} /><span class="of">{value === undefined ? NONE : `${value}%`}</span>
            </dd>
          </div>
        ))}
        <div><dt>Network</dt><dd>{machine?.network || NONE}</dd></div>
      </dl>
    </Panel>
  );
}
