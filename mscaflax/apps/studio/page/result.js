// The picture, and the attention over it and over the photos.

import { bytesOf } from "./api.js";
import { described, percent } from "./regions.js";

const ZOOM = 4;
const VEIL = 0.8;
const CLEAR = 0.96;

export class Result {
  constructor({ canvas, over, source, classes, overlays }) {
    Object.assign(this, { canvas, over, source, classes, overlays });
    this.regions = null;
    this.tinted = false;
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      this.explain((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    canvas.addEventListener("pointerleave", () => this.clear());
    canvas.addEventListener("blur", () => this.clear());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** Shows an answer of the server to a job. */
  async show(answer, job) {
    this.blob = new Blob([bytesOf(answer.picture)], { type: "image/png" });
    const bitmap = await createImageBitmap(this.blob);
    const { width, height } = answer;
    const fresh = this.canvas.width !== width || this.canvas.height !== height;
    if (fresh) Object.assign(this.canvas, { width, height });
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    Object.assign(this.over, { width: width * ZOOM, height: height * ZOOM });
    this.job = job;
    this.regions = answer.regions && unpacked(answer.regions);
    this.clear();
  }

  /** Shows nothing. */
  empty() {
    Object.assign(this, { blob: null, job: null, regions: null });
    wipe(this.canvas);
    this.clear();
  }

  get said() {
    if (!this.regions) return "This model has no regions to show.";
    return "Point at the picture or at a photo to see what feeds what.";
  }

  clear() {
    this.at = null;
    this.source.textContent = this.canvas.width > 1 && this.job ? this.said : "\u00a0";
    wipe(this.over);
    const overlays = this.overlays();
    overlays.forEach((overlay) => { wipe(overlay); overlay.parentNode.classList.remove("lit"); });
    if (!this.tinted || !this.regions) return;
    const { width, height, assignment, colours, use, exemplars } = this.regions;
    stretch(this.over, tint(assignment, width, height, colours, use.map(() => 1)));
    exemplars.forEach((found, i) => {
      // By which region a place sends most to the picture.
      const weights = use.map((share, k) => share * found.gate[k] * found.peaks[k]);
      if (overlays[i]) fit(overlays[i], tint(found.attention, found.width, found.height, colours, weights));
    });
  }

  /** Lights up in the photos what feeds the place (u, v) of the picture, both in 0..1. */
  explain(u, v) {
    if (!this.regions || u < 0 || v < 0 || u >= 1 || v >= 1) return;
    this.at = [u, v];
    const { count, width, height, assignment, exemplars } = this.regions;
    const place = Math.floor(v * height) * width + Math.floor(u * width);
    const shares = Array.from({ length: count }, (_, k) => assignment[k * width * height + place] / 255);
    const overlays = this.overlays();
    exemplars.forEach((found, i) => {
      if (!overlays[i]) return;
      const size = found.width * found.height;
      const heat = new Float32Array(size);
      shares.forEach((share, k) => {
        const weight = share * found.gate[k] * found.peaks[k];
        if (share < 0.01) return;
        for (let q = 0; q < size; q += 1) heat[q] += weight * found.attention[k * size + q];
      });
      overlays[i].parentNode.classList.add("lit");
      fit(overlays[i], veil(heat, found.width, found.height));
    });
    wipe(this.over);
    this.mark(u, v);
    const best = shares.indexOf(Math.max(...shares));
    const through = exemplars.map((found) => percent(found.gate[best])).join(" and ");
    const { layout } = this.job;
    const x = Math.floor(u * layout.width), y = Math.floor(v * layout.height);
    const name = this.classes[layout.label[y * layout.width + x]];
    this.source.textContent = `x ${x}, y ${y}, ${name}: region ${best + 1} feeds ${percent(shares[best])} `
      + `of this place; let through: ${through}.`;
  }

  /** Lights up in the picture where the place (u, v) of a photo goes. */
  spread(which, u, v) {
    const found = this.regions?.exemplars[which];
    if (!found || u < 0 || v < 0 || u >= 1 || v >= 1) {
      this.clear();
      return;
    }
    const { count, width, height, assignment } = this.regions;
    const place = Math.floor(v * found.height) * found.width + Math.floor(u * found.width);
    const heat = new Float32Array(width * height);
    for (let k = 0; k < count; k += 1) {
      const weight = found.gate[k] * found.peaks[k] * found.attention[k * found.width * found.height + place];
      for (let p = 0; p < heat.length; p += 1) heat[p] += weight * assignment[k * heat.length + p];
    }
    stretch(this.over, veil(heat, width, height));
    this.source.textContent = "Bright: what this place of the photo feeds.";
  }

  /** Lights up region k: in the photos where it looks, in the picture where it lands. */
  region(k) {
    const { width, height, assignment, exemplars } = this.regions;
    const plane = (planes, size) => planes.subarray(k * size, (k + 1) * size);
    const overlays = this.overlays();
    exemplars.forEach((found, i) => {
      if (!overlays[i]) return;
      overlays[i].parentNode.classList.add("lit");
      fit(overlays[i], veil(plane(found.attention, found.width * found.height), found.width, found.height));
    });
    stretch(this.over, veil(plane(assignment, width * height), width, height));
    this.source.textContent = `Region ${described(this.regions, k)}.`;
  }

  mark(u, v) {
    const context = this.over.getContext("2d");
    const x = (Math.floor(u * this.canvas.width) + 0.5) * ZOOM, y = (Math.floor(v * this.canvas.height) + 0.5) * ZOOM;
    for (const [colour, width] of [["rgb(0 0 0 / 80%)", 4], ["white", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, 2.2 * ZOOM, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const step = event.shiftKey ? 8 : 2;
    const [u, v] = this.at ?? [0.5, 0.5];
    const [dx, dy] = moves[event.key];
    const inside = (value) => Math.min(Math.max(value, 0), 0.999);
    this.explain(inside(u + (dx * step) / this.canvas.width), inside(v + (dy * step) / this.canvas.height));
  }
}

function unpacked(regions) {
  return {
    ...regions,
    assignment: bytesOf(regions.assignment),
    exemplars: regions.exemplars.map((found) => ({ ...found, attention: bytesOf(found.attention) })),
  };
}

function wipe(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

/** Dark where heat is low, clear where it is high. */
function veil(heat, width, height) {
  const image = new ImageData(width, height);
  // The strongest few per cent are clear, not the peak alone: attention is peaked, and its peak a pixel.
  const sorted = heat.slice().sort();
  const clear = Math.max(sorted[Math.floor(sorted.length * CLEAR)], sorted.at(-1) / 10, 1e-12);
  for (let i = 0; i < heat.length; i += 1) {
    image.data[4 * i + 3] = 255 * VEIL * (1 - Math.sqrt(Math.min(heat[i] / clear, 1)));
  }
  return image;
}

/** The colour of the region that is strongest at each place, its plane times its weight. */
function tint(planes, width, height, colours, weights) {
  const image = new ImageData(width, height);
  const size = width * height;
  for (let i = 0; i < size; i += 1) {
    let best = 0;
    const strength = (k) => weights[k] * planes[k * size + i];
    for (let k = 1; k < weights.length; k += 1) if (strength(k) > strength(best)) best = k;
    image.data.set([...colours[best], 165], 4 * i);
  }
  return image;
}

function fit(canvas, image) {
  Object.assign(canvas, { width: image.width, height: image.height });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function stretch(canvas, image) {
  const small = new OffscreenCanvas(image.width, image.height);
  small.getContext("2d").putImageData(image, 0, 0);
  wipe(canvas);
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
}
