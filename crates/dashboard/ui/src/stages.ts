/** How each stage of the pipe stands, in a word. Pure: everything it knows is handed in. */

import { CURRENT, type Known, STALLED, type Tone, behind, isFilling } from "./verdict";

export const STAGES = ["relay", "ingest", "stream", "workers", "postgres"] as const;
export type StageName = (typeof STAGES)[number];

/** What flows on to the next stage. */
export type Pipe = "flows" | "still" | "cut" | "end";

export interface Stage {
  tone: Tone;
  word: string;
  pipe: Pipe;
}

/** What waits for no longer than this is on its way, in seconds. */
const ON_ITS_WAY = 2;

export function stages(known: Known): Record<StageName, Stage> {
  const { metrics, ingest, ready } = known;
  if (!metrics || known.stale || known.link === "refused") {
    const unknown = (pipe: Pipe): Stage => ({ tone: "unknown", word: "Unknown", pipe });
    return { relay: unknown("still"), ingest: unknown("still"), stream: unknown("still"), workers: unknown("still"), postgres: unknown("end") };
  }
  const { firehoseStatus: relay, flow } = metrics;
  const connected = relay.connected;
  const gone = !connected && !relay.url;
  const paused = ingest?.paused ?? false;
  const comes = (flow.incomingPerSecond ?? 0) > 0;
  const writes = (flow.writtenPerSecond ?? 0) > 0;
  const stalled = flow.stalledSeconds >= STALLED;
  const lag = behind(metrics);
  const late = lag !== null && lag > CURRENT;
  const away = flow.database === "unreachable" || (flow.database !== "writing" && ready?.checks.database === "unhealthy");
  const nobody = flow.workersAlive === 0;

  const stream = ((): [Tone, string] => {
    if (paused) return ["warn", "Full"];
    if (flow.waiting === null) return ["unknown", "Unknown"];
    if ((flow.drainSeconds ?? 0) > 0 && !nobody && !stalled && !away) return ["warn", "Draining"];
    if (isFilling(metrics)) return ["warn", "Filling"];
    if (flow.waiting === 0) return relay.streamLength === 0 ? ["idle", "Empty"] : ["good", "All written"];
    const isOnItsWay = flow.drainSeconds === 0 || flow.waiting <= ON_ITS_WAY * (flow.writtenPerSecond ?? 0);
    return isOnItsWay && !late && !nobody && !away ? ["good", "Steady"] : ["warn", "Waiting"];
  })();
  const workers = ((): [Tone, string] => {
    if (nobody) return ["bad", "None running"];
    if (flow.workersAlive === null) return ["unknown", "Unknown"];
    if (stalled) return ["bad", "Stalled"];
    if (away) return ["warn", "Retrying"];
    if (writes) return [late ? "warn" : "good", "Writing"];
    return flow.waiting ? ["warn", "Not writing"] : ["idle", "Idle"];
  })();
  const postgres = ((): [Tone, string] => {
    if (away) return ["bad", "No answer"];
    if (nobody && flow.waiting) return ["warn", "Not written"];
    if (flow.database === "writing") return lag === null ? ["unknown", "Age unknown"] : late ? ["warn", "Behind"] : ["good", "Current"];
    if (flow.waiting) return ["warn", "Not written"];
    return flow.database === "reachable" ? ["idle", "Reachable"] : ["unknown", "Unknown"];
  })();

  const stage = ([tone, word]: [Tone, string], pipe: Pipe): Stage => ({ tone, word, pipe });
  return {
    relay: stage(connected ? ["good", "Connected"] : gone ? ["unknown", "Unknown"] : ["bad", "Not connected"], connected ? (comes ? "flows" : "still") : "cut"),
    ingest: stage(gone ? ["bad", "Not running"] : paused ? ["warn", "Paused"] : connected ? [ingest?.dataLoss ? "warn" : "good", "Reading"] : ["warn", "Retrying"], gone ? "cut" : comes ? "flows" : "still"),
    stream: stage(stream, nobody || stalled ? "cut" : writes ? "flows" : "still"),
    workers: stage(workers, away ? "cut" : writes && !nobody ? "flows" : "still"),
    postgres: stage(postgres, "end"),
  };
}
