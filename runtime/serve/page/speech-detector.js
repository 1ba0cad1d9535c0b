// Tells when somebody speaks, from how loud the microphone is above its own noise.

const MARGIN_DB = 10;
const LEAST_DB = -52;
const SPEECH_MS = 200;
// Between syllables it is quiet.
const GAP_MS = 120;
const RISE_DB_PER_S = 4;
const FALL_DB_PER_S = 40;

export class SpeechDetector {
  constructor() {
    this.floor = null;
    this.reset();
  }

  // What was heard so far counts no more; the noise is still known.
  reset() {
    this.spoken = 0;
    this.quiet = 0;
  }

  // `decibels` of full scale, and the milliseconds since the last time; true once there has been speech for long enough.
  hear(decibels, ms) {
    this.floor ??= decibels;
    const step = decibels > this.floor ? RISE_DB_PER_S : -FALL_DB_PER_S;
    const most = Math.abs(decibels - this.floor);
    this.floor += Math.max(-most, Math.min(most, (step * ms) / 1000));
    if (decibels > Math.max(this.floor + MARGIN_DB, LEAST_DB)) {
      this.spoken += ms;
      this.quiet = 0;
    } else if ((this.quiet += ms) > GAP_MS) this.spoken = 0;
    return this.spoken >= SPEECH_MS;
  }
}
