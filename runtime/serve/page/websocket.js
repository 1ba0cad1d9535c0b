// The plain path for browsers or networks without WebRTC: fragmented mp4 in, played by MediaSource, and PCM out unless a
// program speaks.
import { Refusal } from "./api.js";

const OPEN_MS = 8000;
const SOUND_MS = 3000;
const START_BUFFER = 0.25;
// The kiosk sends in step with the clock: more than this in the buffer is latency only.
const FAST_ABOVE = 0.5;
const JUMP_ABOVE = 1.2;
const DROP_SECONDS = 10;
// The stream has a keyframe at least this often, and a browser drops everything up to one.
const GROUP_SECONDS = 20;

const CANNOT_PLAY = ["unsupported", "This browser can play neither of the kiosk's streams; use another one."];
const SILENT = ["silent-browser", "The browser gives no sound; plug in a loudspeaker or headphones and start again."];

// `url` is the box's, or "" for where the page came from; `whom` is {portrait, ...} of a visitor who is heard, or
// {session, token} of a session that a program feeds.
export async function connect({ microphone, place: { url, whom }, video, onMessage, onEnd }) {
  const Source = window.ManagedMediaSource ?? window.MediaSource;
  if (!Source) throw new Refusal(...CANNOT_PLAY);
  const tap = "session" in whom ? null : await Tap.open(microphone);

  const socket = new WebSocket(`${(url || location.origin).replace(/^http/, "ws")}/api/stream`);
  socket.binaryType = "arraybuffer";
  let over = false;
  let player = null;
  let problem = null;

  const close = () => {
    over = true;
    tap?.close();
    socket.close();
    player?.close();
  };

  await new Promise((resolve, reject) => {
    const fail = (reason, message, retryAfter) => {
      clearTimeout(timer);
      if (!over) close();
      reject(new Refusal(reason, message, retryAfter));
    };
    const timer = setTimeout(() => fail("unreachable", "The kiosk does not answer."), OPEN_MS);
    socket.addEventListener("open", () => {
      const first = tap ? { type: "start", rate: tap.rate, format: "s16le", live: true } : { type: "watch" };
      socket.send(JSON.stringify({ ...first, ...whom }));
    });
    socket.addEventListener("message", ({ data }) => {
      if (typeof data !== "string") return player?.append(data);
      const message = JSON.parse(data);
      if (message.type === "ready") {
        if (!Source.isTypeSupported(message.mime)) return fail(...CANNOT_PLAY);
        clearTimeout(timer);
        player = new Player(Source, video, message.mime, () => {
          problem = { reason: "failed", message: "The browser could not play what the kiosk sent." };
          socket.close();
        });
        tap?.listen((block) => {
          if (socket.readyState === WebSocket.OPEN && socket.bufferedAmount < 1 << 20) socket.send(block);
        });
        resolve();
      } else if (message.type === "end" || message.type === "error") problem = message;
      else onMessage(message);
    });
    socket.addEventListener("close", () => {
      if (!player) return fail(problem?.reason ?? "unreachable", problem?.message ?? "The kiosk does not answer.", 5);
      if (over) return;
      close();
      onEnd(problem ?? { reason: "connection-lost", message: "The connection was lost." });
    });
  });

  return {
    close,
    send(message) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    },
    delay: async () => player.ahead * 1000,
  };
}

// The microphone as blocks of samples. It passes through the page's own sound, which a browser without an output never
// starts.
class Tap {
  static async open(microphone) {
    let timer = 0;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Refusal(...SILENT)), SOUND_MS);
    });
    const { context } = microphone;
    const started = Promise.all([context.audioWorklet.addModule("/mic-worklet.js"), context.resume()]);
    await Promise.race([started, late]).finally(() => clearTimeout(timer));
    return new Tap(microphone);
  }

  constructor({ context, source }) {
    this.source = source;
    this.rate = Math.round(context.sampleRate);
    this.node = new AudioWorkletNode(context, "microphone-blocks", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  }

  listen(onBlock) {
    this.node.port.onmessage = ({ data }) => onBlock(data);
    this.source.connect(this.node);
    this.listening = true;
  }

  close() {
    if (this.listening) this.source.disconnect(this.node);
    this.node.port.close();
  }
}

export class Player {
  constructor(Source, video, mime, onError) {
    this.watching = new AbortController();
    video.addEventListener("error", onError, { signal: this.watching.signal });
    this.video = video;
    this.queue = [];
    this.source = new Source();
    this.url = URL.createObjectURL(this.source);
    video.disableRemotePlayback = true;
    video.srcObject = null;
    video.src = this.url;
    this.source.addEventListener("sourceopen", () => {
      this.buffer = this.source.addSourceBuffer(mime);
      this.buffer.addEventListener("updateend", () => this.step());
      this.step();
    }, { once: true });
  }

  // Seconds that are buffered and not yet shown.
  get ahead() {
    const { buffered } = this.video;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - this.video.currentTime) : 0;
  }

  append(data) {
    this.queue.push(data);
    this.step();
  }

  step() {
    if (!this.buffer || this.buffer.updating || this.source.readyState !== "open") return;
    const { video } = this;
    if (this.ahead > START_BUFFER && video.paused) video.play().catch(() => {});
    if (this.ahead > JUMP_ABOVE) video.currentTime += this.ahead - FAST_ABOVE;
    video.playbackRate = this.ahead > FAST_ABOVE ? 1.08 : 1;
    if (this.queue.length) this.buffer.appendBuffer(this.queue.shift());
    else if (video.buffered.length && video.currentTime > video.buffered.start(0) + DROP_SECONDS + GROUP_SECONDS) {
      this.buffer.remove(0, video.buffered.start(0) + DROP_SECONDS);
    }
  }

  close() {
    this.watching.abort();
    URL.revokeObjectURL(this.url);
    this.video.removeAttribute("src");
    this.video.load();
  }
}
