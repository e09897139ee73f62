/** The pipe, stage by stage, and the figures that matter most. */

import type { ComponentChildren } from "preact";
import { NONE, count, duration, host, moment, percent, rate, several } from "../format";
import { Count, Glyph } from "../parts";
import { type Stage as State, stages } from "../stages";
import { dim, ingest, known, lettersKnown, metrics, rateNow } from "../store";
import { ERROR_WARN, type Tone, behind, behindInFull, isFilling } from "../verdict";

interface StageProps {
  name: string;
  state: State;
  figure: ComponentChildren;
  unit: string;
  note: ComponentChildren;
}

function Stage({ name, state, figure, unit, note }: StageProps) {
  return (
    <li class={`stage ${state.pipe}`}>
      <h3>{name}</h3>
      <p class={`state ${state.tone}`}><Glyph tone={state.tone} />{state.word}</p>
      <p class="figure"><span class="value">{figure}</span> <span class="unit">{unit}</span></p>
      <p class="note">{note}</p>
    </li>
  );
}

export function Pipeline() {
  const seen = metrics.value;
  const relay = seen?.firehoseStatus;
  const flow = seen?.flow;
  const said = ingest.value.value;
  const states = stages(known.value);
  const lag = seen ? behind(seen) : null;
  const troubles = said ? said.gaps + said.resets + said.dataLoss : 0;
  const full = flow?.streamFullSeconds ?? null;
  const drains = flow?.drainSeconds ?? 0;
  return (
    <section class={`pipeline${dim.value ? " old" : ""}`} aria-labelledby="h-pipeline">
      <h2 id="h-pipeline" class="unseen">Pipeline</h2>
      <ol>
        <Stage
          name="Relay"
          state={states.relay}
          figure={flow?.incomingPerSecond == null ? NONE : rate(flow.incomingPerSecond)}
          unit="events/s in"
          note={<span class="mono" title={relay?.url}>{relay?.url ? host(relay.url) : NONE}</span>}
        />
        <Stage
          name="Ingest"
          state={states.ingest}
          figure={<span class="cursor" title={relay?.currentCursor ?? ""}>{relay?.currentCursor ?? NONE}</span>}
          unit="cursor"
          note={
            <span class={troubles ? "warn" : ""} title={said?.eventTime ? `Newest event: ${moment(Date.parse(said.eventTime))}` : ""}>
              {said ? `${several(said.gaps, "gap")}, ${several(said.resets, "reset")}, ${several(said.dataLoss, "loss", "losses")}` : NONE}
            </span>
          }
        />
        <Stage
          name="Stream"
          state={states.stream}
          figure={<>{flow?.waiting && !flow.waitingExact ? "≥ " : ""}<Count value={flow?.waiting} /></>}
          unit="waiting"
          note={full !== null && seen && isFilling(seen) ? <span class="warn">full in {duration(full)}</span> : drains > 0 ? `caught up in ${duration(drains)}` : <><Count value={relay?.streamLength} /> of <Count value={flow?.streamCap} /></>}
        />
        <Stage
          name="Workers"
          state={states.workers}
          figure={<Count value={flow?.workersAlive} />}
          unit="alive"
          note={flow?.writtenPerSecond == null ? NONE : `${rate(flow.writtenPerSecond)} events/s out`}
        />
        <Stage
          name="PostgreSQL"
          state={states.postgres}
          figure={lag === null ? NONE : <span title={seen ? behindInFull(seen) : ""}>{duration(lag)}</span>}
          unit="behind"
          note={<><Count value={seen?.dbRecords} /> rows in six tables</>}
        />
      </ol>
    </section>
  );
}

function Readout({ name, tone, note, children }: { name: string; tone?: Tone; note: ComponentChildren; children: ComponentChildren }) {
  return (
    <div class={tone ?? ""}>
      <dt>{name}</dt>
      <dd><span class="value">{children}</span><span class="note">{tone && <Glyph tone={tone} />}{note}</span></dd>
    </div>
  );
}

export function Readouts() {
  const seen = metrics.value;
  const speed = rateNow.value;
  const errors = seen?.errorRate ?? null;
  const dead = lettersKnown.value;
  const counts = seen?.eventCounts;
  return (
    <section class={`readouts${dim.value ? " old" : ""}`} aria-labelledby="h-readouts">
      <h2 id="h-readouts" class="unseen">Metrics</h2>
      <dl>
        <Readout name="Events Processed" note={counts ? `${count(counts["#commit"], 1e8)} commits` : NONE}>
          <Count value={seen?.eventsProcessed} most={1e8} />
        </Readout>
        <Readout name="Events per second" note="written, over 7 s">{speed === null ? NONE : rate(speed)}</Readout>
        <Readout name="Error rate" {...(errors !== null && errors >= ERROR_WARN ? { tone: "warn" as const } : {})} note="of all entries">
          {errors === null ? NONE : <span title={`${errors}%`}>{percent(errors)}</span>}
        </Readout>
        <Readout name="Dead letters" {...(dead ? { tone: "warn" as const } : {})} note={dead === null ? "unknown" : dead === 0 ? "nothing failed" : dead === 1 ? "needs attention" : "need attention"}>
          <Count value={dead} />
        </Readout>
      </dl>
    </section>
  );
}
