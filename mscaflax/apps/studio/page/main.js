// Wires the page together.

import * as api from "./api.js";
import { drawLabel } from "./labels.js";
import { Painter } from "./painter.js";
import { RegionList } from "./regions.js";
import { Renderer } from "./renderer.js";
import { Result } from "./result.js";
import { droppable, pathWeights, Slots } from "./slots.js";

const $ = (id) => document.getElementById(id);

function say(text, note = false) {
  $("message").hidden = !text;
  $("message").classList.toggle("note", note);
  $("message").firstElementChild.textContent = text ?? "";
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof api.Refusal)) console.error(error);
  say(error instanceof api.Refusal ? error.message : "Something went wrong in the page: reload it to go on.");
}

/** Runs an action of the user; its error becomes the line at the top. */
const act = (action) => async (...given) => {
  try {
    await action(...given);
  } catch (error) {
    fail(error);
  }
};

function choose(kind) {
  const input = $(`${kind}-file`);
  input.value = "";
  return new Promise((resolve) => {
    input.onchange = () => resolve([...input.files]);
    input.oncancel = () => resolve([]);
    input.click();
  });
}

function button(content, label, action) {
  const made = Object.assign(document.createElement("button"), { type: "button", title: label });
  made.setAttribute("aria-label", label);
  made.append(content);
  made.addEventListener("click", action);
  return made;
}

function hint(text) {
  return Object.assign(document.createElement("p"), { className: "quiet", textContent: text });
}

