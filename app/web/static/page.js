// The control page: what is shown follows the server, what is done is asked of it.
import { nested, request } from "./api.js";
import { followBeats, wireBeats } from "./beats.js";
import { Figures } from "./figures.js";
import { StyleImages } from "./images.js";
import { Steering } from "./steering.js";
import { wireHotkeys } from "./hotkeys.js";
import { followKeyframe, wireKeyframe } from "./keyframe.js";
import { addControls, explain, showIn, valueOf } from "./keys.js";
import { Live } from "./live.js";
import { followMidi, wireMidi } from "./midi.js";
import { notice, quiet, withdraw } from "./notice.js";
import { listPresets, presets, wirePresets } from "./presets.js";
import { Preview } from "./preview.js";
import { Prompt } from "./prompt.js";
import { RunForm } from "./run.js";
import { wireTips } from "./tips.js";
import { Sources } from "./sources.js";
import { Streams } from "./streams.js";

const $ = (id) => document.getElementById(id);
const STATES = {
  stopped: "Stopped", starting: "Starting", running: "Running", paused: "Paused", ended: "Ended", failed: "Failed",
};

const STANDS = {
  stopped: "Stopped: the last picture", starting: "Starting", paused: "Paused", ended: "Ended: the last picture",
  failed: "Failed: the last picture", gone: "No connection to the server",
};

const wired = new WeakSet(); // controls that are listened to
const GAP_PX = 4; // between the pictures of a side-by-side view, as the server draws it

let settings = null;
let shown = null; // the settings with the cue on top that is seen
let state = "";
let failure = null;
let told = 0; // lines of the log
let held = null; // the slider under a finger: what the server says must not pull it away

const figures = new Figures();
const preview = new Preview($("video"), $("image"));
const prompt = new Prompt((text) => change({ prompt: text }));
const run = new RunForm((keys) => (busy() ? tried(() => request("POST", "/api/restart", keys)) : change(keys)));

const sources = new Sources(tried, (source) => run.take(source));
const steering = new Steering(wire);
const images = new StyleImages(wire, (method, path, body) => tried(() => request(method, path, body)));
const streams = new Streams((method, path, body) => tried(() => request(method, path, body)));

const busy = () => ["running", "paused", "starting"].includes(state);

/** Do it; what was refused is shown, with the offer to restart where that would do. */
async function tried(action, restart) {
  try {
    const answer = await action();
    quiet();
    return answer;
  } catch (error) {
    notice(error.message, error.restart && restart ? restart : null);
    if (settings) follow(settings, shown); // the controls go back to what holds
    return undefined;
  }
}

/** Ask, of the page's own accord: what could not be told is shown, and what is shown already stays. */
async function asked(path) {
  try {
    return await request("GET", path);
  } catch (error) {
    notice(error.message, null);
    return undefined;
  }
}

/** Over as many seconds as the page is set to. */
function change(keys) {
  const over = Number($("over").value);
  return tried(
    () => request("PATCH", "/api/settings", over && busy() ? { ...keys, over_s: over } : keys),
    () => tried(() => request("POST", "/api/restart", keys)),
  );
}

// ---- what the server says

/** now: the settings;  seen: with the cue on top that is seen, which the controls show and change */
function follow(now, seen) {
  const bundle = settings?.bundle;
  [settings, shown] = [now, seen];
  steering.follow(seen.controls);
  images.follow(seen.images);
  for (const control of document.querySelectorAll("[data-key]")) {
    if (control === held) continue;
    showIn(control, seen);
    tell(control);
  }
  $("mask").hidden = seen.mask.kind === "off";
  followKeyframe(now);
  followBeats(now);
  followMidi(now);
  prompt.follow(seen.prompt);
  run.follow(now);
  if (bundle !== now.bundle) bundled();
}

async function bundled() {
  const bundle = await asked("/api/bundle");
  if (!bundle) return;
  if (bundle.error) notice(bundle.error, null);
  prompt.bundle(bundle);
  images.bundle(bundle.images);
  if (settings) follow(settings, shown); // what has just been drawn
  run.bundles(bundle.known);
}

