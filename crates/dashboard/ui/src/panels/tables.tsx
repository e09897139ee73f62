/** What stands in PostgreSQL: rows, bytes, growth. Where the dashboard cannot ask it, the counts that the workers keep. */

import { effect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Polled } from "../api";
import { bytes, change } from "../bytes";
import { NONE, count, duration, full, moment } from "../format";
import { Count, Panel, ageOf } from "../parts";
import { dim, link, metrics } from "../store";
import "./tables.css";

interface Table {
  name: string;
  rowsEstimate: number | null;
  bytes: number;
  bytesPerDay: number | null;
}

interface Answer {
  timestamp: number | null;
  growthSeconds: number | null;
  tables: Table[];
}

const COUNTED = [
  ["Users", "totalUsers"], ["Posts", "totalPosts"], ["Likes", "totalLikes"],
  ["Reposts", "totalReposts"], ["Follows", "totalFollows"], ["Blocks", "totalBlocks"],
] as const;

const tables = new Polled<Answer>("api/tables");

function watch(): () => void {
  const stop = effect(() => {
    if (link.value === "open") void tables.ask();
  });
  const timer = setInterval(() => {
    if (!document.hidden && !tables.missing.peek()) void tables.ask();
  }, 30_000);
  return () => {
    stop();
    clearInterval(timer);
  };
}

function Counted() {
  const stats = metrics.value?.stats;
  return (
    <dl class="rows">
      {COUNTED.map(([name, key]) => <div key={key}><dt>{name}</dt><dd><Count value={stats?.[key]} most={1e6} /></dd></div>)}
    </dl>
  );
}

/** How many rows a table has: as the workers count them, where they do, else as PostgreSQL estimates them. */
function Rows({ table }: { table: Table }) {
  const counted = COUNTED.find(([name]) => name.toLowerCase() === table.name);
  const rows = counted && metrics.value?.stats[counted[1]];
  if (rows !== undefined) return <td class="number" title={`${full(rows)}, counted by workers`}>{count(rows, 1e6)}</td>;
  if (table.rowsEstimate === null) return <td class="number" title="not known yet: never analysed">{NONE}</td>;
  return <td class="number" title={`about ${full(table.rowsEstimate)}: PostgreSQL's estimate, from its last ANALYZE or VACUUM`}>{`≈ ${count(table.rowsEstimate, 1e6)}`}</td>;
}

export function Tables() {
  useEffect(watch, []);
  const answer = tables.value.value;
  if (tables.missing.value || !answer || answer.timestamp === null) {
    return <Panel id="tables" title="PostgreSQL" note="rows" old={dim.value}><Counted /></Panel>;
  }
  const { old, note } = ageOf(tables, 30);
  // What was told long ago is told so, also by a dashboard that still answers.
  const late = Date.now() - answer.timestamp > 300_000;
  const sum = answer.tables.reduce((sum, table) => sum + table.bytes, 0);
  const growth = answer.growthSeconds === null ? "growth not known yet" : `growth over ${Math.abs(answer.growthSeconds - 86_400) < 5_400 ? "a day" : duration(answer.growthSeconds)}`;
  return (
    <Panel id="tables" title="PostgreSQL" note={note || (late ? `as of ${moment(answer.timestamp)}` : `${bytes(sum)}, ${growth}`)} old={old || late}>
      <div class="scroll" tabIndex={0} role="region" aria-label="Tables, the largest first">
        <table>
          <thead><tr><th scope="col">Table</th><th scope="col" class="number" title="Counted by workers; with ≈, an estimate of PostgreSQL">Rows</th><th scope="col" class="number" title="With indexes">Size</th><th scope="col" class="number" title="Growth per day">Per day</th></tr></thead>
          <tbody>
            {answer.tables.map((table) => (
              <tr key={table.name}>
                <th scope="row" title={table.name}>{table.name}</th>
                <Rows table={table} />
                <td class="number" title={`${full(table.bytes)} bytes`}>{bytes(table.bytes)}</td>
                <td class="number" title={table.bytesPerDay === null ? "not known yet" : `${full(table.bytesPerDay)} bytes a day`}>{table.bytesPerDay === null ? NONE : change(table.bytesPerDay)}</td>
              </tr>
            ))}
          </tbody>
        </table>
        {answer.tables.length === 0 && <p class="empty">No tables yet: run penstock migrate.</p>}
      </div>
    </Panel>
  );
}
