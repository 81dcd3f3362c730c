import { describe, expect, it } from 'vitest';
import { bytes, digitsFor, duration, metric, percent, progress, reading, short, significant } from './format';

describe('numbers for people', () => {
  it('keeps three digits and moves to the next suffix in time', () => {
    expect(metric(12_345_678)).toBe('12.3M');
    expect(metric(999_960)).toBe('1.00M');
    expect(metric(42)).toBe('42');
    expect(metric(null)).toBe('–');
  });
  it('writes powers of ten where the suffixes end, as the command line does', () => {
    expect(metric(9.99e20)).toBe('999E');
    expect(metric(9.996e20)).toBe('1.00e21');
    expect(metric(5.76e23)).toBe('5.76e23');
    expect(metric(-1e21)).toBe('-1.00e21');
  });
  it('writes the two largest units of a duration', () => {
    expect(duration(200)).toBe('3 min 20 s');
    expect(duration(3600)).toBe('1 h');
    expect(duration(0.2)).toBe('0 s');
  });
  it('avoids exponents where a plain number reads well', () => {
    expect(short(0.0798)).toBe('0.0798');
    expect(short(1.82e8)).toBe('1.82e+8');
    expect(bytes(1536)).toBe('1.50 KiB');
    expect(bytes(999.4 * 1024)).toBe('999 KiB');
    expect(bytes(1010 * 1024)).toBe('1010 KiB');
    expect(bytes(5000 * 1024 ** 4)).toBe('5000 TiB');
  });
  it('has more digits where they are asked for', () => {
    expect(metric(1_000_250_000, 6)).toBe('1.00025G');
    expect(metric(999_960, 5)).toBe('999.96k');
    expect(metric(1.00025e21, 6)).toBe('1.00025e21');
    expect(significant(3.123456, 6)).toBe('3.12346');
    expect(significant(1.23456e-5, 5)).toBe('1.2346e-5');
  });
  it('has the digits that a step needs, and no end of them', () => {
    expect(digitsFor(1_250_000, 250_000)).toBe(3);
    expect(digitsFor(1.00005e9, 50_000)).toBe(6);
    expect(digitsFor(1 / 3, 0)).toBe(15);
  });
});

describe('percentages', () => {
  it('have a decimal where they are small, of either sign', () => {
    expect(percent(0.034)).toBe('3.4 %');
    expect(percent(0.0149)).toBe('1.5 %');
    expect(percent(-0.0149)).toBe('-1.5 %');
    expect(percent(-0.15)).toBe('-15 %');
    expect(percent(0.0004)).toBe('0.04 %');
    expect(percent(-0.00012)).toBe('-0.01 %');
    expect(percent(0.001)).toBe('0.1 %');
    expect(percent(0)).toBe('0 %');
    expect(percent(0.996)).toBe('100 %');
  });
  it('of progress are 100 only when all is done', () => {
    expect(progress(0.996)).toBe('99 %');
    expect(progress(1 - 1e-12)).toBe('99 %');
    expect(progress(1)).toBe('100 %');
    expect(progress(0)).toBe('0 %');
    expect(progress(0.0999)).toBe('9.9 %');
  });
  it('of progress do not lose one to rounding', () => {
    for (let done = 10; done < 100; done += 1) expect(progress(done / 100)).toBe(`${done} %`);
    for (let done = 1; done < 100; done += 1) expect(progress(done / 1000)).toBe(`${(done / 10).toFixed(1)} %`);
  });
});

describe('values of series', () => {
  it('are losses with four decimals where the name says nats', () => {
    expect(reading('train_loss_nats', 3.25)).toBe('3.2500');
  });
  it('have four significant digits otherwise', () => {
    expect(reading('learning_rate', 3e-5)).toBe('3e-5');
    expect(reading('learning_rate', 0.00123456)).toBe('0.001235');
    expect(reading('tokens', 52_428_800)).toBe('52.43M');
    expect(reading('flops', 5.76e23)).toBe('5.76e23');
    expect(reading('gradient_norm', 0.5)).toBe('0.5');
    expect(reading('skipped_steps', 0)).toBe('0');
  });
  it('move to the next suffix in time', () => {
    expect(significant(999.96)).toBe('1k');
    expect(significant(999_960)).toBe('1M');
    expect(significant(9.99996e20)).toBe('1e21');
    expect(significant(0.00099999)).toBe('0.001');
    expect(significant(-2500)).toBe('-2.5k');
    expect(significant(1e-10)).toBe('1e-10');
  });
});