function stats(now) {
  if (now.state !== state) entered(now.state);
  figures.show(now);
  viewable(now.views);
  streams.follow(now.streams, now.stream, ["running", "paused"].includes(now.state));
  $("facts").replaceChildren(...facts(now).map((text) => Object.assign(document.createElement("span"), { textContent: text })));
  const recording = Boolean(now.recording);
  if ($("record").getAttribute("aria-pressed") !== String(recording)) {
    $("record").setAttribute("aria-pressed", String(recording));
    $("record").querySelector("span").textContent = recording ? "Stop recording" : "Record";
  }
  if (now.error !== failure) {
    failure = now.error;
    if (failure) notice(failure, null);
    else quiet();
  }
  if (now.lines !== told) {
    told = now.lines;
    refreshLog();
  }
  if (now.size) shape(settings?.output ?? now.size);
}

function entered(next) {
  state = next;
  if (!busy()) withdraw();
  said(STATES[next] ?? next, next);
  const focused = document.activeElement;
  $("start").hidden = busy();
  $("start").disabled = false;
  $("pause").hidden = !["running", "paused"].includes(next);
  $("stop").hidden = !busy();
  $("record").disabled = !["running", "paused"].includes(next);
  $("pause").setAttribute("aria-pressed", String(next === "paused"));
  $("pause").querySelector("span").textContent = next === "paused" ? "Resume" : "Pause";
  run.running(busy());
  $("blank").textContent = busy() ? "Waiting for the first picture" : "No picture yet: press Start";
  // A button that goes takes the focus with it; the one in its place gets it.
  if (focused?.hidden) (busy() ? $("stop") : $("start")).focus();
}

/** What the page is of: in the bar, in the title, and over a picture that is not live. */
function said(text, kind) {
  $("state").textContent = text;
  $("state").dataset.state = kind;
  document.title = kind === "running" ? "warpfuse" : `${text} - warpfuse`;
  const stands = STANDS[kind] ?? "";
  $("screen").toggleAttribute("data-stands", Boolean(stands));
  $("stands").textContent = stands;
  covered();
}

/** Over a picture that stands; where there is none the blank says as much. */
function covered() {
  $("stands").hidden = !$("stands").textContent || !$("blank").hidden;
}

/** Of a run in several processes the page has the styled pictures alone. */
function viewable(views) {
  if (!views) return;
  for (const radio of document.querySelectorAll("[name=view], [name=overlay]")) {
    radio.disabled = radio.name === "view" ? !views.includes(radio.value) : views.length === 1 && radio.value !== "none";
    if (radio.disabled && radio.checked) {
      document.querySelector(`[name=${radio.name}]`).checked = true;
      looked();
    }
  }
}

/** The screen has the shape of the picture, so that it is not framed in black where there is room. */
function shape([width, height]) {
  const side = document.querySelector("[name=view]:checked").value === "side";
  $("screen").style.aspectRatio = `${side ? 2 * width + GAP_PX : width} / ${height}`;
}

function facts(now) {
  if (!now.size) return [];
  const run = [`${now.size[0]} × ${now.size[1]}`, `${now.backend} on ${now.device}`, `${now.bundle}, ${now.precision}`];
  return now.cue ? [...run, cue(now.cue)] : run;
}

function cue({ number, of, name, by_hand: byHand }) {
  const keys = byHand.map((path) => path.split(".").at(-1)).join(", ");
  return `cue ${number} of ${of}: ${name}${keys && `; by hand: ${keys}`}`;
}

