/** Text that can be taken along. */

import { useSignal } from "@preact/signals";
import { full } from "./format";

/** How much of a text is shown, in characters. */
const EXCERPT = 20_000;

/** A button that puts a text into the clipboard. */
export function Copy({ text, what, label = "Copy" }: { text: string; what: string; label?: string }) {
  const done = useSignal("");
  const copy = async () => {
    done.value = (await written(text)) ? "Copied" : "Not allowed";
    setTimeout(() => { done.value = ""; }, 2_000);
  };
  return <button type="button" class="copy" aria-label={done.value || label === "Copy" ? `${done.value || label} ${done.value ? "" : `the ${what}`}`.trim() : label} onClick={() => void copy()}>{done.value || label}</button>;
}

/** A page over plain HTTP has no clipboard: then it goes by a selection. */
async function written(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    // In a dialog nothing outside of it can be selected.
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** JSON in lines, bounded. */
export function pretty(data: unknown): string {
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
