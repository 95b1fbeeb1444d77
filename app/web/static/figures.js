// Latency, rate, drops and stages as they are now.
import { Chart } from "./chart.js";

const $ = (id) => document.getElementById(id);
const WHY = {
  late: "newer one taken", paused: "while paused", failed: "a stage failed", restart: "lost in a restart",
};

export class Figures {
  #latency = new Chart($("latency-chart"));
  #rate = new Chart($("fps-chart"));

  show(now) {
    const runs = now.state === "running";
    const shows = runs && now.fps > 0;
    $("latency").value = shows ? Math.round(now.latency_ms.p50) : "–";
    $("late").value = shows ? Math.round(now.latency_ms.p95) : "–";
    $("fps").value = shows ? now.fps.toFixed(1) : "–";
    if (shows) {
      const seconds = performance.now() / 1000;
      this.#latency.add(seconds, now.latency_ms.p50, now.latency_ms.p95);
      this.#rate.add(seconds, now.fps);
    }
    if (now.frames || now.state === "starting") this.#totals(now);
  }

  /** What has come together since the start; it stays when the run is over. */
  #totals(now) {
    $("counts").value = now.frames ? `${now.frames.out.toLocaleString("en")} shown` : "";
    const drops = Object.entries(now.dropped ?? {}).map(([why, count]) => [WHY[why] ?? why, count.toLocaleString("en")]);
    rows($("drops"), [...waits(now), ...drops]);
    bars($("stages"), Object.entries(now.stages ?? {}).map(([name, stage]) => [name, stage.ms_p50]));
  }
}

/** From a control to its first picture, from the start to the first of all, and what was dropped. */
function waits(now) {
  const [control, late] = ["p50", "p95"].map((at) => (now.control_ms?.count ? `${Math.round(now.control_ms[at])} ms` : "–"));
  const first = now.first_picture_s == null ? "–" : `${now.first_picture_s.toFixed(1)} s`;
  const share = `${(100 * (now.dropped_share ?? 0)).toFixed(1)} %`;
  return [["control seen", control], ["p95", late], ["first picture", first], ["dropped", share]];
}

function rows(list, pairs) {
  const told = JSON.stringify(pairs);
  if (list.dataset.told === told) return;
  list.dataset.told = told;
  list.replaceChildren(...pairs.flatMap(([name, value]) => [made("dt", name), made("dd", value)]));
}

/** The five longest, in the order of the graph, with a bar each. */
function bars(list, pairs) {
  const longest = pairs.toSorted((a, b) => b[1] - a[1]).slice(0, 5);
  const most = longest[0]?.[1] || 1;
  rows(list, pairs.filter((pair) => longest.includes(pair)).map(([name, ms]) => [name, ms.toFixed(1)]));
  [...list.querySelectorAll("dd")].forEach((cell) => {
    cell.style.setProperty("--share", `${(100 * Number(cell.textContent)) / most}%`);
  });
}

function made(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}
