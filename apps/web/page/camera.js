"use strict";
// This browser as camera and microphone: asked for, offered to the run, and watched over. What the
// run makes of them comes back as it does to every viewer (page.js); a voice comes as a track.

const WANTED = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30, max: 30 } };
// The echo of the voice that comes back must go; what else browsers filter would harm other voices.
const SOUND = { echoCancellation: true, noiseSuppression: false, autoGainControl: false };
const GATHERING_MS = 3000; // for this browser's own addresses
const AGAIN_MS = 3000;
const sound = $("camera").dataset.sound === "yes";
const me = [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(36)).join("");
const TROUBLE = { // by name of the error
  NotAllowedError: "The browser does not let this page use them: allow it beside the address",
  NotReadableError: "Another program is using them",
  AbortError: "Another program is using them",
  OverconstrainedError: "The camera that was chosen has gone",
};

let media = null, link = null, wanted = false, turn = 0;

function tell(text) {
  if ($("camera-says").textContent !== text) $("camera-says").textContent = text;
}

async function ask() {
  if (!navigator.mediaDevices || !window.RTCPeerConnection) {
    throw new Error(isSecureContext ? "This browser has no way to lend a camera."
      : "Browsers give a camera to pages of https or of localhost alone. Start the run with "
        + "--certificate and --key, and open its https address.");
  }
  const chosen = $("device").value;
  const video = { ...WANTED, ...(chosen ? { deviceId: { exact: chosen } } : {}) };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: sound && SOUND });
  } catch (error) {
    const there = await navigator.mediaDevices.enumerateDevices().catch(() => []);
    const lacking = [["videoinput", "camera"], ...(sound ? [["audioinput", "microphone"]] : [])]
      .filter(([kind]) => !there.some((device) => device.kind === kind)).map(([, name]) => name);
    if (lacking.length) throw new Error(`This device has no ${lacking.join(" and no ")}.`);
    throw new Error(`${TROUBLE[error.name] || error.message || error.name}.`);
  }
}

async function start() {
  wanted = true;
  const mine = ++turn;
  $("start").setAttribute("aria-pressed", "true");
  $("start").textContent = "Stop camera";
  tell(sound ? "Asking for camera and microphone." : "Asking for the camera.");
  try {
    const given = await ask();
    if (mine !== turn) return given.getTracks().forEach((track) => track.stop());
    media = given;
    for (const track of media.getTracks()) {
      track.onended = () => mine === turn && stop(`The ${track.kind === "video" ? "camera"
        : "microphone"} has gone.`);
    }
  } catch (error) {
    if (mine === turn) stop(error.message);
    return;
  }
  await list();
  if (navigator.wakeLock) navigator.wakeLock.request("screen").catch(() => {});
  while (mine === turn) {
    const wait = await connect(mine).catch((error) => {
      if (!(error instanceof TypeError)) console.error(error);
      return "The run does not answer. Trying again.";
    });
    if (mine !== turn) return;
    tell(wait);
    await sleep(AGAIN_MS);
  }
}

function stop(text = "The camera is off.") {
  wanted = false;
  turn++;
  if (link) link.close();
  if (media) for (const track of media.getTracks()) track.stop();
  link = media = null;
  $("voice").srcObject = null;
  $("start").setAttribute("aria-pressed", "false");
  $("start").textContent = "Start camera";
  tell(text);
}

async function list() {
  const cameras = (await navigator.mediaDevices.enumerateDevices())
    .filter((device) => device.kind === "videoinput");
  const now = media && media.getVideoTracks()[0].getSettings().deviceId;
  $("device").replaceChildren(...cameras.map(({ deviceId, label }, k) =>
    new Option(label || `camera ${k + 1}`, deviceId, false, deviceId === now)));
  $("device-field").hidden = cameras.length < 2;
}

// Offer what the browser gave, and return, when it is over, what to say before it is tried again.
async function connect(mine) {
  tell("Connecting.");
  if (link) link.close();
  const own = link = new RTCPeerConnection({ iceServers: [] });
  let reason = "The connection is gone. Trying again.";
  const over = new Promise((done) => {
    const words = own.createDataChannel("words");
    words.onmessage = ({ data }) => { reason = `Ended: ${JSON.parse(data).ended}. Trying again.`; };
    words.onclose = done;
    own.onconnectionstatechange = () => {
      if (own.connectionState === "connected") tell("The camera is on.");
      if (["failed", "closed"].includes(own.connectionState)) done();
    };
  });
  own.ontrack = ({ track }) => { $("voice").srcObject = new MediaStream([track]); };
  for (const track of media.getTracks()) {
    const sender = own.addTrack(track, media);
    if (track.kind === "video") await keepSize(sender);
  }
  await own.setLocalDescription();
  await Promise.race([sleep(GATHERING_MS), new Promise((done) => {
    own.onicegatheringstatechange = () => own.iceGatheringState === "complete" && done();
    if (own.iceGatheringState === "complete") done();
  })]);
  if (mine !== turn) return own.close();
  const answer = await fetch(address("offer"), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ sdp: own.localDescription.sdp, camera: me }),
  });
  const isJson = (answer.headers.get("Content-Type") || "").startsWith("application/json");
  const found = isJson ? await answer.json() : {};
  if (!answer.ok) {
    own.close();
    return answer.status === 403 ? "Refused: open the address that the run shows now."
      : `${found.error || `The run answered ${answer.status}.`} Trying again.`;
  }
  await own.setRemoteDescription({ type: "answer", sdp: found.sdp });
  await over;
  own.close();
  return reason;
}

async function keepSize(sender) { // fewer pictures, not smaller ones, where the line is narrow
  const parameters = sender.getParameters();
  parameters.degradationPreference = "maintain-resolution";
  await sender.setParameters(parameters).catch(() => {}); // not every browser knows it
}

const toggleCamera = () => (wanted ? stop() : start());
KEYS.c = toggleCamera;
$("start").addEventListener("click", toggleCamera);
$("device").addEventListener("change", () => { stop("Changing."); start(); });
addEventListener("pagehide", () => link && link.close());
