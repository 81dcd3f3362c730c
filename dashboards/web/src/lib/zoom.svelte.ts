// Curves of a chart that follow the event stream, and more of their points where it is zoomed in.

import type { CurveList, EventView, StepWindow } from './api';
import { withDetail } from './curves';
import { live, type Live } from './live.svelte';

export interface Zoomable extends Live<CurveList> {
  /** What the chart shows now; null for all of it. */
  zoom(window: StepWindow | null): void;
}

/** Call it while a component is set up, as `live`. */
export function zoomable(
  read: (window: StepWindow | null) => Promise<CurveList>,
  pause: number,
  matters?: (event: EventView) => boolean,
): Zoomable {
  let window = $state.raw<StepWindow | null>(null);
  const whole = live(() => read(null), pause, matters);
  const part = live(
    async () => {
      const asked = window;
      return asked === null ? null : { window: asked, list: await read(asked) };
    },
    pause,
    matters,
  );
  const joined = $derived.by(() => {
    const detail = window === null ? null : part.value;
    if (whole.value === null || detail === null) return whole.value;
    return withDetail(whole.value, detail.list, detail.window);
  });

  return {
    get value() {
      return joined;
    },
    get error() {
      return whole.error ?? part.error;
    },
    zoom(next) {
      if (next?.from !== window?.from || next?.to !== window?.to) window = next;
    },
  };
}
