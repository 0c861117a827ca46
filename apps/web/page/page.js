"use strict";
// One stream brings everything: a line of JSON, then `bytes` of JPEG, again and again. What people
// change goes back as small POST requests; what holds is what the stream says next.

const $ = (id) => document.getElementById(id);
const view = $("view"), pen = view.getContext("2d");
const SILENCE_MS = 15000; // three times the server's longest silence
const HISTORY = 180; // frames in the plot
const lends = Boolean($("camera")); // this browser's camera may be the source (camera.js)
const RIM = "#141618", EDGE = "rgb(245 245 245 / 90%)";

const state = {
  head: {}, // of the run
  values: {}, // of its controls
  message: null, // of the frame on screen
  shown: "", // state that people are told
  touched: {}, // when a control was last moved here: the server's older value must not move it back
  history: [],
};

function address(path, extra = "") {
  const query = new URLSearchParams(location.search);
  new URLSearchParams(extra).forEach((value, key) => query.set(key, value));
  return `${path}?${query}`;
}

function say(kind, text, notice = "") {
  if (state.shown === kind + text) return;
  state.shown = kind + text;
  $("status").dataset.state = kind;
  $("status").textContent = text;
  $("notice").textContent = notice;
  $("notice").hidden = !notice;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// The stream

let line = new AbortController();

async function* messages(body, alive) {
  const reader = body.getReader(), decoder = new TextDecoder();
  let have = new Uint8Array(0);
  const more = async () => {
    const { done, value } = await reader.read();
    if (done) return false;
    alive();
    const joined = new Uint8Array(have.length + value.length);
    joined.set(have);
    joined.set(value, have.length);
    have = joined;
    return true;
  };
  for (;;) {
    let end;
    while ((end = have.indexOf(10)) < 0) if (!(await more())) return;
    const message = JSON.parse(decoder.decode(have.subarray(0, end)));
    have = have.subarray(end + 1);
    while (have.length < message.bytes) if (!(await more())) return;
    yield [message, have.slice(0, message.bytes)];
    have = have.subarray(message.bytes);
  }
}

async function watch() {
  let ended = false, another = true; // perhaps another run than the one before
  for (;;) {
    let again = 1000;
    line = new AbortController();
    const mine = line;
    let timer = setTimeout(() => mine.abort(), SILENCE_MS);
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => mine.abort(), SILENCE_MS);
    };
    try {
      const drawn = $("overlay").value === "drawn" ? "drawn=1" : "";
      const answer = await fetch(address("live", drawn), { signal: mine.signal, cache: "no-store" });
      if (answer.status === 403) {
        say("lost", "Refused: open the address that the run shows now",
          "This address is not valid any more. Open the one that the run shows.");
        again = 5000;
      } else if (!answer.ok) {
        say("lost", "Too many viewers; trying again", "Too many viewers. Trying again.");
        again = 3000;
      } else {
        ended = false;
        if (another) state.message = null;
        for await (const [message, jpeg] of messages(answer.body, alive)) {
          ended = message.ended;
          take(message, jpeg);
        }
      }
      if (ended) finish();
    } catch (error) {
      if (!(error instanceof TypeError) && error.name !== "AbortError") console.error(error);
    }
    clearTimeout(timer);
    another = !mine.again;
    if (!another) continue;
    if (!ended && again === 1000) {
      say("lost", "Connection lost; trying again", "Connection lost. Trying again.");
    }
    await sleep(again);
  }
}

function reopen() {
  line.again = true;
  line.abort();
}

function finish() {
  say("ended", "The source has ended", `The source has ended. This page waits for another ${
    lends ? "camera" : "run"}.`);
  if (recorder) record();
}

