/** Signing in: the token goes to the server once and is kept in a cookie that no script can read. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { asked, said, signIn } from "../store";

const wrong = signal("");

export function Session() {
  const dialog = useRef<HTMLDialogElement>(null);
  const why = asked.value;
  useEffect(() => {
    if (why) dialog.current?.showModal();
    else dialog.current?.close();
    wrong.value = "";
  }, [why]);
  const submit = async (form: HTMLFormElement) => {
    const field = form.elements.namedItem("token") as HTMLInputElement;
    const token = field.value;
    field.value = "";
    wrong.value = await signIn(token);
    if (wrong.value) return;
    const again = why?.again;
    asked.value = null;
    if (again) again();
    else said.value = "Signed in.";
  };
  return (
    <dialog ref={dialog} aria-labelledby="h-session" onClose={() => { asked.value = null; }}>
      <h2 id="h-session">{why?.detail ? "Not allowed" : "Sign in"}</h2>
      {why?.detail && <p class="detail">{why.detail}</p>}
      <form onSubmit={(event) => { event.preventDefault(); void submit(event.currentTarget); }}>
        <label>Token<input name="token" type="password" autocomplete="off" required /></label>
        <p class="note">It goes to this dashboard once. The browser then holds a cookie that no script can read.</p>
        <p class="wrong" role="alert">{wrong.value}</p>
        <p class="buttons">
          <button type="button" onClick={() => { asked.value = null; }}>Cancel</button>
          <button type="submit" class="primary">Sign in</button>
        </p>
      </form>
    </dialog>
  );
}
