import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { reader } from './reader';

const PAUSE_MS = 500;
const read = vi.fn<() => Promise<number>>();
const got = vi.fn();
const failed = vi.fn<(error: unknown) => boolean>();
const make = () => reader({ read, pause: PAUSE_MS, got, failed });

beforeEach(() => {
  vi.useFakeTimers();
  vi.resetAllMocks();
  failed.mockReturnValue(true);
});
afterEach(() => {
  vi.useRealTimers();
});

describe('a failed read', () => {
  it('is tried again after pauses that grow, until one succeeds', async () => {
    read.mockRejectedValue(new Error('away'));
    make().ask();
    await vi.advanceTimersByTimeAsync(0);
    for (const pause of [1000, 2000, 4000, 8000, 16_000, 30_000]) {
      const n = read.mock.calls.length;
      await vi.advanceTimersByTimeAsync(pause - 1);
      expect(read).toHaveBeenCalledTimes(n);
      await vi.advanceTimersByTimeAsync(1);
      expect(read).toHaveBeenCalledTimes(n + 1);
    }
    read.mockResolvedValueOnce(1);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(got).toHaveBeenCalledExactlyOnceWith(1);
    const n = read.mock.calls.length;
    await vi.advanceTimersByTimeAsync(100_000);
    expect(read).toHaveBeenCalledTimes(n);
  });
  it('begins with the first pause after a success', async () => {
    read.mockRejectedValueOnce(new Error('away')).mockResolvedValueOnce(1)
      .mockRejectedValueOnce(new Error('away')).mockResolvedValue(2);
    const { ask } = make();
    ask();
    await vi.advanceTimersByTimeAsync(1000 + PAUSE_MS);
    expect(got).toHaveBeenCalledOnce();
    ask();
    await vi.advanceTimersByTimeAsync(999);
    expect(read).toHaveBeenCalledTimes(3);
    await vi.advanceTimersByTimeAsync(1);
    expect(read).toHaveBeenCalledTimes(4);
  });
  it('is left alone where another try cannot help, and once it is over', async () => {
    read.mockRejectedValue(new Error('away'));
    failed.mockReturnValueOnce(false);
    const { ask, stop } = make();
    ask();
    await vi.advanceTimersByTimeAsync(100_000);
    expect(read).toHaveBeenCalledOnce();
    ask();
    await vi.advanceTimersByTimeAsync(0);
    stop();
    await vi.advanceTimersByTimeAsync(100_000);
    expect(read).toHaveBeenCalledTimes(2);
  });
});

describe('a read that is asked for again', () => {
  it('happens once, after the pause', async () => {
    read.mockResolvedValue(1);
    const { ask } = make();
    for (let i = 0; i < 5; i += 1) ask();
    await vi.advanceTimersByTimeAsync(PAUSE_MS - 1);
    expect(read).toHaveBeenCalledOnce();
    await vi.advanceTimersByTimeAsync(10 * PAUSE_MS);
    expect(read).toHaveBeenCalledTimes(2);
  });
  it('is told to nobody once it is over', async () => {
    read.mockResolvedValue(1);
    const { ask, stop } = make();
    ask();
    stop();
    await vi.advanceTimersByTimeAsync(10 * PAUSE_MS);
    expect(got).not.toHaveBeenCalled();
  });
});
