// Three strips of numbers over the last steps: bars for rewards, lines for the rest.

const SPAN = 160, WIDTH = 3; // most steps that are shown; pixels of each at least, so that two bars fit beside each other

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export const TONES = ["--dream", "--second"];

// One strip: series is a list (one per dream) of arrays indexed by frame.
export function strip(canvas, series, cursor, { bars = false, low = null, high = null } = {}) {
  const ratio = window.devicePixelRatio || 1;
  const wide = canvas.clientWidth, tall = canvas.clientHeight;
  if (!wide || !tall) return;
  if (canvas.width !== Math.round(wide * ratio)) canvas.width = Math.round(wide * ratio);
  if (canvas.height !== Math.round(tall * ratio)) canvas.height = Math.round(tall * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, tall);
  const margin = 38, plotted = wide - margin;
  const newest = Math.max(0, ...series.map((s) => s.length - 1));
  const span = Math.max(1, Math.min(SPAN, Math.floor(plotted / WIDTH)));
  const from = Math.max(0, Math.min(newest - span, cursor - Math.floor(span / 2)));
  const to = from + span;
  let values = series.flatMap((s) => s.slice(from, to + 1)).filter((x) => Number.isFinite(x));
  if (bars) values.push(0);
  let bottom = low ?? Math.min(...values), top = high ?? Math.max(...values);
  if (!Number.isFinite(bottom) || !Number.isFinite(top)) [bottom, top] = [0, 1];
  if (top - bottom < 1e-6) [bottom, top] = [bottom - 0.5, top + 0.5];
  const x = (t) => margin + ((t - from) / span) * plotted;
  const y = (v) => tall - 5 - ((v - bottom) / (top - bottom)) * (tall - 10);
  pen.strokeStyle = colour("--rail");
  pen.fillStyle = colour("--muted");
  pen.font = "10px system-ui, sans-serif";
  pen.textAlign = "right";
  for (const v of [bottom, top]) {
    pen.beginPath();
    pen.moveTo(margin, y(v));
    pen.lineTo(wide, y(v));
    pen.stroke();
    pen.fillText(short(v), margin - 5, y(v) + 3.5);
  }
  series.forEach((numbers, lane) => {
    pen.strokeStyle = pen.fillStyle = colour(TONES[lane % TONES.length]);
    pen.lineWidth = 1.5 * (series.length - lane); // the first is seen behind the second where they agree
    if (bars) {
      const each = Math.max(1, Math.floor(((plotted / span) * 0.7) / series.length));
      for (let t = from; t <= Math.min(to, numbers.length - 1); t++) {
        const v = numbers[t];
        if (v) pen.fillRect(Math.round(x(t)) + lane * each, Math.min(y(0), y(v)), each, Math.max(1, Math.abs(y(v) - y(0))));
      }
      return;
    }
    pen.beginPath();
    let open = false;
    for (let t = from; t <= Math.min(to, numbers.length - 1); t++) {
      const v = numbers[t];
      if (!Number.isFinite(v)) { open = false; continue; }
      if (open) pen.lineTo(x(t), y(v));
      else pen.moveTo(x(t), y(v));
      open = true;
    }
    pen.stroke();
  });
  pen.strokeStyle = colour("--muted");
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x(cursor), 2);
  pen.lineTo(x(cursor), tall - 2);
  pen.stroke();
}

export function short(v) {
  if (!Number.isFinite(v)) return "";
  const size = Math.abs(v);
  if (size !== 0 && (size >= 10000 || size < 0.01)) return v.toExponential(0);
  return size >= 100 ? v.toFixed(0) : size >= 10 ? v.toFixed(1) : v.toFixed(2);
}
