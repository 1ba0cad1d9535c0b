// The kiosk: what the visitor sees and touches. States: loading, ready, connecting, live, reconnecting, full, ended, error.
import { Refusal, describe, upload } from "./api.js";
import { Microphone } from "./microphone.js";
import * as webrtc from "./webrtc.js";
import * as websocket from "./websocket.js";

const RETRY_SECONDS = [1, 2, 4, 8, 15];
const WORTH_RETRYING = new Set(["unreachable", "connection-lost", "line-lost", "stopping", "slow", "failed"]);
const TOAST_MS = 7000;
const SWITCH_MS = 4000;
const NO_WEBRTC = new Set(["no-path", "bad-request", "failed"]);
// How long a network that WebRTC did not get through is not tried again.
const PLAIN_MS = 10 * 60 * 1000;
const STATUS = { good: "Listening", reduced: "Listening, machine busy", held: "Machine too busy" };

const $ = (id) => document.getElementById(id);
const video = $("video");
const still = matchMedia("(prefers-reduced-motion: reduce)");

let config = null;
let chosen = null;
let microphone = null;
let connection = null;
let attempt = 0;
let run = 0;
let timer = 0;
let leftPlace = -Infinity;
let plainUntil = 0;

const WORDS = {
  loading: ["Loading", "One moment", "The portrait is being fetched."],
  ready: ["Ready", "Speak, and the portrait speaks with you", "Your voice is heard by this kiosk only and is not kept.", "Touch to start"],
  connecting: ["Connecting", "Connecting", "Allow the microphone if the browser asks."],
  live: ["Listening", "Just talk", "The portrait answers a moment later, in your own voice."],
  reconnecting: ["Reconnecting", "The connection was lost", "", "Try now"],
  full: ["Busy", "Somebody else is talking", "", "Try now"],
  ended: ["Ended", "Thank you for talking", "", "Start again"],
  error: ["Problem", "This did not work", "", "Start again"],
};

function show(state, text, count = "") {
  const [status, title, standard, action] = WORDS[state];
  document.body.dataset.state = state;
  $("status-text").textContent = status;
  $("title").textContent = title;
  // Only what changes is set, and the countdown apart, so that a screen reader says it once.
  if ($("text").textContent !== (text ?? standard)) $("text").textContent = text ?? standard;
  $("count").textContent = count;
  $("toast").hidden = true;
  if (action) $("start-text").textContent = action;
  delete document.body.dataset.quality;
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
    microphone ??= await Microphone.open(() => finish("error", "The microphone was unplugged; plug it in and start again."));
    microphone.wake();
    const made = await open(mine);
    if (mine !== run) return made.close();
    connection = made;
    attempt = 0;
    video.muted = $("sound").getAttribute("aria-pressed") === "true";
    // Settles with the first picture, if at all.
    video.play().catch(() => {});
    show("live");
  } catch (error) {
    if (mine !== run) return;
    if (!(error instanceof Refusal)) console.error(error);
    over({ reason: error.reason ?? "failed", message: error.message, retryAfter: error.retryAfter });
  }
}

async function open(mine) {
  const options = {
    microphone,
    portrait: chosen,
    video,
    onStats: (stats) => mine === run && showStats(stats),
    onEnd: (end) => mine === run && over(end),
  };
  if (performance.now() < plainUntil) return websocket.connect(options);
  try {
    return await webrtc.connect(options);
  } catch (error) {
    // What the kiosk refuses it would refuse on the other path too.
    if (mine !== run || (error instanceof Refusal && !NO_WEBRTC.has(error.reason))) throw error;
    console.info("WebRTC does not work here, so the WebSocket is used:", error.message);
    plainUntil = performance.now() + PLAIN_MS;
    leftPlace = performance.now();
    return websocket.connect(options);
  }
}

// A connection is over, or did not come about: wait and try again, or say why not.
function over({ reason, message, retryAfter }) {
  disconnect();
  // The place that was left for another portrait or the other path needs a moment to be free.
  const switching = performance.now() - leftPlace < SWITCH_MS;
  if (reason === "full" && switching) setTimeout(start, 300);
  else if (reason === "full") wait("full", retryAfter || 5, message);
  else if (WORTH_RETRYING.has(reason)) {
    const seconds = RETRY_SECONDS[Math.min(attempt++, RETRY_SECONDS.length - 1)];
    wait("reconnecting", seconds, message);
  } else if (reason === "idle") finish("ended", message);
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

async function showStats(stats) {
  if (!connection || stats.latency_ms === null || stats.rtf === null) return;
  document.body.dataset.quality = stats.quality;
  $("status-text").textContent = STATUS[stats.quality];
  const delay = await connection.delay();
  $("latency").textContent = `${((stats.latency_ms + delay) / 1000).toFixed(1)} s`;
  $("rtf").textContent = stats.rtf.toFixed(2);
}

// ---- portraits

function addFace({ id, name, url }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "face";
  button.dataset.id = id;
  button.setAttribute("role", "radio");
  button.setAttribute("aria-label", name);
  const image = new Image();
  image.src = url;
  image.alt = "";
  button.append(image);
  button.addEventListener("click", () => choose(id, url));
  $("faces").insertBefore(button, $("add"));
}

function choose(id, url) {
  const changed = chosen !== id;
  chosen = id;
  $("portrait").src = $("backdrop").src = url;
  for (const face of $("faces").querySelectorAll("[role=radio]")) {
    face.setAttribute("aria-checked", String(face.dataset.id === id));
    face.tabIndex = face.dataset.id === id ? 0 : -1;
  }
  if (changed && connection) {
    leftPlace = performance.now();
    disconnect();
    start();
  }
}

async function take(file) {
  $("add").classList.add("waiting");
  try {
    const portrait = await upload(file, config.upload_bytes);
    addFace(portrait);
    choose(portrait.id, portrait.url);
  } catch (error) {
    toast(error.message);
  } finally {
    $("add").classList.remove("waiting");
    $("file").value = "";
  }
}

// ---- level

function setLevel(level) {
  document.documentElement.style.setProperty("--level", level.toFixed(3));
}

let smooth = 0;
function animate() {
  if (document.body.dataset.state === "live" && microphone) {
    const level = microphone.track.enabled ? microphone.level : 0;
    smooth = Math.max(level, smooth * 0.86);
    setLevel(still.matches ? 0.25 * (smooth > 0.3) : smooth);
  }
  requestAnimationFrame(animate);
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
$("stop").addEventListener("click", () => finish("ready"));
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
$("file").addEventListener("change", ({ target }) => target.files[0] && take(target.files[0]));
$("faces").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const faces = [...$("faces").querySelectorAll("[role=radio]")];
  const next = faces[(faces.findIndex((face) => face.dataset.id === chosen) + step + faces.length) % faces.length];
  next.click();
  next.focus();
  event.preventDefault();
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});
video.addEventListener("playing", () => $("frame").classList.add("moving"));
addEventListener("pagehide", disconnect);
if (!document.documentElement.requestFullscreen) $("full").hidden = true;

async function load() {
  show("loading");
  try {
    config = await describe();
    config.portraits.forEach(addFace);
    choose(config.portraits[0].id, config.portraits[0].url);
    show("ready");
  } catch (error) {
    show("loading", `${error.message} Trying again.`);
    setTimeout(load, 3000);
  }
}

load();
animate();
