// The canvas on which a label map is painted.

import { disc, drawLabel, floodFill, line } from "./labels.js";

const HISTORY = 100;

/** Paints into `this.map`, {width, height, label}; calls `changed(settled)`: false while a stroke goes on. */
export class Painter {
  constructor({ canvas, cursor, place, classes, palette, changed, picked }) {
    Object.assign(this, { canvas, cursor, place, classes, palette, changed, picked });
    this.tool = "brush";
    this.diameter = 6;
    this.id = 0;
    this.map = { width: 1, height: 1, label: new Uint8Array(1) };
    this.past = [];
    this.future = [];
    this.last = null;
    this.at = null;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.end());
    canvas.addEventListener("pointerleave", () => { if (!this.last) this.show(null); });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.show(null));
  }

  /** Puts another map here; undo brings the old one back. */
  replace(map) {
    if (this.map.width > 1) this.remember();
    this.map = { width: map.width, height: map.height, label: map.label.slice() };
    this.draw();
    this.changed(true);
  }

  remember() {
    this.past.push({ ...this.map, label: this.map.label.slice() });
    if (this.past.length > HISTORY) this.past.shift();
    this.future = [];
  }

  undo() { this.swap(this.past, this.future); }

  redo() { this.swap(this.future, this.past); }

  swap(from, to) {
    if (!from.length || this.last) return;
    to.push(this.map);
    this.map = from.pop();
    this.draw();
    this.changed(true);
  }

  draw() {
    drawLabel(this.canvas, this.map, this.palette);
    this.cursor.width = this.map.width;
    this.cursor.height = this.map.height;
    this.show(this.at);
  }

  pixel(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      Math.floor(((event.clientX - box.left) / box.width) * this.map.width),
      Math.floor(((event.clientY - box.top) / box.height) * this.map.height),
    ];
  }

  begin(event) {
    if (event.button !== 0) return;
    const at = this.pixel(event);
    this.canvas.setPointerCapture(event.pointerId);
    this.start(at, event.altKey);
  }

  start(at, pick) {
    if (!this.inside(at)) return;
    if (pick) {
      this.picked(this.map.label[at[1] * this.map.width + at[0]]);
      return;
    }
    if (this.tool === "fill") {
      if (this.map.label[at[1] * this.map.width + at[0]] === this.id) return;
      this.remember();
      floodFill(this.map, ...at, this.id);
      this.draw();
      this.changed(true);
      return;
    }
    this.remember();
    this.last = at;
    this.stroke(at);
  }

  move(event) {
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) {
      const at = this.pixel(each);
      if (this.last) this.stroke(at);
      this.show(at);
    }
  }

  end() {
    if (!this.last) return;
    this.last = null;
    this.changed(true);
  }

  stroke(at) {
    const { label } = this.map;
    const context = this.canvas.getContext("2d");
    const dot = new ImageData(1, 1);
    dot.data.set([...this.palette[this.id], 255]);
    for (const [x, y] of line(this.last, at)) {
      for (const place of disc(this.map, x, y, this.diameter)) {
        if (label[place] === this.id) continue;
        label[place] = this.id;
        context.putImageData(dot, place % this.map.width, Math.floor(place / this.map.width));
      }
    }
    this.last = at;
    this.changed(false);
  }

  inside([x, y]) {
    return x >= 0 && y >= 0 && x < this.map.width && y < this.map.height;
  }

  /** Shows the brush's footprint, and says what lies under it. */
  show(at) {
    this.at = at;
    const context = this.cursor.getContext("2d");
    context.clearRect(0, 0, this.cursor.width, this.cursor.height);
    if (!at || !this.inside(at)) {
      this.place.textContent = "Paint with the pointer, or with arrow keys and Space.";
      return;
    }
    const { width, label } = this.map;
    this.place.textContent = `x ${at[0]}, y ${at[1]}: ${this.classes[label[at[1] * width + at[0]]]}`;
    const covered = new Set(disc(this.map, ...at, this.tool === "fill" ? 1 : this.diameter));
    for (const place of covered) {
      const x = place % width;
      const edge = !covered.has(place - width) || !covered.has(place + width)
        || !covered.has(place - 1) || !covered.has(place + 1) || x === 0 || x === width - 1;
      if (!edge) continue;
      context.fillStyle = (x + Math.floor(place / width)) % 2 ? "rgb(0 0 0 / 70%)" : "rgb(255 255 255 / 85%)";
      context.fillRect(x, Math.floor(place / width), 1, 1);
    }
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const middle = [this.map.width >> 1, this.map.height >> 1];
    if (event.key in moves && !event.ctrlKey && !event.metaKey) {
      const step = event.shiftKey ? 8 : 1;
      const [x, y] = this.at ?? middle;
      const [dx, dy] = moves[event.key];
      this.show([
        Math.min(Math.max(x + dx * step, 0), this.map.width - 1),
        Math.min(Math.max(y + dy * step, 0), this.map.height - 1),
      ]);
    } else if (event.key === " " || event.key === "Enter") {
      this.start(this.at ?? middle, false);
      this.end();
      this.show(this.at ?? middle);
    } else {
      return;
    }
    event.preventDefault();
  }
}
