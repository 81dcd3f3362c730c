// One colour a group, the same on every plot and table. Chosen to be told apart in both themes and
// with the common colour-vision deficiencies (after Okabe and Ito).

const PALETTE = ['#3b82c4', '#e08a1e', '#2a9d74', '#c8577f', '#8a6fd1', '#6b9c2e', '#b5651d', '#5aa5b8'];

/** The colour of each group, in the order of first appearance. */
export function groupColors(groups: Iterable<string>): Map<string, string> {
  const colors = new Map<string, string>();
  for (const group of groups) {
    if (!colors.has(group)) colors.set(group, PALETTE[colors.size % PALETTE.length] ?? '#888888');
  }
  return colors;
}
