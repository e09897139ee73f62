/** The pipe, stage by stage, and the figures that matter most. */

import type { ComponentChildren } from "preact";
import { NONE, count, duration, full, host, moment, percent, rate, several } from "../format";
import { Count, Glyph } from "../parts";
import { dim, ingest, lengths, metrics, rateNow, ready, stalledSeconds, workerList } from "../store";
import { ERROR_WARN, LAG_WARN, STALLED, type Tone, trend } from "../verdict";

interface StageProps {
  name: string;
  tone: Tone;
  word: string;
  figure: ComponentChildren;
  unit: string;
  note: ComponentChildren;
  /** What flows on to the next stage. */
  pipe: "flows" | "still" | "cut" | "end";
}

function Stage({ name, tone, word, figure, unit, note, pipe }: StageProps) {
  return (
    <li class={`stage ${pipe}`}>
      <h3>{name}</h3>
      <p class={`state ${tone}`}><Glyph tone={tone} />{word}</p>
      <p class="figure"><span class="value">{figure}</span> <span class="unit">{unit}</span></p>
      <p class="note">{note}</p>
    </li>
  );
}

export function Pipeline() {
  const known = metrics.value;
  const relay = known?.firehoseStatus;
  const said = ingest.value.value;
  const fit = ready.value.value;
  const speed = rateNow.value;
  const old = dim.value;
  const away = relay !== undefined && !relay.connected && !relay.url;
  const connected = relay?.connected ?? false;
  const stalled = stalledSeconds.value >= STALLED;
  const flows = (speed ?? 0) > 0;
  const lag = said?.lagSeconds ?? null;
  const level = trend(lengths.value);
  const workers = workerList.value;
  const alive = workers?.filter((worker) => worker.alive).length ?? 0;
  const unknown: Tone | null = old ? "unknown" : null;
  const troubles = said ? said.gaps + said.resets + said.dataLoss : 0;
  return (
    <section class={`pipeline${old ? " old" : ""}`} aria-labelledby="h-pipeline">
      <h2 id="h-pipeline" class="unseen">Pipeline</h2>
      <ol>
        <Stage
          name="Relay"
          tone={unknown ?? (connected ? (lag !== null && lag > LAG_WARN ? "warn" : "good") : away ? "unknown" : "bad")}
          word={old ? "Not known" : connected ? "Connected" : away ? "Not known" : "Not connected"}
          figure={lag === null || away ? NONE : <span title={`${full(lag)} s`}>{duration(lag)}</span>}
          unit="behind"
          note={<span class="mono" title={relay?.url}>{relay?.url ? host(relay.url) : NONE}</span>}
          pipe={connected ? (flows ? "flows" : "still") : "cut"}
        />
        <Stage
          name="Ingest"
          tone={unknown ?? (away ? "bad" : said?.paused || said?.dataLoss || !connected ? "warn" : "good")}
          word={old ? "Not known" : away ? "Away" : said?.paused ? "Paused: stream full" : connected ? "Reads" : "Tries again"}
          figure={<span class="cursor" title={relay?.currentCursor ?? ""}>{relay?.currentCursor ?? NONE}</span>}
          unit="cursor"
          note={
            <span class={troubles ? "warn" : ""} title={said?.eventTime ? `Newest event: ${moment(Date.parse(said.eventTime))}` : ""}>
              {said ? `${several(said.gaps, "gap")}, ${several(said.resets, "reset")}, ${several(said.dataLoss, "loss", "losses")}` : NONE}
            </span>
          }
          pipe={away ? "cut" : flows ? "flows" : "still"}
        />
        <Stage
          name="Stream"
          tone={unknown ?? (said?.paused ? "warn" : level === "filling" ? "warn" : level === "empty" ? "idle" : "good")}
          word={old ? "Not known" : said?.paused ? "Full" : { empty: "Empty", level: "Level", filling: "Fills up", draining: "Drains" }[level]}
          figure={<Count value={relay?.streamLength} />}
          unit="entries"
          note={<><Count value={relay?.queueDepth} /> pending</>}
          pipe={stalled ? "cut" : flows ? "flows" : "still"}
        />
        <Stage
          name="Workers"
          tone={unknown ?? (stalled || (workers?.length && alive === 0) ? "bad" : workers && alive < workers.length ? "warn" : flows ? "good" : "idle")}
          word={old ? "Not known" : stalled ? "Apply nothing" : flows ? "Apply" : "Wait"}
          figure={workers ? <Count value={alive} /> : speed === null ? NONE : rate(speed)}
          unit={workers ? "alive" : "events/s"}
          note={workers ? `of ${several(workers.length, "worker")}` : "in all"}
          pipe={fit?.checks.database === "unhealthy" ? "cut" : flows ? "flows" : "still"}
        />
        <Stage
          name="PostgreSQL"
          tone={unknown ?? (fit === null ? "unknown" : fit.checks.database === "healthy" ? "good" : "bad")}
          word={old || fit === null ? "Not known" : fit.checks.database === "healthy" ? "In order" : "Does not answer"}
          figure={<Count value={known?.dbRecords} />}
          unit="rows"
          note="in six tables"
          pipe="end"
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
  const known = metrics.value;
  const speed = rateNow.value;
  const errors = known?.errorRate ?? null;
  const dead = known?.firehoseStatus.deadLetterLength ?? null;
  const counts = known?.eventCounts;
  return (
    <section class={`readouts${dim.value ? " old" : ""}`} aria-labelledby="h-readouts">
      <h2 id="h-readouts" class="unseen">Figures</h2>
      <dl>
        <Readout name="Events Processed" note={counts ? `${count(counts["#commit"], 1e8)} commits` : NONE}>
          <Count value={known?.eventsProcessed} most={1e8} />
        </Readout>
        <Readout name="Events a second" note="applied, over 7 s">{speed === null ? NONE : rate(speed)}</Readout>
        <Readout name="Error rate" {...(errors !== null && errors >= ERROR_WARN ? { tone: "warn" as const } : {})} note="of all entries">
          {errors === null ? NONE : <span title={`${errors}%`}>{percent(errors)}</span>}
        </Readout>
        <Readout name="Dead letters" {...(dead ? { tone: "warn" as const } : {})} note={dead ? "wait for a decision" : "nothing failed"}>
          <Count value={dead} />
        </Readout>
      </dl>
    </section>
  );
}