async function refreshLog() {
  const now = await request("GET", "/api/stats").catch(() => null);
  if (!now) return;
  $("log").replaceChildren(...now.log.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
}

// ---- what is asked of it

function tell(control) {
  const output = document.querySelector(`output[for="${control.id}"]`);
  if (output) output.value = control.step < 0.1 ? Number(control.value).toFixed(2) : control.value;
}

/** At most one request under way; the last value wins. */
function throttled(send) {
  let waiting = null;
  let sending = false;
  return async (value) => {
    waiting = value;
    if (sending) return;
    sending = true;
    while (waiting !== null) {
      const next = waiting;
      waiting = null;
      await send(next);
    }
    sending = false;
  };
}

/** A slider is followed while it moves; what is typed is taken when it is whole. */
function wire(control) {
  if (wired.has(control)) return;
  wired.add(control);
  const send = throttled(({ value }) => change(nested(control.dataset.key, value)));
  const typed = ["text", "number"].includes(control.type);
  control.addEventListener("input", () => {
    held = control;
    tell(control);
    if (!typed) send({ value: valueOf(control) });
  });
  control.addEventListener("change", () => {
    held = null;
    if (typed) send({ value: valueOf(control) });
  });
  control.addEventListener("blur", () => { if (held === control) held = null; });
}

$("over").addEventListener("input", () => tell($("over")));

document.querySelectorAll("[data-key]").forEach(wire);
request("GET", "/api/keys").then(({ live, controls, run: built }) => {
  addControls($("more"), live);
  steering.kinds(controls);
  explain(live, built);
  document.querySelectorAll("[data-key]").forEach(wire);
  if (settings) follow(settings, shown);
}, (error) => notice(error.message, null));

const post = (path, body) => tried(() => request("POST", path, body));
/** What the answer says holds at once: the next press means the next thing. */
const steer = (path, body) => post(path, body).then((now) => now && stats(now));
$("start").addEventListener("click", () => {
  $("start").disabled = true;
  steer("/api/start", run.keys()).then(() => { $("start").disabled = false; });
});
$("stop").addEventListener("click", () => steer("/api/stop"));
$("pause").addEventListener("click", () => steer(state === "paused" ? "/api/resume" : "/api/pause"));
$("record").addEventListener("click", async () => {
  const on = $("record").getAttribute("aria-pressed") !== "true";
  const answer = await post("/api/record", { on });
  if (answer?.file) notice(`recording to ${answer.file}`, null, "said");
  refreshLog();
});

function looked() {
  const look = {
    view: document.querySelector("[name=view]:checked").value,
    overlay: document.querySelector("[name=overlay]:checked").value,
  };
  preview.look(look);
  $("legend").textContent = document.querySelector("[name=overlay]:checked").parentElement.title;
  $("names").hidden = look.view !== "side";
  $("snapshot").href = `/api/snapshot.png?${new URLSearchParams(look)}`;
}

document.querySelectorAll("[name=view], [name=overlay]").forEach((radio) => radio.addEventListener("change", looked));
$("transport").addEventListener("change", () => preview.connect($("transport").value));
function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("screen").requestFullscreen();
}

$("full").addEventListener("click", fullScreen);
$("snapshot").addEventListener("keydown", (event) => {
  if (event.key === " ") { // it looks like a button
    event.preventDefault();
    $("snapshot").click();
  }
});
preview.addEventListener("change", () => {
  $("via").textContent = preview.by ? `via ${preview.by}` : "connecting";
});
const pictured = () => {
  $("blank").hidden = true;
  covered();
};
$("video").addEventListener("loadeddata", pictured);
$("image").addEventListener("load", pictured);

wireHotkeys({
  f: fullScreen,
  r: () => $("record").click(),
  t: () => $("tap").click(),
  " ": () => (["running", "paused"].includes(state) ? $("pause") : $("start")).click(),
}, (number) => presets()[number - 1]?.());

wireTips($("tip"));
wireKeyframe(tried);
wireBeats(tried, change);
wireMidi(tried, change);
wirePresets(tried, asked);
new Live({
  opened: () => {
    preview.connect($("transport").value);
    listPresets();
    sources.list();
  },
  closed: () => {
    preview.freeze();
    state = "";
    said("No connection", "gone");
  },
  stats,
  settings: (message) => follow(message.settings, message.shown),
});
looked();
