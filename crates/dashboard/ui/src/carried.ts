/** What is said of the filter: which records are carried, and what was left out. */
import type { Filter } from "./api";
import { full, several } from "./format";
import type { Said } from "./verification";

/** One line: what is carried; its title names the rules and what each left out. Null where nothing is known. */
export function carried(filter: Filter | null | undefined): Said | null {
  if (!filter) return null;
  const { collections, repos, excludeRepos, leftOut } = filter;
  if (!filter.epoch) return { line: "Everything is carried", title: "No filter is set", warn: false };
  const line = [
    collections.length > 0 && several(collections.length, "rule"),
    repos !== null && several(repos, "repo"),
    excludeRepos > 0 && `without ${several(excludeRepos, "repo")}`,
  ].filter(Boolean).join(", ");
  const counts = Object.entries(leftOut);
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  const title = [
    collections.length > 0 && `filter.collections: ${collections.join(", ")}`,
    repos !== null && `filter.repos: ${full(repos)}`,
    excludeRepos > 0 && `filter.excludeRepos: ${full(excludeRepos)}`,
    filter.since && (total > 0 ? `left out since ${filter.since}: ${counts.map(([rule, count]) => `${rule} ${full(count)}`).join(", ")}` : `nothing left out since ${filter.since}`),
  ].filter(Boolean).join("; ");
  return { line: `${line}: ${full(total)} left out`, title, warn: false };
}
