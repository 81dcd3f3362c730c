// One colour a group, the same on every plot and table. Chosen to be told apart in both themes and
// with the common colour-vision deficiencies (after Okabe and Ito).

const PALETTE = ['#3b82c4', '#e08a1e', '#2a9d74', '#c8577f', '#8a6fd1', '#6b9c2e', '#b5651d', '#5aa5b8'];

/** How far each further round of the palette is mixed with black or white: more groups than colours. */
const ROUNDS = [
  { share: 0, other: 0 },
  { share: 0.3, other: 0 },
  { share: 0.4, other: 255 },
];

/** The colour at a place: the palette, then its dark shades, then its light ones. */
function shade(place: number): string {
  const color = PALETTE[place % PALETTE.length] ?? '#888888';
  const { share, other } = ROUNDS[Math.floor(place / PALETTE.length) % ROUNDS.length] ?? { share: 0, other: 0 };
  const channels = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return `#${channels.map((one) => Math.round(one + share * (other - one)).toString(16).padStart(2, '0')).join('')}`;
}

/** The colour of each group, in the order of first appearance. */
export function groupColors(groups: Iterable<string>): Map<string, string> {
  const colors = new Map<string, string>();
  for (const group of groups) {
    if (!colors.has(group)) colors.set(group, shade(colors.size));
  }
  return colors;
}

/** The former colours where the new ones are equal: what was drawn with them need not be drawn again. */
export function settled(former: Map<string, string>, next: Map<string, string>): Map<string, string> {
  const isEqual = former.size === next.size && [...next].every(([group, color]) => former.get(group) === color);
  return isEqual ? former : next;
}
