import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FIRST_PAUSE_MS, follow, LONGEST_PAUSE_MS, SILENCE_MS } from './reconnect';

/** Stands for the browser's event source; a test says what happens to it. */
class FakeSource {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSED = 2;
  static made: FakeSource[] = [];
  readyState = FakeSource.CONNECTING;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  onmessage: ((message: { data: string }) => void) | null = null;
  named = new Map<string, () => void>();
  addEventListener = (name: string, listener: () => void) => this.named.set(name, listener);
  close = vi.fn(() => (this.readyState = FakeSource.CLOSED));

  constructor() {
    FakeSource.made.push(this);
  }
  succeed(): void {
    this.readyState = FakeSource.OPEN;
    this.onopen?.();
  }
  fail(readyState: number): void {
    this.readyState = readyState;
    this.onerror?.();
  }
}

const newest = (): FakeSource => FakeSource.made.at(-1)!;
const follower = (isWanted = () => true) => ({
  opened: vi.fn(), failed: vi.fn(), message: vi.fn(), resync: vi.fn(), isWanted,
});

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('EventSource', FakeSource);
  FakeSource.made = [];
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('an event source that was refused', () => {
  it('is opened again after pauses that grow and begin anew once it was open', () => {
    const reader = follower();
    follow('/events', reader);
    for (const pause of [3000, 6000, 12_000, 24_000, 30_000, 30_000]) {
      const n = FakeSource.made.length;
      newest().fail(FakeSource.CLOSED);
      vi.advanceTimersByTime(pause - 1);
      expect(FakeSource.made.length).toBe(n);
      vi.advanceTimersByTime(1);
      expect(FakeSource.made.length).toBe(n + 1);
    }
    expect(reader.failed.mock.calls).toEqual(Array(6).fill([true]));
    newest().succeed();
    expect(reader.opened).toHaveBeenCalledOnce();
    const n = FakeSource.made.length;
    newest().fail(FakeSource.CLOSED);
    vi.advanceTimersByTime(FIRST_PAUSE_MS);
    expect(FakeSource.made.length).toBe(n + 1);
  });
  it('is left to the browser while that tries by itself', () => {
    const reader = follower();
    follow('/events', reader);
    newest().fail(FakeSource.CONNECTING);
    vi.advanceTimersByTime(10 * LONGEST_PAUSE_MS);
    expect(FakeSource.made.length).toBe(1);
    expect(reader.failed).toHaveBeenCalledWith(false);
  });
  it('is not opened again where a token is asked for', () => {
    follow('/events', follower(() => false));
    newest().fail(FakeSource.CLOSED);
    vi.advanceTimersByTime(10 * LONGEST_PAUSE_MS);
    expect(FakeSource.made.length).toBe(1);
  });
});

describe('a silent connection', () => {
  it('is closed and opened again once the coordinator was alive on it', () => {
    const reader = follower();
    follow('/events', reader);
    const silent = newest();
    silent.succeed();
    silent.named.get('alive')!();
    vi.advanceTimersByTime(SILENCE_MS - 1);
    expect(silent.close).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1);
    expect(silent.close).toHaveBeenCalledOnce();
    expect(reader.failed).toHaveBeenCalledExactlyOnceWith(false);
    expect(FakeSource.made.length).toBe(2);
    newest().succeed();
    expect(reader.opened).toHaveBeenCalledTimes(2);
  });
  it.each([
    ['alive', (source: FakeSource) => source.named.get('alive')!()],
    ['resync', (source: FakeSource) => source.named.get('resync')!()],
    ['a message', (source: FakeSource) => source.onmessage?.({ data: '{}' })],
    ['an opening', (source: FakeSource) => source.succeed()],
  ])('is not one on which %s is heard', (_, speak) => {
    follow('/events', follower());
    newest().named.get('alive')!();
    for (let i = 0; i < 5; i += 1) {
      vi.advanceTimersByTime(SILENCE_MS - 1);
      speak(newest());
    }
    expect(FakeSource.made.length).toBe(1);
  });
  it('is trusted where the coordinator never said that it is alive', () => {
    follow('/events', follower());
    newest().succeed();
    newest().onmessage?.({ data: '{}' });
    vi.advanceTimersByTime(10 * SILENCE_MS);
    expect(FakeSource.made.length).toBe(1);
  });
  it('is left to the browser once that tries by itself', () => {
    follow('/events', follower());
    newest().named.get('alive')!();
    newest().fail(FakeSource.CONNECTING);
    vi.advanceTimersByTime(10 * SILENCE_MS);
    expect(FakeSource.made.length).toBe(1);
  });
  it('is not opened again where a token is asked for', () => {
    follow('/events', follower(() => false));
    newest().named.get('alive')!();
    vi.advanceTimersByTime(10 * SILENCE_MS);
    expect(newest().close).toHaveBeenCalledOnce();
    expect(FakeSource.made.length).toBe(1);
  });
});
