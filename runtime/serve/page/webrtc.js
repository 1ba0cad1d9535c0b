// Microphone out, sound and picture in, over one peer connection.
import { Refusal, request } from "./api.js";

const CONNECT_MS = 8000;

export async function connect({ microphone, portrait, video, onStats, onEnd }) {
  // Asked for each time: passwords of TURN servers do not last.
  const { ice_servers: iceServers } = await request("/api/ice-servers");
  const peer = new RTCPeerConnection({ iceServers });
  let session = null;
  let over = false;

  const close = () => {
    over = true;
    peer.close();
    if (session) fetch(`/api/webrtc/${session}`, { method: "DELETE", keepalive: true }).catch(() => {});
  };
  const end = (reason, message) => {
    if (over) return;
    close();
    onEnd({ reason, message });
  };

  try {
    const channel = peer.createDataChannel("figures");
    channel.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "stats") onStats(message);
      else if (message.type === "end") end(message.reason, message.message);
    });
    peer.addTransceiver(microphone.track, { direction: "sendrecv" });
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
    const answer = await request("/api/webrtc", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sdp: peer.localDescription.sdp, portrait }),
    });
    session = answer.session;
    await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await connected(peer);
  } catch (error) {
    close();
    throw error;
  }

  peer.addEventListener("connectionstatechange", () => {
    if (peer.connectionState === "failed") end("connection-lost", "The connection was lost.");
  });

  let before = { delay: 0, count: 0 };
  return {
    close,
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
    setTimeout(resolve, 1500);
    check();
  });
}

function connected(peer) {
  return new Promise((resolve, reject) => {
    const failed = () => reject(new Refusal("no-path", "This browser and the kiosk found no direct way to each other."));
    const timer = setTimeout(failed, CONNECT_MS);
    const check = () => {
      if (peer.connectionState === "connected") {
        clearTimeout(timer);
        resolve();
      } else if (peer.connectionState === "failed") {
        clearTimeout(timer);
        failed();
      }
    };
    peer.addEventListener("connectionstatechange", check);
    check();
  });
}