function take(message, jpeg) {
  if (message.head) introduce(message.head);
  if (message.values) follow(message.values);
  if (message.bytes) show(message, jpeg);
  if (message.ended) return;
  if (state.values.paused) say("paused", "Paused for everybody");
  else if (state.message) say("live", "Live");
  else if (lends) {
    pen.clearRect(0, 0, view.width, view.height); // who has gone is not to be seen any more
    say("waiting", "Waiting for a camera", "Waiting for a camera.");
  }
  else say("waiting", "Waiting for the first frame", "Waiting for the first frame.");
}

function introduce(head) {
  if (JSON.stringify(head) === JSON.stringify(state.head)) return;
  state.head = head;
  state.touched = {};
  state.history = [];
  const title = `${head.model} - ${head.source}`;
  document.title = $("title").textContent = title;
  view.setAttribute("aria-label", `Video: ${head.source}`);
  $("screen").classList.toggle("choose", Boolean(head.choose));
  for (const key of document.querySelectorAll(".faces")) key.hidden = !head.choose;
  $("pause").hidden = !head.controls.some((c) => c.name === "paused");
  buildForm(head.controls.filter((c) => c.name !== "paused"));
}

// The picture: decoding takes a moment, in which only the newest is kept

let decoding = false, next = null;

async function show(message, jpeg) {
  next = [message, jpeg];
  if (decoding) return;
  decoding = true;
  while (next) {
    const [now, data] = next;
    next = null;
    try {
      const picture = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
      paint(now, picture);
      picture.close();
    } catch (error) {
      console.error(error);
    }
  }
  decoding = false;
}

function paint(message, picture) {
  if (view.width !== picture.width || view.height !== picture.height) {
    view.width = picture.width;
    view.height = picture.height;
  }
  pen.drawImage(picture, 0, 0);
  if (!message.drawn && $("overlay").value === "page") {
    for (const shape of message.overlay || []) drawShape(shape);
    for (const shape of message.overlay || []) drawLabel(shape);
  }
  // A run that draws nothing has nothing to switch.
  $("overlay-field").hidden = message.drawn && $("overlay").value !== "drawn";
  state.message = message;
  view.dataset.frame = message.frame;
  $("snapshot").disabled = false;
  $("record").disabled = !kindOfRecording;
  if (message.stages) note(message);
}

