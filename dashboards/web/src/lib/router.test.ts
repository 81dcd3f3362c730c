import { describe, expect, it } from 'vitest';
import { parseRoute } from './router.svelte';

describe('the page of a path', () => {
  it('has its name decoded', () => {
    expect(parseRoute('/studies/a%20b')).toEqual({ page: 'study', study: 'a b' });
  });
  it('is missing where a percent sign stands alone', () => {
    expect(parseRoute('/studies/50%')).toEqual({ page: 'missing', path: '/studies/50%' });
  });
});
