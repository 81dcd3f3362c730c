import { describe, expect, it } from 'vitest';
import { groupColors, settled } from './colors';

describe('the colours of groups', () => {
  it('are all different, well beyond the palette', () => {
    const groups = Array.from({ length: 24 }, (_, index) => `g${index}`);
    const colors = [...groupColors(groups).values()];
    expect(new Set(colors).size).toBe(24);
    for (const color of colors) expect(color).toMatch(/^#[0-9a-f]{6}$/);
  });
  it('are the same object while they are equal', () => {
    const former = groupColors(['a', 'b']);
    expect(settled(former, groupColors(['a', 'b', 'a']))).toBe(former);
    const next = groupColors(['b', 'a']);
    expect(settled(former, next)).toBe(next);
    const fewer = groupColors(['a']);
    expect(settled(former, fewer)).toBe(fewer);
  });
});
