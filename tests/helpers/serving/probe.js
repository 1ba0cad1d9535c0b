// Runs in the page: what each shown frame looks like around the mouth, beside what is heard at that moment.
window.probe = () => {
  const video = document.getElementById("video");
  const portrait = document.getElementById("portrait");
  const canvas = new OffscreenCanvas(64, 64);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const mouth = (image) => {
    context.drawImage(image, 0, 0, 64, 64);
    return context.getImageData(20, 38, 24, 16).data.slice();
  };
  const difference = (a, b) => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length;

  const audio = new AudioContext();
  const meter = audio.createAnalyser();
  meter.fftSize = 2048;
  audio.createMediaStreamSource(video.srcObject).connect(meter);
  const wave = new Float32Array(1920);

  const rest = mouth(portrait);
  let before = rest;
  window.seen = [];
  const look = (now, { presentedFrames }) => {
    const pixels = mouth(video);
    meter.getFloatTimeDomainData(wave);
    const loudness = Math.sqrt(wave.reduce((sum, value) => sum + value * value, 0) / wave.length);
    window.seen.push([now, loudness, difference(pixels, rest), difference(pixels, before), presentedFrames]);
    before = pixels;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  return audio.resume();
};

window.peers = [];
const Original = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Original {
  constructor(...options) {
    super(...options);
    window.peers.push(this);
  }
};

// Milliseconds by which the picture is shown before its sound, as the browser itself estimates.
window.offset = async () => {
  const times = {};
  for (const report of (await window.peers.at(-1).getStats()).values()) {
    if (report.type === "inbound-rtp") times[report.kind] = report.estimatedPlayoutTimestamp;
  }
  return times.video && times.audio ? times.video - times.audio : null;
};
