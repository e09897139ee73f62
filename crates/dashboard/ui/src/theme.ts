/** Light, dark, or as the system says. */

import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const ORDER: readonly Theme[] = ["system", "light", "dark"];

const chosen = document.documentElement.dataset.theme;
export const theme = signal<Theme>(chosen === "light" || chosen === "dark" ? chosen : "system");
/** Grows when colours change: what is drawn on a canvas must be drawn anew. */
export const repaint = signal(0);

export function nextTheme(): void {
  theme.value = ORDER[(ORDER.indexOf(theme.value) + 1) % ORDER.length] ?? "system";
}

export function watchTheme(): void {
  effect(() => {
    const root = document.documentElement;
    if (theme.value === "system") delete root.dataset.theme;
    else root.dataset.theme = theme.value;
    try {
      if (theme.value === "system") localStorage.removeItem("theme");
      else localStorage.setItem("theme", theme.value);
    } catch {
      // Without storage the choice holds as long as the page.
    }
    repaint.value = repaint.peek() + 1;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { repaint.value += 1; });
}
