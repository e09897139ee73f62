/** Signing in: the token goes to the server once and is kept in a cookie that no script can read. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { asked, said, session, signIn } from "../store";

const wrong = signal("");

/** Takes a token; then goes on with what it was asked for. */
function TokenForm({ cancel, done }: { cancel?: () => void; done: () => void }) {
  const submit = async (form: HTMLFormElement) => {
    const field = form.elements.namedItem("token") as HTMLInputElement;
    const token = field.value;
    field.value = "";
    wrong.value = await signIn(token);
    if (!wrong.value) done();
  };
  return (
    <form onSubmit={(event) => { event.preventDefault(); void submit(event.currentTarget); }}>
      <label>Token<input name="token" type="password" autocomplete="off" required /></label>
      <p class="note">It is sent to this dashboard once; the browser then keeps a cookie that scripts cannot read.</p>
      <p class="wrong" role="alert">{wrong.value}</p>
      <p class="buttons">
        {cancel && <button type="button" onClick={cancel}>Cancel</button>}
        <button type="submit" class="primary">Sign in</button>
      </p>
    </form>
  );
}

/** All there is of a page whose reader must sign in first. */
export function Gate() {
  const gate = useRef<HTMLElement>(null);
  useEffect(() => { gate.current?.querySelector("input")?.focus(); }, []);
  return (
    <main class="gate" ref={gate}>
      <section aria-labelledby="h-gate">
        <h2 id="h-gate">Sign in</h2>
        <p class="note">This dashboard shows its pipeline to those who have its read token or admin token (<span class="mono">dashboard.readToken</span>, <span class="mono">dashboard.adminToken</span>).</p>
        <TokenForm done={() => {}} />
      </section>
    </main>
  );
}

export function SignIn() {
  const dialog = useRef<HTMLDialogElement>(null);
  const why = asked.value;
  useEffect(() => {
    if (why) dialog.current?.showModal();
    else dialog.current?.close();
    wrong.value = "";
  }, [why]);
  const close = () => { asked.value = null; };
  const done = () => {
    const again = why?.again;
    close();
    if (again) again();
    else said.value = "Signed in.";
  };
  return (
    <dialog ref={dialog} aria-labelledby="h-session" onClose={close}>
      <h2 id="h-session">{why?.detail ? "Not allowed" : "Sign in"}</h2>
      {why?.detail && <p class="detail">{why.detail}</p>}
      {session.value.value?.tokens === false
        ? <p class="buttons"><button type="button" onClick={close}>Close</button></p>
        : <TokenForm cancel={close} done={done} />}
    </dialog>
  );
}
