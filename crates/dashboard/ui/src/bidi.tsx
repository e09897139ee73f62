/** What users of the network wrote, so that text which runs from right to left turns nothing around it. */

/** A text of theirs: its direction is its own and ends with it, whatever control characters are in it. */
export function Foreign({ text }: { text: string | undefined }) {
  return <bdi>{text}</bdi>;
}

/** JSON, read from left to right; each string in it for itself. */
export function Json({ text }: { text: string }) {
  return <>{pieces(text).map((piece, index) => (index % 2 ? <bdi key={index}>{piece}</bdi> : piece))}</>;
}

/** Cuts JSON at the strings that hold more than ASCII, which are every second piece; others run from left to right by themselves. */
export function pieces(text: string): string[] {
  const found = [""];
  for (const part of text.split(/("(?:[^"\\]|\\.)*"?)/s)) {
    if (part.startsWith('"') && /[^\0-\x7f]/.test(part)) found.push(part, "");
    else found[found.length - 1] += part;
  }
  return found;
}
