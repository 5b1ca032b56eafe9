// The exemplars: one to four places, each with a photo and its label map.

import { Refusal } from "./api.js";
import { drawLabel } from "./labels.js";

const element = (name, properties = {}) => Object.assign(document.createElement(name), properties);

/** Pairs dropped files: NAME_label.png, or NAME.png beside NAME.jpg, is the label map of the photo NAME. */
export function pairFiles(files) {
  const parts = [...files].map((file) => {
    const [, stem, ending] = /^(.*?)(?:\.([^.]*))?$/.exec(file.name);
    const plain = stem.replace(/_labels?$/i, "");
    return { file, plain, label: plain !== stem, png: /^png$/i.test(ending ?? "") };
  });
  const isLabel = (part) => parts.some((other) => other !== part && other.plain === part.plain && !other.label
    && (part.label || (part.png && !other.png)));
  return parts.filter((part) => !isLabel(part)).map(({ file, plain }) => ({
    photo: file,
    label: parts.find((part) => part.plain === plain && part.file !== file && isLabel(part))?.file,
  }));
}

/** Weights of n exemplars at the place t of a path on which exemplar i stands at i; they sum to 1 everywhere. */
export function pathWeights(t, n) {
  const weights = new Array(n).fill(0);
  if (n === 1) return [1];
  const first = Math.min(Math.max(Math.floor(t), 0), n - 2);
  weights[first] = first + 1 - t;
  weights[first + 1] = t - first;
  return weights;
}

export class Slots {
  /**
   * @param box the element that holds them
   * @param most how many there may be
   * @param read (photo, label) => Promise of an exemplar
   * @param choose ("photo" or "label") => Promise of chosen files
   */
  constructor({ box, palette, most, read, choose, changed, hover, fail }) {
    Object.assign(this, { box, palette, most, read, choose, changed, hover, fail });
    this.places = [{}];
    this.active = 0;
    this.render();
  }

  /** The exemplars that are there, in their order. */
  get filled() {
    return this.places.map((place) => place.exemplar).filter(Boolean);
  }

  /** The canvases over their photos. */
  get overlays() {
    return this.places.filter((place) => place.exemplar).map((place) => place.overlay);
  }

  /** Puts an exemplar into the active place. */
  put(exemplar) {
    this.places[this.active] = { exemplar };
    this.render();
    this.changed();
  }

  async take(files, index) {
    const pairs = pairFiles(files).slice(0, this.most);
    for (const [offset, { photo, label }] of pairs.entries()) {
      const at = index + offset;
      if (at >= this.most) break;
      while (this.places.length <= at) this.places.push({});
      await this.load(at, photo, label);
    }
  }

  async load(index, photo, label) {
    const place = { photo, said: "Reading…" };
    const before = this.places[index];
    this.places[index] = place;
    this.active = index;
    this.render();
    try {
      place.exemplar = await this.read(photo, label);
      place.said = "";
    } catch (error) {
      this.fail(error);
      // The photo waits for a map where that is all that it lacks.
      if (!label && /segmenter/.test(error.message)) place.said = "Needs its label map";
      else if (this.places[index] === place) {
        before.said = error instanceof Refusal ? error.message : "";
        this.places[index] = before;
      }
    }
    this.render();
    this.changed();
  }

  remove(index) {
    this.places.splice(index, 1);
    if (!this.places.length) this.places.push({});
    this.active = Math.min(this.active, this.places.length - 1);
    this.render();
    this.changed();
  }

  render() {
    const parts = this.places.map((place, index) => this.slot(place, index));
    if (this.places.length < this.most && this.places.at(-1).exemplar) {
      const add = element("button", { type: "button", className: "add" });
      add.textContent = "Add a photo to mix: drop it here, or click and take an example";
      add.addEventListener("click", () => {
        this.places.push({});
        this.active = this.places.length - 1;
        this.render();
      });
      this.droppable(add, () => this.places.length);
      parts.push(add);
    }
    this.box.classList.toggle("several", parts.length > 2);
    this.box.replaceChildren(...parts);
  }

  slot(place, index) {
    const slot = element("div", { className: `slot${index === this.active ? " active" : ""}` });
    slot.setAttribute("role", "group");
    slot.setAttribute("aria-label", `Exemplar ${index + 1}`);
    this.droppable(slot, () => index);
    if (!place.exemplar) {
      const open = element("button", { type: "button", className: "add" });
      open.textContent = place.said || "Drop a photo here, or click to choose one";
      open.addEventListener("click", async () => {
        this.active = index;
        const files = await this.choose("photo");
        if (files.length) this.take(files, index);
      });
      slot.append(open);
      if (place.photo || this.places.length > 1) slot.append(this.foot(place, index));
      return slot;
    }
    const { exemplar } = place;
    const stage = element("div", { className: "stage" });
    const thumb = element("canvas", { className: "thumb" });
    drawLabel(thumb, exemplar, this.palette);
    place.overlay = element("canvas", { className: "over-photo" });
    const name = exemplar.name ?? `Exemplar ${index + 1}`;
    stage.append(element("img", { src: exemplar.url, alt: name, draggable: false }), place.overlay, thumb);
    stage.addEventListener("pointermove", (event) => {
      const box = stage.getBoundingClientRect();
      const which = this.filled.indexOf(exemplar);
      this.hover(which, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    stage.addEventListener("pointerleave", () => this.hover(-1));
    stage.addEventListener("click", () => {
      this.active = index;
      for (const [i, other] of [...this.box.children].entries()) other.classList.toggle("active", i === index);
    });
    slot.append(stage, this.foot(place, index));
    return slot;
  }

  foot(place, index) {
    const foot = element("div", { className: "foot" });
    const said = [place.exemplar?.name, place.said].filter(Boolean).join(" · ");
    foot.append(element("span", { className: "quiet", textContent: said }));
    if (place.photo) {
      const labels = element("button", { type: "button", textContent: "Labels…" });
      labels.setAttribute("aria-label", `Choose the label map of exemplar ${index + 1}`);
      labels.addEventListener("click", async () => {
        const [label] = await this.choose("label");
        if (label) this.load(index, place.photo, label);
      });
      foot.append(labels);
    } else if (place.exemplar) {
      const other = element("button", { type: "button", textContent: "Photo…" });
      other.setAttribute("aria-label", `Choose another photo for exemplar ${index + 1}`);
      other.addEventListener("click", async () => {
        const files = await this.choose("photo");
        if (files.length) this.take(files, index);
      });
      foot.append(other);
    }
    const remove = element("button", { type: "button", textContent: "×" });
    remove.setAttribute("aria-label", `Remove exemplar ${index + 1}`);
    remove.addEventListener("click", () => this.remove(index));
    foot.append(remove);
    return foot;
  }

  droppable(target, index) {
    droppable(target, (files) => this.take(files, index()));
  }
}

/** Lets files be dropped on an element. */
export function droppable(target, take) {
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("over");
  });
  target.addEventListener("dragleave", () => target.classList.remove("over"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    target.classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  });
}
