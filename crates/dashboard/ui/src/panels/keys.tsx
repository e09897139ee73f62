/** The list of keys. */

import { useEffect, useRef } from "preact/hooks";
import { KEYS, enable, enabled, listed } from "../keys";

export function Keys() {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = listed.value;
  useEffect(() => {
    // A modal dialog keeps the focus, and gives it back to where it was.
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  const close = () => { listed.value = false; };
  return (
    <dialog ref={dialog} class="keys" aria-labelledby="h-keys" onClose={close}>
      <h2 id="h-keys">Keys</h2>
      <dl class="rows">
        {KEYS.map(({ key, does }) => <div key={key}><dt><kbd>{key}</kbd></dt><dd>{does}</dd></div>)}
        <div><dt><kbd>Esc</kbd></dt><dd>Close what is open</dd></div>
      </dl>
      <p><label class="check"><input type="checkbox" checked={enabled.value} onChange={({ currentTarget }) => enable(currentTarget.checked)} />These keys are on</label></p>
      <p class="buttons"><button type="button" autofocus onClick={close}>Close</button></p>
    </dialog>
  );
}
