// Sound and picture in, and the visitor's microphone out unless a program speaks, over one peer connection.
import { Refusal, bearer, request } from "./api.js";
import { isAlive } from "./place.js";

// From touch to connection: longer than any network takes, short enough to wait for the other path.
const CONNECT_MS = 5000;
const GATHER_MS = 1500;
// A connection that lost its path finds it again by then, or never.
const LOST_MS = 4000;
const LEAVE_MS = 3000;
// Every second there are figures; a kiosk that says nothing for so long is asked whether it is there.
const SILENT_MS = 1500;
const LISTEN_MS = 250;

// `url` is the box's, or "" for where the page came from; `whom` is {portrait, ...} of a visitor who is heard, or
// {session, token} of a session that a program feeds.
export async function connect({ microphone, place: { url, whom }, video, onMessage, onEnd }) {
  if (!window.RTCPeerConnection) throw new Refusal("no-path", "This browser has no WebRTC.");
  const deadline = AbortSignal.timeout(CONNECT_MS);
  let peer = null;
  let channel = null;
  let session = null;
  let over = false;
  let lost = 0;
  let listening = 0;
  let heard = performance.now();

  // Settles when the place is free.
  const close = async () => {
    over = true;
    clearTimeout(lost);
    clearInterval(listening);
    peer?.close();
    if (!session) return;
    const options = { method: "DELETE", keepalive: true, signal: AbortSignal.timeout(LEAVE_MS) };
    await fetch(`${url}/api/webrtc/${session}`, options).catch(() => {});
  };
  const end = (reason, message) => {
    if (over) return;
    close();
    onEnd({ reason, message });
  };

  try {
    // Asked for each time: passwords of TURN servers do not last.
    const { ice_servers: iceServers } = await request(`${url}/api/ice-servers`, {
      headers: bearer(whom.ticket),
      signal: deadline,
    });
    peer = new RTCPeerConnection({ iceServers });
    channel = peer.createDataChannel("messages");
    channel.addEventListener("message", ({ data }) => {
      heard = performance.now();
      const message = JSON.parse(data);
      if (message.type === "end") end(message.reason, message.message);
      else onMessage(message);
    });
    if ("session" in whom) peer.addTransceiver("audio", { direction: "recvonly" });
    else peer.addTransceiver(microphone.track, { direction: "sendrecv" });
    peer.addTransceiver("video", { direction: "recvonly" });
    // One stream with both tracks is what makes the browser keep them in step.
    const stream = new MediaStream();
    peer.addEventListener("track", ({ track, streams }) => {
      if (streams[0]) video.srcObject = streams[0];
      else {
        stream.addTrack(track);
        video.srcObject = stream;
      }
    });
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const answer = await request(`${url}/api/webrtc`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sdp: peer.localDescription.sdp, ...whom }),
      signal: deadline,
    });
    session = answer.session;
    await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await connected(peer, deadline);
  } catch (error) {
    await close();
    throw deadline.aborted ? noPath() : error;
  }

  heard = performance.now();
  listening = setInterval(async () => {
    if (performance.now() - heard < SILENT_MS) return;
    heard = performance.now();
    if (!(await isAlive(url))) end("connection-lost", "The connection was lost.");
  }, LISTEN_MS);

  peer.addEventListener("connectionstatechange", () => {
    clearTimeout(lost);
    const wait = { failed: 0, disconnected: LOST_MS }[peer.connectionState];
    if (wait !== undefined) lost = setTimeout(() => end("connection-lost", "The connection was lost."), wait);
  });

  let before = { delay: 0, count: 0 };
  return {
    close,
    send(message) {
      if (channel.readyState === "open") channel.send(JSON.stringify(message));
    },
    // Network there and back and the browser's own buffer, in milliseconds.
    async delay() {
      let network = 0;
      let buffer = 0;
      for (const report of (await peer.getStats()).values()) {
        if (report.type === "candidate-pair" && report.nominated) network = 1000 * (report.currentRoundTripTime ?? 0);
        if (report.type === "inbound-rtp" && report.kind === "video" && report.jitterBufferEmittedCount) {
          const now = { delay: report.jitterBufferDelay, count: report.jitterBufferEmittedCount };
          if (now.count > before.count) buffer = (1000 * (now.delay - before.delay)) / (now.count - before.count);
          before = now;
        }
      }
      return network + buffer;
    },
  };
}

function gathered(peer) {
  return new Promise((resolve) => {
    const check = () => peer.iceGatheringState === "complete" && resolve();
    peer.addEventListener("icegatheringstatechange", check);
    setTimeout(resolve, GATHER_MS);
    check();
  });
}

function connected(peer, deadline) {
  return new Promise((resolve, reject) => {
    const check = () => {
      if (peer.connectionState === "connected") resolve();
      else if (peer.connectionState === "failed") reject(noPath());
    };
    deadline.addEventListener("abort", () => reject(noPath()));
    peer.addEventListener("connectionstatechange", check);
    check();
  });
}

const noPath = () => new Refusal("no-path", "This browser and the kiosk found no direct way to each other.");
