// The visitor's microphone and how loud it is.
import { Refusal } from "./api.js";

const WHY = {
  NotAllowedError: ["microphone-denied", "The page may not use the microphone; allow it in the browser and start again."],
  NotFoundError: ["microphone-missing", "No microphone was found; plug one in and start again."],
  NotReadableError: ["microphone-busy", "The microphone is used by another program; close that and start again."],
};
// Below it is hum and the table's rumble.
const VOICE_HZ = 120;

export class Microphone {
  static async open(onLost) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Refusal("insecure", "The browser gives the microphone to HTTPS pages and to this machine only; open the kiosk that way.");
    }
    let stream;
    try {
      // Without echo cancellation the face would interrupt itself.
      stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
      });
    } catch (error) {
      throw new Refusal(...(WHY[error.name] ?? ["microphone", "The microphone cannot be used; check it and start again."]));
    }
    return new Microphone(stream, onLost);
  }

  constructor(stream, onLost) {
    this.stream = stream;
    this.track = stream.getAudioTracks()[0];
    this.track.addEventListener("ended", onLost);
    this.context = new AudioContext();
    this.source = this.context.createMediaStreamSource(stream);
    this.meter = this.context.createAnalyser();
    this.meter.fftSize = 2048;
    this.samples = new Float32Array(this.meter.fftSize);
    const filter = new BiquadFilterNode(this.context, { type: "highpass", frequency: VOICE_HZ });
    this.source.connect(filter).connect(this.meter);
  }

  // Firefox without a loudspeaker never settles this promise, and only the level and the plain path need the context.
  wake() {
    this.context.resume().catch(() => {});
  }

  set muted(value) {
    this.track.enabled = !value;
  }

  // Of full scale, -90 for silence.
  get decibels() {
    this.meter.getFloatTimeDomainData(this.samples);
    let power = 0;
    for (const sample of this.samples) power += sample * sample;
    return 10 * Math.log10(power / this.samples.length + 1e-9);
  }

  close() {
    this.track.stop();
    this.context.close();
  }
}

// 0 for silence to 1 for loud speech.
export const levelOf = (decibels) => Math.min(1, Math.max(0, (decibels + 52) / 40));
