// The page: asks the server for one thing at a time and shows what it answers.

import { Keyboard, keyName } from "./keyboard.js";
import { short, strip } from "./plots.js";

const $ = (id) => document.getElementById(id);
const state = {
  socket: null, busy: false, queue: [], playing: false, lastStep: 0, welcome: null, settings: {}, knobs: {}, real: false,
  cursor: 0, first: 0, last: 0, frame: null, series: [], panels: [], arrivals: [], sent: 0, trip: 0, keyboard: null,
};

// ---- the wire: one request at a time; `settings` is followed by a frame, everything else ends a request

function ask(message) {
  if (message.type === "rewind") state.queue = state.queue.filter((m) => m.type !== "rewind");
  state.queue.push(message);
  flush();
}

function flush() {
  if (state.busy || !state.queue.length || state.socket?.readyState !== WebSocket.OPEN) return;
  state.busy = true;
  state.sent = performance.now();
  state.socket.send(JSON.stringify(state.queue.shift()));
}

function answered() {
  state.trip = performance.now() - state.sent;
  state.busy = false;
  flush();
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/play`);
  socket.binaryType = "arraybuffer";
  state.socket = socket;
  socket.onopen = () => {
    state.busy = true;
    const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
    socket.send(JSON.stringify({ type: "hello", token }));
  };
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : unpack(data));
  socket.onclose = ({ reason }) => {
    pause();
    status(reason || "the connection was closed", "bad");
    const why = state.refusal ?? (reason ? `Closed: ${reason}.` : "The connection was closed.");
    notice(`${why} Reload the page to connect again.`);
  };
}

function hear(message) {
  if (message.type === "welcome") return welcome(message);
  if (message.type === "settings") return settings(message);
  if (message.type === "suggestions") suggestions(message.places);
  if (message.type === "error") {
    pause();
    notice(message.text);
    if (state.welcome) settings({ settings: state.settings, real: state.real });
    else state.refusal = `${message.text}.`; // the server closes now
    filming("");
  }
  answered();
}

function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  if (head.type === "film") save(head, buffer.slice(4 + length));
  else show(head, buffer, 4 + length);
  answered();
}

// ---- what is shown

function welcome(message) {
  state.welcome = message;
  state.keyboard = new Keyboard(message.keys, $("keys"), gameKey);
  const names = message.runs.map((run) => `${run.name} (${run.system})`).join(" and ");
  $("about").textContent = $("about").title = `${names} \u00b7 ${message.game}`;
  document.title = `${message.runs[0].name} \u00b7 oneiro play`;
  state.panels = message.runs.map((run, i) => panel(run.draws ? `dream: ${run.name}` : `feature: ${run.name}`, i ? "second" : ""));
  state.realPanel = panel("real game, own start", "real");
  state.realPanel.figure.hidden = true;
  for (const button of $("films").children) button.hidden = !message.films.includes(button.dataset.kind);
  $("real-row").hidden = !message.has_real;
  $("view-row").hidden = !message.runs.some((run) => run.draws);
  $("horizon").max = message.max_horizon;
  $("film-about").textContent = `The frames up to here, at the speed above; at most the last ${message.film_frames}.`;
  if (message.starts !== "replay") $("episode").labels[0].firstChild.textContent = "seed ";
  $("waits").checked = message.keys.idle === null;
  const combos = message.keys.bindings.filter((b) => b.keys.length > 1);
  $("legend").textContent = combos.map((b) => `${b.keys.map(keyName).join(" + ")}: ${b.label}`).join(" \u00b7 ");
  const knobs = [{ name: "temperature", about: "of the dream; 0 is the likeliest", value: 1, low: 0, high: 3 }, ...message.knobs];
  for (const knob of knobs) $("knobs").append(slider(knob));
  if (!message.runs.some((run) => run.draws)) notice("This world cannot draw: you see the numbers it knows, one square each.");
  settings(message);
  status("connected", "good");
}

function panel(title, kind) {
  const figure = document.createElement("figure");
  figure.className = `panel ${kind}`;
  const caption = document.createElement("figcaption"), canvas = document.createElement("canvas");
  const rail = document.createElement("div"), bar = document.createElement("i"), facts = document.createElement("div");
  caption.textContent = title;
  rail.className = "rail";
  facts.className = "facts";
  rail.append(bar);
  figure.append(caption, canvas, ...(kind === "real" ? [] : [rail]), facts);
  $("panels").append(figure);
  return { figure, canvas, bar, facts };
}

function slider(knob) {
  const label = document.createElement("label"), name = document.createElement("span");
  const input = document.createElement("input"), output = document.createElement("output");
  label.className = "row";
  label.title = knob.about;
  name.textContent = knob.name.replaceAll("_", " ");
  Object.assign(input, { type: "range", min: knob.low, max: knob.high, step: knob.is_whole ? 1 : 0.05, value: knob.value });
  input.id = `knob-${knob.name}`;
  output.textContent = knob.value;
  input.addEventListener("input", () => (output.textContent = Number(input.value)));
  input.addEventListener("change", () => {
    const value = Number(input.value);
    if (knob.name === "temperature") return set({ temperature: value });
    state.knobs = { ...state.knobs, [knob.name]: value };
    set({ knobs: state.knobs });
  });
  label.append(name, input, output);
  return label;
}

function settings(message) {
  state.settings = message.settings;
  if (!state.queue.length) state.knobs = message.settings.knobs; // else sliders were moved since
  state.real = message.real;
  for (const name of ["past_ends", "new_luck", "explore"]) $(name).checked = message.settings[name];
  $("feature").checked = message.settings.view === "feature";
  $("real").checked = message.real;
  $("horizon").value = message.settings.horizon;
  $("agent").setAttribute("aria-pressed", message.settings.agent);
  const values = { temperature: message.settings.temperature, ...message.settings.knobs };
  for (const [name, value] of Object.entries(values)) {
    const input = $(`knob-${name}`);
    input.value = value;
    input.nextSibling.textContent = value;
  }
}

// Unpacking a PNG takes a moment: what is ready after a later picture of the same canvas was drawn comes too late.
async function paint(canvas, shown, buffer, at) {
  const number = (canvas.asked = (canvas.asked ?? 0) + 1);
  const bytes = new Uint8Array(buffer, at, shown.bytes);
  const bitmap = shown.form === "png" ? await createImageBitmap(new Blob([bytes], { type: "image/png" })) : null;
  if (number < (canvas.drawn ?? 0)) return;
  canvas.drawn = number;
  if (canvas.width !== shown.width) canvas.width = shown.width;
  if (canvas.height !== shown.height) canvas.height = shown.height;
  const pen = canvas.getContext("2d");
  if (bitmap) return pen.drawImage(bitmap, 0, 0);
  const image = pen.createImageData(shown.width, shown.height);
  for (let i = 0, j = 0; i < bytes.length; i += 3, j += 4) {
    image.data[j] = bytes[i];
    image.data[j + 1] = bytes[i + 1];
    image.data[j + 2] = bytes[i + 2];
    image.data[j + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
}

// Facts below a picture: none of them is broken into two lines.
function tell(place, facts) {
  place.replaceChildren(...facts.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
}

function show(frame, buffer, at) {
  state.frame = frame;
  Object.assign(state, { cursor: frame.number, first: frame.first, last: frame.last });
  if (frame.number === 0 && frame.last === 0) state.series = frame.lanes.map(() => ({ reward: [], cont: [], value: [] }));
  frame.lanes.forEach((lane, i) => {
    const { canvas, figure, bar, facts } = state.panels[i], series = state.series[i];
    paint(canvas, lane, buffer, at);
    at += lane.bytes;
    for (const name of ["reward", "cont", "value"]) {
      series[name].length = Math.min(series[name].length, frame.last + 1);
      series[name][frame.number] = frame.number === 0 && name === "reward" ? 0 : lane[name] ?? NaN;
    }
    figure.classList.toggle("over", lane.ended && !state.settings.past_ends);
    bar.style.width = `${100 * Math.min(Math.max(lane.cont, 0), 1)}%`;
    const value = lane.value === null ? [] : [`value ${short(lane.value)}`];
    const numbers = [`reward ${short(lane.reward)}`, `goes on ${lane.cont.toFixed(3)}`, ...value];
    tell(facts, lane.ended && !state.settings.past_ends ? ["the dream ended here"] : numbers);
  });
  $("value-plot").hidden = frame.lanes.every((lane) => lane.value === null);
  const { figure, canvas, facts } = state.realPanel, real = frame.real;
  figure.hidden = !real;
  if (real) {
    paint(canvas, real, buffer, at);
    figure.classList.toggle("over", real.over);
    const over = real.over ? ["over"] : [];
    tell(facts, [...over, `reward ${short(real.reward)}`, `score ${short(real.score)}`, `${real.steps} steps`]);
  }
  $("frame").min = frame.first;
  $("frame").max = frame.last;
  $("frame").value = frame.number;
  const who = frame.action ? ` \u00b7 ${frame.by_agent ? "agent: " : ""}${state.keyboard.label(frame.action)}` : "";
  $("where").textContent = `frame ${frame.number} of ${frame.last}${who}`;
  $("kept").textContent = frame.first ? `kept from ${frame.first}` : "";
  const source = state.welcome.starts === "replay" ? "Began in stored episode" : "Began in the real game, seed";
  $("place").textContent = `${source} ${frame.place[0]}, row ${frame.place[1]}.`;
  if (document.activeElement?.form !== $("place-form")) [$("episode").value, $("row").value] = frame.place;
  if (frame.lanes.every((lane) => lane.ended) && !state.settings.past_ends) {
    pause();
    notice("The dream ended. New dream, rewind, or let it go on past its end.");
  } else if (frame.ms !== null) notice("");
  if (frame.ms !== null) state.arrivals.push(performance.now());
  else state.keyboard.forget(); // somewhere else, or other settings
  plots();
}

function plots() {
  const of = (name) => state.series.map((series) => series[name]);
  strip($("plot-reward"), of("reward"), state.cursor, { bars: true });
  strip($("plot-cont"), of("cont"), state.cursor, { low: 0, high: 1 });
  if (!$("value-plot").hidden) strip($("plot-value"), of("value"), state.cursor);
  const now = performance.now();
  state.arrivals = state.arrivals.filter((t) => now - t < 2000);
  const rate = state.arrivals.length > 1 ? ((state.arrivals.length - 1) * 1000) / (state.arrivals.at(-1) - state.arrivals[0]) : 0;
  if (state.frame?.ms != null) {
    const worlds = state.frame.lanes.map((lane) => `${lane.ms.toFixed(1)} ms`).join(" and ");
    $("speed").textContent = `${rate.toFixed(1)} frames/s \u00b7 world ${worlds} \u00b7 server ${state.frame.ms.toFixed(1)} ms \u00b7 there and back ${state.trip.toFixed(1)} ms`;
  }
}

function suggestions(places) {
  $("places").replaceChildren(...places.map(({ episode, row, png }) => {
    const button = document.createElement("button"), image = document.createElement("img");
    button.type = "button";
    button.title = `episode ${episode}, row ${row}`;
    image.alt = button.title;
    image.src = `data:image/png;base64,${png}`;
    button.append(image);
    button.addEventListener("click", () => begin({ episode, row }));
    return button;
  }));
}

function save(head, bytes) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes]));
  link.download = `dream.${head.kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  const size = bytes.byteLength < 1e6 ? `${Math.ceil(bytes.byteLength / 1e3)} kB` : `${(bytes.byteLength / 1e6).toFixed(1)} MB`;
  filming(`${link.download}: the frames ${head.first} to ${head.last}, ${size}.`);
}

function filming(text, isBusy = false) {
  $("film-told").textContent = text;
  for (const button of $("films").children) button.disabled = isBusy;
}

function status(text, kind) {
  $("status").textContent = text;
  $("status").className = kind;
}

function notice(text) {
  $("notice").textContent = text;
  if (text) $("notice").scrollIntoView({ block: "nearest" }); // what was typed may be far below it on a phone
}

// ---- what the player does

function set(changes) {
  ask({ type: "set", ...changes });
}

// What was typed, as the nearest whole number that the field allows: the server takes no other.
function whole(id) {
  const { value, min, max } = $(id);
  return Math.min(Math.max(Math.round(Number(value)), Number(min)), Number(max) || Number.MAX_SAFE_INTEGER);
}

function begin(place = {}) {
  notice("");
  $("panels").scrollIntoView({ block: "nearest" });
  ask({ type: "start", ...place });
}

function stepOnce() {
  if (!state.welcome) return;
  const action = state.settings.agent ? null : state.keyboard.action();
  if (!state.settings.agent && action === null) return notice("This game has no action of doing nothing: hold a key.");
  ask(action === null ? { type: "step" } : { type: "step", action });
}

function play() {
  state.playing = true;
  $("play").firstChild.textContent = "pause ";
}

function pause() {
  state.playing = false;
  $("play").firstChild.textContent = "play ";
}

// A tap counts for the step that it asks for or, while the dream goes on, for the next one; otherwise for none.
function gameKey() {
  const waits = $("waits").checked, isIdle = waits ? state.busy : !state.playing && state.cursor > 0;
  if (state.settings.agent || isIdle) return state.keyboard.forget();
  if (!waits) return play();
  pause();
  stepOnce();
}

function tick(now) {
  requestAnimationFrame(tick);
  const wait = 1000 / Number($("fps").value);
  if (!state.playing || state.busy || now - state.lastStep < wait - 3) return;
  if (!state.settings.agent && $("waits").checked && !state.keyboard.held.size) return;
  state.lastStep = Math.max(state.lastStep + wait, now - wait);
  stepOnce();
}

const PAGE_KEYS = {
  KeyP: () => (state.playing ? pause() : play()),
  Comma: () => back(),
  Period: () => { pause(); stepOnce(); },
  KeyR: () => begin(),
  KeyG: () => set({ agent: !state.settings.agent }),
};

function back() {
  pause();
  if (state.cursor > state.first) ask({ type: "rewind", frame: state.cursor - 1 });
}

window.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement && event.target.type === "number";
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !state.keyboard) return;
  if (state.keyboard.knows(event.code)) {
    event.preventDefault();
    if (event.repeat) return;
    state.keyboard.down(event.code);
    gameKey();
  } else if (event.code in PAGE_KEYS && !event.repeat) PAGE_KEYS[event.code]();
});
window.addEventListener("keyup", (event) => state.keyboard?.up(event.code));
$("play").addEventListener("click", PAGE_KEYS.KeyP);
$("back").addEventListener("click", back);
$("step").addEventListener("click", PAGE_KEYS.Period);
$("again").addEventListener("click", () => begin());
$("agent").addEventListener("click", PAGE_KEYS.KeyG);
$("frame").addEventListener("input", () => { pause(); ask({ type: "rewind", frame: Number($("frame").value) }); });
$("fps").addEventListener("input", () => ($("fps-shown").textContent = $("fps").value));
$("horizon").addEventListener("change", () => {
  $("horizon").value = whole("horizon");
  set({ horizon: whole("horizon") });
});
for (const name of ["past_ends", "new_luck", "explore", "real"]) $(name).addEventListener("change", () => set({ [name]: $(name).checked }));
$("feature").addEventListener("change", () => set({ view: $("feature").checked ? "feature" : "image" }));
$("suggest").addEventListener("click", () => ask({ type: "suggest" }));
$("place-form").addEventListener("submit", (event) => {
  event.preventDefault();
  begin({ episode: whole("episode"), row: whole("row") });
  document.activeElement.blur(); // the keys are the game's again
});
$("films").addEventListener("click", ({ target }) => {
  if (!target.dataset.kind) return;
  pause();
  filming("The film is being made.", true);
  ask({ type: "record", kind: target.dataset.kind, first: state.first, last: state.cursor, fps: Number($("fps").value) });
});
$("theme").addEventListener("click", () => {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (isDark ? "dark" : "light");
  theme(now === "dark" ? "light" : "dark");
});
function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* storage may be off */ }
  plots();
}
try {
  const kept = localStorage.getItem("theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch { /* storage may be off */ }
window.addEventListener("resize", plots);
connect();
requestAnimationFrame(tick);
