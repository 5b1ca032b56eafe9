// The regions of a picture as a list, the most used first, and the choice of the scale that they are of.

const MOVES = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };

export const percent = (share) => `${Math.round(share * 100)}\u00a0%`;

export class RegionList {
  /**
   * @param box the list's element
   * @param scale the <select> of the scales
   * @param light (index) => void, where one is pointed at or has the focus
   * @param clear () => void, where none is any more
   */
  constructor({ box, scale, light, clear }) {
    Object.assign(this, { box, scale, light, clear });
    box.addEventListener("pointerover", (event) => this.lit(event.target.closest("button")));
    box.addEventListener("pointerleave", () => this.settle());
    box.addEventListener("focusin", (event) => this.lit(event.target));
    box.addEventListener("focusout", () => this.clear());
    box.addEventListener("keydown", (event) => this.key(event));
  }

  get buttons() {
    return [...this.box.querySelectorAll("button")];
  }

  /** Shows the regions of an answer, or none (null). */
  show(regions) {
    const count = regions?.count ?? 0;
    while (this.box.children.length > count) this.box.lastElementChild.remove();
    while (this.box.children.length < count) this.box.append(item());
    this.buttons.forEach((button, k) => {
      const [swatch, text] = button.children;
      const [r, g, b] = regions.colours[k];
      swatch.style.background = `rgb(${r} ${g} ${b})`;
      text.textContent = described(regions, k);
    });
    // One stop of the Tab key for the whole list; the arrow keys move inside.
    if (count && !this.buttons.some((button) => button.tabIndex === 0)) this.buttons[0].tabIndex = 0;
    const scales = regions?.scales ?? [];
    this.scale.disabled = !scales.length;
    if (this.scale.options.length !== scales.length) {
      this.scale.replaceChildren(...scales.map((scale) => new Option(scale ? `1/${2 ** scale}` : "full", scale)));
    }
    if (regions) this.scale.value = regions.scale;
    this.settle();
  }

  /** Lights up the region that has the focus, if one has. */
  settle() {
    const focused = this.buttons.indexOf(document.activeElement);
    if (focused < 0) this.clear();
    else this.light(focused);
  }

  lit(button) {
    const index = this.buttons.indexOf(button);
    if (index >= 0) this.light(index);
  }

  key(event) {
    const buttons = this.buttons;
    const at = buttons.indexOf(event.target);
    if (!(event.key in MOVES) || at < 0) return;
    event.preventDefault();
    const next = buttons[Math.min(Math.max(at + MOVES[event.key], 0), buttons.length - 1)];
    buttons[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

/** What is told of region k: its share of the picture, and how much of it each photo's network lets through. */
export function described(regions, k) {
  const through = regions.exemplars.map((found) => percent(found.gate[k])).join(" and ");
  return `${k + 1}: ${percent(regions.use[k])} of the picture, let through ${through}`;
}

function item() {
  const button = Object.assign(document.createElement("button"), { type: "button", tabIndex: -1 });
  button.append(document.createElement("i"), document.createElement("span"));
  const made = document.createElement("li");
  made.append(button);
  return made;
}
