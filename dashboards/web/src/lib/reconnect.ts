// An event source that is opened again when the browser gives it up. It holds no data.
//
// A browser connects again by itself after a broken connection, but an answer other than 200, such
// as a proxy's 502 or a 401, closes an event source for good.

/** The first pause before it is opened again; each one after it is twice as long. */
export const FIRST_PAUSE_MS = 3000;

/** Short enough that a page follows soon after the coordinator is back. */
export const LONGEST_PAUSE_MS = 30_000;

/** The coordinator says that it is alive every 15 s: three times missed, the connection is dead. */
export const SILENCE_MS = 45_000;

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

/** Calls `onSilence` once nothing was heard for long, from the first sign of life on. */
function watchdog(onSilence: () => void) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stop = (): void => {
    clearTimeout(timer);
    timer = undefined;
  };
  const start = (): void => {
    stop();
    timer = setTimeout(onSilence, SILENCE_MS);
  };
  return {
    start,
    stop,
    heard: (): void => {
      if (timer !== undefined) start();
    },
  };
}

/** Follows the events at an address for as long as they are wanted. */
export function follow(address: string, follower: Follower): void {
  let pause = FIRST_PAUSE_MS;

  const open = (): void => {
    const source = new EventSource(address);
    // An older coordinator never says that it is alive, and is not watched.
    const watch = watchdog(() => {
      watch.stop();
      source.close();
      follower.failed(false);
      if (follower.isWanted()) open();
    });
    source.onopen = () => {
      watch.heard();
      pause = FIRST_PAUSE_MS;
      follower.opened();
    };
    source.onerror = () => {
      watch.stop();
      const isClosed = source.readyState === EventSource.CLOSED;
      follower.failed(isClosed);
      if (!isClosed) return;
      setTimeout(() => {
        if (follower.isWanted()) open();
      }, pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    };
    source.onmessage = (message: MessageEvent<string>) => {
      watch.heard();
      follower.message(message.data);
    };
    source.addEventListener('resync', () => {
      watch.heard();
      follower.resync();
    });
    source.addEventListener('alive', watch.start);
  };
  open();
}