function drawShape(shape) {
  const side = Math.min(view.width, view.height);
  pen.lineJoin = pen.lineCap = "round";
  if (shape.rings) {
    const path = new Path2D();
    for (const ring of shape.rings) {
      for (let i = 0; i < ring.length; i += 2) path[i ? "lineTo" : "moveTo"](ring[i], ring[i + 1]);
      path.closePath();
    }
    if (shape.fill) {
      pen.globalAlpha = shape.fill;
      pen.fillStyle = shape.colour;
      pen.fill(path, "evenodd");
      pen.globalAlpha = 1;
    }
    pen.strokeStyle = shape.fill === undefined ? shape.colour : EDGE;
    pen.lineWidth = Math.max(side / 400, 1);
    pen.stroke(path);
  }
  if (shape.joints) drawJoints(shape, state.head.skeleton);
  else if (shape.box) {
    const [x0, y0, x1, y1] = shape.box;
    pen.strokeStyle = shape.colour;
    pen.lineWidth = Math.max(side / 400, 1) * (shape.strong ? 3 : 1);
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
}

function drawJoints(shape, skeleton) {
  const [x0, y0, x1, y1] = shape.box, seen = (k) => shape.joints[k][2] >= skeleton.minimum_score;
  const most = Math.max(Math.min(view.width, view.height) / 120, 1);
  const thick = Math.min(Math.max(Math.max(x1 - x0, y1 - y0) / 70, 1), most);
  const limbs = skeleton.limbs.map(([a, b], k) => [a, b, skeleton.limb_colours[k]])
    .filter(([a, b]) => seen(a) && seen(b));
  for (const rim of [true, false]) { // a dark rim keeps limbs readable on any background
    pen.lineWidth = thick + (rim ? 2 : 0);
    for (const [a, b, colour] of limbs) {
      pen.strokeStyle = rim ? RIM : colour;
      pen.beginPath();
      pen.moveTo(shape.joints[a][0], shape.joints[a][1]);
      pen.lineTo(shape.joints[b][0], shape.joints[b][1]);
      pen.stroke();
    }
  }
  shape.joints.forEach(([x, y], k) => {
    if (!seen(k)) return;
    for (const [radius, colour] of [[0.5, RIM], [0, skeleton.joint_colours[k]]]) {
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(x, y, Math.max(1.05 * thick, 1.4) + radius, 0, 2 * Math.PI);
      pen.fill();
    }
  });
}

function labelPlace(shape) { // middle and upper end of what is drawn
  const places = shape.joints
    ? shape.joints.filter((j) => j[2] >= state.head.skeleton.minimum_score) : [];
  if (places.length) {
    const sum = places.reduce((all, [x]) => all + x, 0);
    return [sum / places.length, Math.min(...places.map((j) => j[1]))];
  }
  if (shape.box) return [(shape.box[0] + shape.box[2]) / 2, shape.box[1]];
  const ring = (shape.rings || []).reduce((best, r) => (r.length > best.length ? r : best), []);
  const xs = ring.filter((_, i) => i % 2 === 0), ys = ring.filter((_, i) => i % 2);
  // Inside a region: its label belongs to it and not to what lies above.
  return [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2 + 20];
}

function isDark(colour) { // relative luminance, roughly: where white is easier to read
  const [r, g, b] = [1, 3, 5].map((i) => (parseInt(colour.slice(i, i + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.2;
}

function drawLabel(shape) {
  if (!shape.label) return;
  const size = Math.max(view.height / 46, 11), pad = size * 0.35, [middle, upper] = labelPlace(shape);
  if (!Number.isFinite(middle)) return;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const width = pen.measureText(shape.label).width;
  const left = Math.min(Math.max(middle - width / 2, pad), view.width - width - pad);
  const base = Math.min(Math.max(upper - 2.5 * pad, size + pad), view.height - pad);
  pen.fillStyle = shape.colour;
  pen.fillRect(left - pad, base - size * 0.85 - pad, width + 2 * pad, size + 1.6 * pad);
  pen.fillStyle = isDark(shape.colour) ? "#fff" : RIM;
  pen.fillText(shape.label, left, base);
}

// Facts, times and their plot, a few times a second: nobody reads faster

let due = 0;

function note(message) {
  const times = { ...message.stages };
  state.history.push([times, message.latency_ms]);
  if (state.history.length > HISTORY) state.history.shift();
  if (performance.now() < due) return;
  due = performance.now() + 250;
  const facts = Object.entries(message.facts).flatMap(([label, value]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = label;
    text.textContent = value;
    return [term, text];
  });
  $("facts").replaceChildren(...facts);
  drawPlot();
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / Math.max(values.length, 1);
const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function drawPlot() {
  const names = Object.keys(state.history[state.history.length - 1][0]);
  const recent = state.history.slice(-30);
  const rows = names.map((name, k) =>
    [name, `s${k % 6}`, mean(recent.map(([times]) => times[name] || 0))]);
  const late = recent.map(([, ms]) => ms).filter((ms) => ms !== undefined);
  if (late.length) rows.push(["capture to sending", "line", mean(late)]);
  $("times").tBodies[0].replaceChildren(...rows.map(([name, kind, ms]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    row.className = kind;
    head.scope = "row";
    head.textContent = name;
    row.append(head, document.createElement("td"));
    row.lastChild.textContent = ms.toFixed(1);
    return row;
  }));
  const plot = $("plot"), scale = devicePixelRatio || 1, brush = plot.getContext("2d");
  const width = plot.clientWidth, height = plot.clientHeight;
  plot.width = width * scale;
  plot.height = height * scale;
  brush.scale(scale, scale);
  const totals = state.history.map(([times, ms]) =>
    Math.max(names.reduce((sum, n) => sum + (times[n] || 0), 0), ms || 0)).sort((a, b) => a - b);
  const high = niceAbove(totals[Math.floor(0.97 * (totals.length - 1))] || 1);
  const x = (i) => 34 + ((width - 34) * i) / (HISTORY - 1);
  const y = (ms) => height - 4 - ((height - 12) * Math.min(ms, high)) / high;
  brush.font = "11px system-ui, sans-serif";
  brush.textAlign = "right";
  for (const ms of [0, high / 2, high]) {
    brush.strokeStyle = colourOf("--line");
    brush.fillStyle = colourOf("--faint");
    brush.beginPath();
    brush.moveTo(34, y(ms));
    brush.lineTo(width, y(ms));
    brush.stroke();
    brush.fillText(String(ms), 28, Math.min(y(ms) + 4, height - 1));
  }
  const first = HISTORY - state.history.length; // the newest is always on the right
  const under = state.history.map(() => 0);
  names.forEach((name, k) => { // each stage on top of those before
    brush.beginPath();
    under.forEach((ms, i) => brush[i ? "lineTo" : "moveTo"](x(first + i), y(ms)));
    state.history.forEach(([times], i) => { under[i] += times[name] || 0; });
    for (let i = under.length - 1; i >= 0; i--) brush.lineTo(x(first + i), y(under[i]));
    brush.fillStyle = colourOf(`--s${k % 6}`);
    brush.fill();
  });
  brush.beginPath();
  state.history.forEach(([, ms], i) => ms !== undefined && brush.lineTo(x(first + i), y(ms)));
  brush.strokeStyle = colourOf("--latency");
  brush.lineWidth = 1.5;
  brush.stroke();
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 10].map((step) => step * power).find((n) => n >= value);
}

// Controls: the form is made from what the run declares

function buildForm(controls) {
  $("controls").hidden = !controls.length;
  $("form").replaceChildren(...controls.map((control) => {
    const field = document.createElement("div"), label = document.createElement("label");
    const ranged = control.minimum !== null && control.maximum !== null;
    const input = document.createElement(control.choices.length ? "select" : "input");
    input.id = `control-${control.name}`;
    input.name = control.name;
    field.className = "field";
    label.htmlFor = input.id;
    label.textContent = control.label;
    const help = document.createElement("small");
    help.id = `${input.id}-help`;
    help.textContent = control.help;
    input.setAttribute("aria-describedby", help.id);
    const parts = [label];
    if (control.choices.length) {
      input.append(...control.choices.map((choice) => new Option(choice)));
    } else if (control.type === "bool") {
      input.type = "checkbox";
    } else {
      input.type = ranged ? "range" : "number";
      if (control.minimum !== null) input.min = control.minimum;
      if (control.maximum !== null) input.max = control.maximum;
      const whole = control.type === "int" || !ranged;
      input.step = whole ? 1 : (control.maximum - control.minimum) / 100;
      if (ranged) {
        const value = document.createElement("output");
        value.htmlFor = input.id;
        parts.push(value);
      }
    }
    input.addEventListener(ranged ? "input" : "change", () => {
      state.touched[control.name] = performance.now();
      showValue(input);
      send(control.name, read(input, control));
    });
    field.append(...parts, input, help);
    return field;
  }));
  if (controls.length) apply(true);
}

function read(input, control) {
  if (input.type === "checkbox") return input.checked;
  return control.type === "str" ? input.value : Number(input.value);
}

function showValue(input) {
  const output = input.parentNode.querySelector("output");
  if (output) output.textContent = String(Number(input.value));
}

function follow(values) {
  state.values = values;
  $("pause").setAttribute("aria-pressed", String(Boolean(values.paused)));
  apply(false);
}

function apply(all) {
  for (const input of $("form").elements) {
    const value = state.values[input.name];
    if (value === undefined || value === null) continue;
    if (!all && performance.now() - (state.touched[input.name] || -1e9) < 800) continue;
    if (input.type === "checkbox") input.checked = value;
    else if (input.value !== String(value)) input.value = value;
    showValue(input);
  }
}

function refuse(text) {
  $("refusal").textContent = text;
}

const waiting = {};
let sending = false;

async function send(name, value) {
  waiting[name] = value; // of a slider that moves, only the newest value goes out
  if (sending) return;
  sending = true;
  while (Object.keys(waiting).length) {
    const [now, given] = Object.entries(waiting)[0];
    delete waiting[now];
    try {
      const answer = await fetch(address("control"), {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ [now]: given }),
      });
      const text = answer.headers.get("Content-Type") || "";
      const found = text.startsWith("application/json") ? await answer.json() : {};
      if (!answer.ok) {
        refuse(found.error || `Not changed: the run answered ${answer.status}.`);
        delete state.touched[now];
        apply(true);
      } else {
        refuse("");
      }
    } catch {
      refuse("Not changed: the run does not answer.");
    }
  }
  sending = false;
}

// Buttons and keys

function togglePause() {
  if (!$("pause").hidden) send("paused", !state.values.paused);
}

function save(blob, ending) {
  const link = document.createElement("a");
  const time = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
  link.href = URL.createObjectURL(blob);
  link.download = `prunus-${time}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function snapshot() {
  if (state.message) view.toBlob((blob) => blob && save(blob, "png"), "image/png");
}

const kindOfRecording = typeof MediaRecorder === "undefined" || !view.captureStream ? "" :
  ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/mp4"]
    .find((kind) => MediaRecorder.isTypeSupported(kind)) || "";
let recorder = null;

function record() {
  if (!kindOfRecording || !state.message) return;
  if (recorder) {
    recorder.stop();
    recorder = null;
  } else {
    const parts = [], kind = kindOfRecording.split(";")[0];
    recorder = new MediaRecorder(view.captureStream(), { mimeType: kindOfRecording });
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => save(new Blob(parts, { type: kind }), kind.split("/")[1]);
    recorder.start(1000);
  }
  $("record").setAttribute("aria-pressed", String(Boolean(recorder)));
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if ($("stage").requestFullscreen) $("stage").requestFullscreen();
}

function nextOverlay() {
  const select = $("overlay");
  if ($("overlay-field").hidden) return;
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  reopen();
}

function choose(event) {
  const name = state.head.choose, overlay = state.message && state.message.overlay;
  if (!name || !overlay) return;
  const box = view.getBoundingClientRect();
  const scale = Math.min(box.width / view.width, box.height / view.height);
  const x = (event.clientX - box.left - (box.width - view.width * scale) / 2) / scale;
  const y = (event.clientY - box.top - (box.height - view.height * scale) / 2) / scale;
  const hit = overlay.find(({ box: [x0, y0, x1, y1] }) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
  if (hit) send(name, hit.id);
}

const KEYS = { p: togglePause, s: snapshot, r: record, f: fullScreen, o: nextOverlay };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
  if (KEYS[event.key.toLowerCase()]) KEYS[event.key.toLowerCase()]();
  else if (state.head.choose && /^[1-9]$/.test(event.key)) send(state.head.choose, Number(event.key));
});
document.addEventListener("fullscreenchange", () => {
  $("full").setAttribute("aria-pressed", String(Boolean(document.fullscreenElement)));
});
view.addEventListener("click", choose);
$("pause").addEventListener("click", togglePause);
$("snapshot").addEventListener("click", snapshot);
$("record").addEventListener("click", record);
$("full").addEventListener("click", fullScreen);
$("overlay").addEventListener("change", reopen);
$("full").hidden = !document.fullscreenEnabled;
const redraw = () => state.history.length && drawPlot();
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
if (!kindOfRecording) $("record").title = "This browser cannot record a canvas";
for (const key of document.querySelectorAll(".camera")) key.hidden = !lends;
watch();
