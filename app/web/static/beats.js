// The tempo, by number or by tapping it, and the looks that follow one another in time with it.
import { lines, request } from "./api.js";

const $ = (id) => document.getElementById(id);

/** tried(action): does it and shows what was refused;  change(keys): asks for these settings */
export function wireBeats(tried, change) {
  // By the page's own clock: what the way to the server takes must not be heard in the tempo.
  $("tap").addEventListener("click", (event) => {
    tried(() => request("POST", "/api/tap", { at_ms: event.timeStamp }));
  });
  $("cues").addEventListener("change", () => change({ schedule: { cues: lines($("cues").value) } }));
}

/** One look a line; cues that are more than the name of a look are a file's to write. */
export function followBeats({ schedule: { cues } }) {
  const named = cues.every((cue) => typeof cue === "string");
  $("cues").disabled = !named;
  if (document.activeElement === $("cues")) return;
  $("cues").value = cues.map((cue) => (typeof cue === "string" ? cue : JSON.stringify(cue))).join("\n");
  $("cues").rows = Math.max(1, cues.length);
}
