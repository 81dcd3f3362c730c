import { describe, expect, it } from 'vitest';
import { bytes, duration, metric, percent, short } from './format';

describe('numbers for people', () => {
  it('keeps three digits and moves to the next suffix in time', () => {
    expect(metric(12_345_678)).toBe('12.3M');
    expect(metric(999_960)).toBe('1.00M');
    expect(metric(42)).toBe('42');
    expect(metric(null)).toBe('–');
  });
  it('writes the two largest units of a duration', () => {
    expect(duration(200)).toBe('3 min 20 s');
    expect(duration(3600)).toBe('1 h');
    expect(duration(0.2)).toBe('0 s');
  });
  it('avoids exponents where a plain number reads well', () => {
    expect(short(0.0798)).toBe('0.0798');
    expect(short(1.82e8)).toBe('1.82e+8');
    expect(percent(0.034)).toBe('3.4 %');
    expect(bytes(1536)).toBe('1.50 KiB');
  });
});
