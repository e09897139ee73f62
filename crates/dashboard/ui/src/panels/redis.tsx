/** How full Redis is: the streams against the cap, the memory against its maximum. */

import { bytes } from "../bytes";
import { NONE, count, full, percent } from "../format";
import { Panel } from "../parts";
import { dim, ingest, metrics } from "../store";
import "./redis.css";

/** From here on it is worth a look, in percent. */
const HIGH = 80;

function Gauge({ name, value, most, text, title }: { name: string; value: number | null; most: number | null; text: string; title: string }) {
  const share = value === null || !most ? null : (100 * value) / most;
  return (
    <div>
      <dt>{name}</dt>
      <dd class={share !== null && share >= HIGH ? "warn" : ""} title={title}>
        {share !== null && <meter min={0} max={100} value={Math.min(share, 100)} aria-label={`${name}: ${percent(share)}`} />}
        <span>{text}</span>
      </dd>
    </div>
  );
}

export function Redis() {
  const known = metrics.value;
  const aside = ingest.value.value?.bulkLength ?? 0;
  const length = known ? known.firehoseStatus.streamLength + aside : null;
  const cap = known?.flow.streamCap ?? null;
  const memory = known?.redis;
  return (
    <Panel id="redis" title="Redis" old={dim.value}>
      <dl class="rows">
        <Gauge
          name="Stream"
          value={length}
          most={cap}
          text={length === null || cap === null ? NONE : `${count(length, 1e6)} of ${count(cap, 1e6)}`}
          title={length === null || cap === null ? "" : `${full(length)} entries; ingest pauses at ${full(cap)}`}
        />
        <div><dt>Second stream</dt><dd title="Entries of repos that send more than their rate">{known ? full(aside) : NONE}</dd></div>
        <Gauge
          name="Memory"
          value={memory?.usedBytes ?? null}
          most={memory?.maxBytes ?? null}
          text={!known ? NONE : !memory ? "not known" : memory.maxBytes === null ? `${bytes(memory.usedBytes)}, no limit` : `${bytes(memory.usedBytes)} of ${bytes(memory.maxBytes)}`}
          title={!memory ? "Redis does not tell: INFO may be refused to this user" : memory.maxBytes === null ? "maxmemory is 0" : `maxmemory is ${full(memory.maxBytes)} bytes`}
        />
      </dl>
    </Panel>
  );
}
