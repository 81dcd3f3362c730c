// An event source that is opened again when the browser gives it up. It holds no data.
//
// A browser connects again by itself after a broken connection, but an answer other than 200, such
// as a proxy's 502 or a 401, closes an event source for good.

/** The first pause before it is opened again; each one after it is twice as long. */
export const FIRST_PAUSE_MS = 3000;

/** Short enough that a page follows soon after the coordinator is back. */
export const LONGEST_PAUSE_MS = 30_000;

export interface Follower {
  /** It is open, for the first time or again. */
  opened: () => void;
  /** It is not open; `isClosed` where the browser has given it up. */
  failed: (isClosed: boolean) => void;
  message: (data: string) => void;
  resync: () => void;
  /** Whether to open it again. */
  isWanted: () => boolean;
}

/** Follows the events at an address for as long as they are wanted. */
export function follow(address: string, follower: Follower): void {
  let pause = FIRST_PAUSE_MS;

  const open = (): void => {
    const source = new EventSource(address);
    source.onopen = () => {
      pause = FIRST_PAUSE_MS;
      follower.opened();
    };
    source.onerror = () => {
      const isClosed = source.readyState === EventSource.CLOSED;
      follower.failed(isClosed);
      if (!isClosed) return;
      setTimeout(() => {
        if (follower.isWanted()) open();
      }, pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    };
    source.onmessage = (message: MessageEvent<string>) => follower.message(message.data);
    source.addEventListener('resync', () => follower.resync());
  };
  open();
}
