// A line of figures over time on a canvas, in the colours of the page.

const SPAN_S = 120;

export class Chart {
  #canvas;
  #points = []; // [seconds, low, high]
  #waiting = false;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** A figure at a time in seconds; `high` is the upper edge of a band above it. A gap in time is one in the line. */
  add(seconds, value, high = value) {
    this.#points.push([seconds, value, high]);
    while (this.#points[0][0] < seconds - SPAN_S) this.#points.shift();
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#waiting = false;
    const canvas = this.#canvas;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const [ink, grid, line] = ["--muted", "--rule", "--accent"].map((name) => style.getPropertyValue(name).trim());
    const top = nice(Math.max(1, ...this.#points.map((point) => point[2])));
    const margin = 6;
    const foot = height - 4;
    const y = (value) => foot - (value / top) * (foot - margin);
    pen.lineWidth = 1;
    pen.strokeStyle = grid;
    pen.fillStyle = ink;
    pen.font = `10px ${style.fontFamily}`;
    pen.textAlign = "right";
    for (const part of [0, 0.5, 1]) {
      const at = Math.round(y(top * part)) + 0.5;
      pen.beginPath();
      pen.moveTo(0, at);
      pen.lineTo(width - 30, at);
      pen.stroke();
      pen.fillText(String(+(top * part).toPrecision(3)), width - 2, Math.min(height - 1, Math.max(9, at + 3)));
    }
    if (!this.#points.length) return;
    const end = this.#points.at(-1)[0];
    const x = (seconds) => (width - 34) * (1 - (end - seconds) / SPAN_S);
    for (const run of unbroken(this.#points)) {
      pen.beginPath();
      run.forEach(([seconds, , high]) => pen.lineTo(x(seconds), y(high)));
      run.toReversed().forEach(([seconds, low]) => pen.lineTo(x(seconds), y(low)));
      pen.globalAlpha = 0.18;
      pen.fillStyle = line;
      pen.fill();
      pen.globalAlpha = 1;
      pen.beginPath();
      run.forEach(([seconds, low]) => pen.lineTo(x(seconds), y(low)));
      pen.strokeStyle = line;
      pen.lineWidth = 1.5;
      pen.lineJoin = "round";
      pen.stroke();
    }
  }
}

/** 1, 2 or 5 times a power of ten, not below value. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((bound) => bound >= value);
}

function unbroken(points) {
  const runs = [];
  let last = -Infinity;
  for (const point of points) {
    if (point[0] - last > 2) runs.push([]);
    runs.at(-1).push(point);
    last = point[0];
  }
  return runs;
}
