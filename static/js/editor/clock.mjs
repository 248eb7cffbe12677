// Effort spent on one tile. Active time is the sum of the gaps between inputs, without gaps of more than 30 s;
// wall time is all the time the tile was open. Times in seconds; `now` comes from performance.now() (ms).

export const IDLE_AFTER_SECONDS = 30;

const round = (seconds) => Math.round(seconds * 10) / 10;

export class Clock {
  /** `effort`: what a draft has recorded so far. The clock stands still until `resume`. */
  constructor(effort = null) {
    this.active = effort?.active_seconds ?? 0;
    this.wall = effort?.wall_seconds ?? 0;
    this.keys = effort?.keys ?? 0;
    this.clicks = effort?.clicks ?? 0;
    this.lastInput = null;
    this.lastRead = null;
  }

  resume(now = performance.now()) {
    this.lastInput = now;
    this.lastRead = now;
  }

  pause(now = performance.now()) {
    if (this.lastInput === null) return;
    this.input(null, now);
    this.tick(now);
    this.lastInput = null;
    this.lastRead = null;
  }

  /** `kind`: "key", "click" or null for movement. */
  input(kind, now = performance.now()) {
    if (this.lastInput === null) return;
    this.active += this.openGap(now);
    this.lastInput = now;
    if (kind === "key") this.keys += 1;
    if (kind === "click") this.clicks += 1;
  }

  tick(now) {
    this.wall += (now - this.lastRead) / 1000;
    this.lastRead = now;
  }

  openGap(now) {
    const gap = (now - this.lastInput) / 1000;
    return gap <= IDLE_AFTER_SECONDS ? gap : 0;
  }

  isIdle(now = performance.now()) {
    return this.lastInput === null || (now - this.lastInput) / 1000 > IDLE_AFTER_SECONDS;
  }

  activeSeconds(now = performance.now()) {
    return this.active + (this.lastInput === null ? 0 : this.openGap(now));
  }

  read(now = performance.now()) {
    if (this.lastRead !== null) this.tick(now);
    return {
      active_seconds: round(this.activeSeconds(now)),
      wall_seconds: round(this.wall),
      keys: this.keys,
      clicks: this.clicks,
    };
  }
}

export function formatSeconds(seconds) {
  const whole = Math.floor(seconds);
  const minutes = Math.floor(whole / 60);
  const two = (value) => String(value).padStart(2, "0");
  if (minutes < 60) return `${minutes}:${two(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}
