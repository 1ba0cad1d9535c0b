// The kiosk: what the visitor sees and touches. States: loading, ready, connecting, live, reconnecting, full, ended, error.
import { Refusal, describe } from "./api.js";
import { Faces } from "./faces.js";
import { Microphone, levelOf } from "./microphone.js";
import { atBox, takePlace } from "./place.js";
import { SpeechDetector } from "./speech-detector.js";
import * as webrtc from "./webrtc.js";
import * as websocket from "./websocket.js";
import { STATUS, WORDS } from "./words.js";

const RETRY_SECONDS = [1, 2, 4, 8, 15];
const WORTH_RETRYING = new Set(["unreachable", "connection-lost", "line-lost", "stopping", "slow", "failed", "reconnect"]);
const GONE = new Set(["unreachable", "connection-lost"]);
const WELL_ENDED = new Set(["idle", "finished", "left"]);
const TOAST_MS = 7000;
const SWITCH_MS = 4000;
const NO_WEBRTC = new Set(["no-path", "bad-request", "failed"]);
// How long a network that WebRTC did not get through is not tried again.
const PLAIN_MS = 10 * 60 * 1000;
const TICK_MS = 50;
const SMOOTH = 0.65;
const METER_TICKS = { moving: 2, still: 5 };

const $ = (id) => document.getElementById(id);
const video = $("video");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const link = new URLSearchParams(location.hash.slice(1));
// A session that a program feeds is watched; else the visitor's own voice moves the portrait.
const watched = link.has("session") ? { session: link.get("session"), token: link.get("token") ?? "" } : null;
const words = WORDS[watched ? "watch" : "mirror"];

// The noise of the model, which a link may choose.
const seed = Number(link.get("seed") ?? 0);

let chosen = null;
let dispatcher = null;
let place = null;
let lost = null;
let microphone = null;
let connection = null;
let speaking = false;
let attempt = 0;
let run = 0;
let timer = 0;
let leftPlace = -Infinity;
let plainUntil = 0;

const faces = new Faces($("people"), $("add"), $("file"), choose, toast);
const detector = new SpeechDetector();

function show(state, text, count = "") {
  const [status, title, standard, action] = words[state];
  document.body.dataset.state = state;
  $("status-text").textContent = status;
  $("title").textContent = title;
  // Only what changes is set, and the countdown apart, so that a screen reader says it once.
  if ($("text").textContent !== (text ?? standard)) $("text").textContent = text ?? standard;
  $("count").textContent = count;
  $("toast").hidden = true;
  if (action) $("start-text").textContent = action;
  delete document.body.dataset.quality;
  setSpeaking(false);
  if (state !== "live") {
    $("frame").classList.remove("moving");
    $("latency").textContent = $("rtf").textContent = "–";
    setLevel(0);
  }
}

function toast(message) {
  const element = $("toast");
  element.textContent = message;
  element.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => (element.hidden = true), TOAST_MS);
}

// ---- conversation

async function start() {
  const mine = ++run;
  clearInterval(timer);
  show("connecting");
  try {
    await listen();
    const made = await open(mine);
    if (mine !== run) return made.close();
    connection = made;
    video.muted = $("sound").getAttribute("aria-pressed") === "true";
    // Settles with the first picture, if at all.
    video.play().catch(() => {});
    show("live");
    if (place.warning) toast(place.warning);
  } catch (error) {
    if (mine !== run) return;
    if (!(error instanceof Refusal)) console.error(error);
    over({ reason: error.reason ?? "failed", message: error.message, retryAfter: error.retryAfter });
  }
}

// Who watches needs the microphone for interrupting only.
async function listen() {
  try {
    microphone ??= await Microphone.open(unplugged);
    microphone.muted = $("mute").getAttribute("aria-pressed") === "true";
    microphone.wake();
  } catch (error) {
    if (!watched || !(error instanceof Refusal)) throw error;
    console.info("Nothing is heard of the visitor:", error.message);
  }
  document.body.dataset.microphone = microphone ? "on" : "off";
}

function unplugged() {
  const message = "The microphone was unplugged; plug it in and start again.";
  if (!watched) return finish("error", message);
  microphone = null;
  document.body.dataset.microphone = "off";
  toast(message);
}

async function open(mine) {
  if (performance.now() < plainUntil) return connectBy(websocket, mine);
  try {
    return await connectBy(webrtc, mine);
  } catch (error) {
    // What the kiosk refuses it would refuse on the other path too.
    if (mine !== run || (error instanceof Refusal && !NO_WEBRTC.has(error.reason))) throw error;
    console.info("WebRTC does not work here, so the WebSocket is used:", error.message);
    plainUntil = performance.now() + PLAIN_MS;
    leftPlace = performance.now();
    return connectBy(websocket, mine);
  }
}

// A place that was reserved is good for one attempt.
async function connectBy(transport, mine) {
  place = watched ? { url: "", whom: watched } : await takePlace(dispatcher, chosen, seed, lost);
  try {
    return await transport.connect({
      microphone,
      place,
      video,
      onMessage: (message) => mine === run && take(message),
      onEnd: (end) => mine === run && over(end),
    });
  } catch (error) {
    throw place.url ? atBox(error) : error;
  }
}