async function start() {
  const about = await api.about();
  const { palette, sizes } = about;
  const classes = [...about.classes, "unlabelled"];
  $("model").textContent = `Model: ${about.model}`;

  /** Refuses files that are too large for one request, which has room for all of them together. */
  const check = (...files) => {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    if (size <= about.maxBytes - 100_000) return;
    const limit = `more than ${Math.floor(about.maxBytes / 2 ** 20)} MB`;
    const names = files.map((file) => file.name).join(" and ");
    throw new api.Refusal(files.length > 1
      ? `${names} together have ${limit}: choose smaller files.` : `${names} has ${limit}: choose a smaller file.`);
  };

  const painter = new Painter({
    canvas: $("map"), cursor: $("cursor"), place: $("place"), classes, palette,
    changed: (settled) => {
      $("undo").disabled = !painter.past.length;
      $("redo").disabled = !painter.future.length;
      const { width, height } = painter.map;
      $("paint").style.setProperty("--aspect", width / height);
      const index = sizes.findIndex((size) => size.width === width && size.height === height);
      if ($("size").selectedIndex !== index) {
        $("size").selectedIndex = index;
        act(showLayouts)();
      }
      renderer.change(settled && !painter.last);
    },
    picked: (id) => pick(id),
  });

  const slots = new Slots({
    box: $("slots"), palette, most: about.maxExemplars, choose, fail,
    read: async (photo, label) => {
      check(...[photo, label].filter(Boolean));
      const found = await api.readExemplar(photo, label);
      say(null);
      return { ...found, name: found.guessed ? `${photo.name}, labels guessed by the segmenter` : photo.name };
    },
    changed: () => {
      mixed();
      renderer.change();
    },
    hover: (which, u, v) => (which < 0 ? result.clear() : result.spread(which, u, v)),
  });

  const result = new Result({
    canvas: $("picture"), over: $("picture-over"), source: $("source"), classes, overlays: () => slots.overlays,
  });

  const regionList = new RegionList({
    box: $("region-list"), scale: $("scale"), light: (k) => result.region(k), clear: () => result.clear(),
  });
  // Until one is chosen the studio takes the scale that it shows best.
  let scale = null;

  const renderer = new Renderer({
    job: () => {
      const exemplars = slots.filled;
      const seed = Number($("seed").value);
      if (!exemplars.length) return null;
      const weights = pathWeights(Number($("blend").value), exemplars.length);
      const { width, height, label } = painter.map;
      return { layout: { width, height, label: label.slice() }, exemplars, weights, seed, scale };
    },
    ask: api.picture,
    show: async (answer, job) => {
      await result.show(answer, job);
      regionList.show(result.regions);
      $("picture-stage").style.setProperty("--aspect", answer.width / answer.height);
      const ms = answer.milliseconds;
      $("time").textContent = ms < 10_000 ? `${ms} ms` : `${Math.round(ms / 1000)} s, mostly compiling`;
      URL.revokeObjectURL($("download").href);
      $("download").href = URL.createObjectURL(result.blob);
      $("download").removeAttribute("aria-disabled");
      document.body.dataset.pictures = Number(document.body.dataset.pictures ?? 0) + 1;
      if (!$("message").classList.contains("note")) say(null);
    },
    none: () => {
      result.empty();
      regionList.show(null);
      $("time").textContent = "";
      URL.revokeObjectURL($("download").href);
      $("download").removeAttribute("href");
      $("download").setAttribute("aria-disabled", "true");
    },
    fail,
    wait: (waited) => {
      $("waiting").classList.toggle("shown", waited !== null || !result.job);
      const seconds = Math.round((waited ?? 0) / 1000);
      $("waiting").firstElementChild.textContent = waited === null
        ? "Choose a photo for the style"
        : `Working… ${seconds} s${seconds > 2 ? ": the first picture of a size or a photo’s shape takes longer" : ""}`;
    },
  });

  function pick(id) {
    painter.id = id;
    for (const [index, each] of [...$("palette").children].entries()) {
      each.setAttribute("aria-checked", index === id);
      each.tabIndex = index === id ? 0 : -1;
    }
  }

  function setTool(tool) {
    painter.tool = tool;
    for (const each of document.querySelectorAll("[data-tool]")) {
      each.setAttribute("aria-pressed", each.dataset.tool === tool);
    }
  }

  function setBrush(diameter) {
    painter.diameter = Math.min(Math.max(diameter, 1), 24);
    $("brush").value = painter.diameter;
    $("brush-size").value = painter.diameter;
    painter.show(painter.at);
  }

  function mixed() {
    const count = slots.filled.length;
    $("mix").hidden = count < 2;
    const blend = $("blend");
    if (Number(blend.dataset.count ?? 1) !== count) {
      blend.min = -0.5;
      blend.max = count - 0.5;
      blend.value = count < 2 ? 0 : count - 1.5;
      blend.dataset.count = count;
      $("stops").replaceChildren(...slots.filled.map((_, i) => new Option(i + 1, i)));
    }
    const weights = pathWeights(Number(blend.value), Math.max(count, 1));
    const shares = weights.map((weight, i) => [i + 1, Math.round(weight * 100)]).filter(([, share]) => share !== 0);
    const beyond = weights.some((weight) => weight < -0.005) ? " (beyond)" : "";
    $("blend-value").textContent = shares.map(([i, share]) => `photo ${i}: ${share} %`).join(", ") + beyond;
  }

  async function openMap(file) {
    check(file);
    const found = await api.readLayout(file);
    const { given, width, height } = found;
    const same = given.width === width && given.height === height;
    painter.replace(found);
    say(same ? null : `${given.width}×${given.height} pixels: the middle was cut out and resized to ${width}×${height}.`, true);
  }

  let asked = 0;
  async function showLayouts() {
    asked += 1;
    const mine = asked;
    const found = await api.exampleLayouts(Math.max($("size").selectedIndex, 0));
    if (mine !== asked) return found;
    $("layouts").replaceChildren(...found.map((layout) => {
      const canvas = Object.assign(document.createElement("canvas"), { className: "map" });
      drawLabel(canvas, layout, palette);
      return button(canvas, `Layout: ${layout.name}`, () => painter.replace(layout));
    }));
    if (!found.length) $("layouts").append(hint("No examples for this model’s dataset: paint, or open a map."));
    return found;
  }

  // The controls.
  $("size").append(...sizes.map(({ width, height }) => new Option(`${width} × ${height}`)));
  $("size").addEventListener("change", act(async () => {
    const { width, height } = sizes[$("size").selectedIndex];
    const old = painter.map;
    const label = new Uint8Array(width * height);
    // The middle, at the same size of things where it is larger: a canvas shows more or less of a scene.
    const scale = Math.min(old.width / width, old.height / height);
    for (let i = 0; i < label.length; i += 1) {
      const x = Math.floor(((i % width) + 0.5 - width / 2) * scale + old.width / 2);
      const y = Math.floor((Math.floor(i / width) + 0.5 - height / 2) * scale + old.height / 2);
      label[i] = old.label[y * old.width + x];
    }
    painter.replace({ width, height, label });
    await showLayouts();
  }));
  for (const each of document.querySelectorAll("[data-tool]")) {
    each.addEventListener("click", () => setTool(each.dataset.tool));
  }
  $("brush").addEventListener("input", () => setBrush(Number($("brush").value)));
  $("undo").addEventListener("click", () => painter.undo());
  $("redo").addEventListener("click", () => painter.redo());
  $("clear").addEventListener("click", () => {
    const { width, height } = painter.map;
    painter.replace({ width, height, label: new Uint8Array(width * height).fill(painter.id) });
  });
  $("clear").title = "All of the chosen class";
  $("map-file").addEventListener("change", act(async () => {
    const [file] = $("map-file").files;
    $("map-file").value = "";
    if (file) await openMap(file);
  }));
  $("save-map").addEventListener("click", () => $("map").toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "layout.png" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }));
  $("blend").addEventListener("input", () => {
    mixed();
    renderer.change(false);
  });
  $("seed").addEventListener("input", () => renderer.change());
  $("dice").addEventListener("click", () => {
    $("seed").value = Math.floor(Math.random() * 10_000);
    renderer.change();
  });
  $("scale").addEventListener("change", () => {
    scale = Number($("scale").value);
    renderer.change();
  });
  $("crisp").addEventListener("change", () => $("picture-stage").classList.toggle("crisp", $("crisp").checked));
  $("regions").addEventListener("change", () => {
    result.tinted = $("regions").checked;
    result.clear();
  });
  $("message").lastElementChild.addEventListener("click", () => say(null));
  droppable($("paint"), act((files) => openMap(files[0])));
  // A file that misses its place must not replace the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

  $("palette").append(...classes.map((name, id) => {
    const sample = document.createElement("i");
    sample.style.background = `rgb(${palette[id].join(" ")})`;
    const made = button(sample, name, () => pick(id));
    made.append(name);
    made.setAttribute("role", "radio");
    return made;
  }));
  $("palette").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    pick((painter.id + step + classes.length) % classes.length);
    $("palette").children[painter.id].focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input[type=number], select") || event.altKey) return;
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") event.shiftKey ? painter.redo() : painter.undo();
      else if (key === "y") painter.redo();
      else return;
      event.preventDefault();
      return;
    }
    const keys = {
      b: () => setTool("brush"), f: () => setTool("fill"), e: () => pick(classes.length - 1),
      "[": () => setBrush(painter.diameter - 1), "]": () => setBrush(painter.diameter + 1),
    };
    keys[key]?.();
  });

  // The first picture, from the first examples.
  pick(0);
  setTool("brush");
  setBrush(Math.max(2, Math.round(sizes[0].height / 10)));
  const [{ width, height }] = sizes;
  // Without examples one still paints, and adds photos.
  const orNone = (promise) => promise.catch((error) => { fail(error); return []; });
  const [layouts, exemplars] = await Promise.all([orNone(showLayouts()), orNone(api.exampleExemplars())]);
  $("exemplars").append(...exemplars.map((exemplar) => {
    const image = Object.assign(new Image(), { src: exemplar.url, alt: "" });
    return button(image, `Photo: ${exemplar.name}`, () => slots.put(exemplar));
  }));
  if (!exemplars.length) $("exemplars").append(hint("No examples for this model’s dataset: add a photo."));
  const blank = { width, height, label: new Uint8Array(width * height).fill(classes.length - 1) };
  if (exemplars.length) slots.put(exemplars[0]);
  painter.replace(layouts[0] ?? blank);
  document.body.dataset.ready = "true";
}

act(start)();
