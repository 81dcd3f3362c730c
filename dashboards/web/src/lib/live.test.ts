import { describe, expect, it } from 'vitest';
import { staleness } from './live.svelte';

describe('what is not up to date', () => {
  it('is what has a value and could not be read again', () => {
    expect(staleness({ value: 1, error: null }, { value: 2, error: 'away' })).toBe('away');
    expect(staleness({ value: null, error: 'never read' }, { value: 2, error: null })).toBeNull();
  });
});