// A connection is over, or did not come about: wait and try again, or say why not.
function over({ reason, message, retryAfter }) {
  disconnect();
  lost = GONE.has(reason) ? place?.url : null;
  // The place that was left for another portrait or the other path needs a moment to be free.
  const switching = performance.now() - leftPlace < SWITCH_MS;
  if (reason === "full" && switching) setTimeout(start, 300);
  else if (reason === "full") wait("full", retryAfter || 5, message);
  else if (WORTH_RETRYING.has(reason)) {
    // At another box the conversation may go on at once.
    const elsewhere = attempt === 0 && (dispatcher || reason === "reconnect");
    const seconds = elsewhere ? 0 : RETRY_SECONDS[Math.min(attempt, RETRY_SECONDS.length - 1)];
    attempt += 1;
    wait("reconnecting", seconds, message);
  } else if (WELL_ENDED.has(reason)) finish("ended", message);
  else finish("error", message);
}

function wait(state, seconds, message) {
  clearInterval(timer);
  const mine = run;
  let left = Math.ceil(seconds);
  const tick = () => {
    if (mine !== run) return clearInterval(timer);
    if (left <= 0) return start();
    show(state, message, `Next try in ${left} s.`);
    left -= 1;
  };
  tick();
  timer = setInterval(tick, 1000);
}

function disconnect() {
  connection?.close();
  connection = null;
  video.srcObject = null;
}

function finish(state, message) {
  run += 1;
  clearInterval(timer);
  disconnect();
  microphone?.close();
  microphone = null;
  attempt = 0;
  show(state, message);
}

// ---- what the kiosk tells

function take(message) {
  if (message.type === "stats") {
    attempt = 0;
    showStats(message);
  }
  else if (message.type === "utterance") setSpeaking(message.event === "started");
  else if (message.type === "notice") console.info(message.message);
}

async function showStats(stats) {
  if (!connection || stats.latency_ms === null || stats.rtf === null) return;
  document.body.dataset.quality = stats.quality;
  $("status-text").textContent = STATUS[stats.quality] ?? words.live[0];
  const delay = await connection.delay();
  $("latency").textContent = `${((stats.latency_ms + delay) / 1000).toFixed(1)} s`;
  $("rtf").textContent = stats.rtf.toFixed(2);
}

function setSpeaking(value) {
  speaking = value;
  document.body.toggleAttribute("data-speaking", value);
  // It stays in the order of the keyboard, and keeps the focus, while there is nothing to interrupt.
  $("interrupt").setAttribute("aria-disabled", String(!value));
  detector.reset();
}

function interrupt() {
  if (!speaking) return;
  connection?.send({ type: "interrupt" });
  setSpeaking(false);
}

// ---- portraits

function choose({ id, name, url, file }) {
  const changed = chosen?.id !== id;
  chosen = { id, name, file };
  $("portrait").src = $("backdrop").src = url;
  $("portrait").alt = `${name}, at rest`;
  video.setAttribute("aria-label", `${name}, live`);
  if (changed && connection) {
    leftPlace = performance.now();
    disconnect();
    start();
  }
}

// ---- level

function setLevel(level) {
  $("meter").value = level;
}

// A timer and not animation frames: those make a machine without a GPU paint all the time, which the model pays for.
let smooth = 0;
let ticks = 0;
function hear() {
  if (document.body.dataset.state !== "live" || !microphone) return;
  const { decibels } = microphone;
  // In the visitor's own voice the portrait speaks a moment later: there it is no interruption.
  if (detector.hear(decibels, TICK_MS) && speaking && watched) interrupt();
  smooth = Math.max(levelOf(decibels), smooth * SMOOTH);
  ticks += 1;
  if (ticks % METER_TICKS[still.matches ? "still" : "moving"] === 0) setLevel(smooth);
}

// ---- events

function toggle(button, on, labels, icons) {
  button.setAttribute("aria-pressed", String(on));
  button.setAttribute("aria-label", labels[Number(on)]);
  button.querySelector("use").setAttribute("href", icons[Number(on)]);
}

$("start").addEventListener("click", () => {
  attempt = 0;
  start();
});
$("stop").addEventListener("click", () => {
  finish("ready");
  $("start").focus();
});
$("interrupt").addEventListener("click", interrupt);
addEventListener("keydown", (event) => event.key === "Escape" && interrupt());
$("mute").addEventListener("click", () => {
  const on = microphone?.track.enabled ?? false;
  if (microphone) microphone.muted = on;
  toggle($("mute"), on, ["Mute the microphone", "Unmute the microphone"], ["#i-mic", "#i-mic-off"]);
});
$("sound").addEventListener("click", () => {
  video.muted = !video.muted;
  toggle($("sound"), video.muted, ["Turn the sound off", "Turn the sound on"], ["#i-sound", "#i-sound-off"]);
});
$("full").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.().catch(() => {});
});
video.addEventListener("playing", () => $("frame").classList.add("moving"));
addEventListener("pagehide", disconnect);
addEventListener("hashchange", () => location.reload());
if (!document.documentElement.requestFullscreen) $("full").hidden = true;

// Uploads are listed to nobody.
function portraitOf(id, listed) {
  return listed.find((portrait) => portrait.id === id) ?? { id, name: "Portrait", url: `/api/portraits/${encodeURIComponent(id)}` };
}

async function load() {
  show("loading");
  try {
    const kiosk = await describe();
    if (watched && link.has("portrait")) kiosk.portraits = [portraitOf(link.get("portrait"), kiosk.portraits)];
    dispatcher = kiosk.dispatcher;
    faces.show(kiosk);
    show("ready");
  } catch (error) {
    show("loading", `${error.message} Trying again.`);
    setTimeout(load, 3000);
  }
}

document.body.dataset.mode = watched ? "watch" : "mirror";
if (watched) $("start").querySelector("use").setAttribute("href", "#i-sound");
load();
setInterval(hear, TICK_MS);
