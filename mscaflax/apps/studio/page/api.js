// The server's answers. Arrays travel as base64 of their bytes.

/** An error whose message is meant for the page. */
export class Refusal extends Error {}

export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The studio does not answer: is its program still running?");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok || body === null) {
    throw new Refusal(body?.error ?? `The studio answered with status ${response.status}: try again.`);
  }
  return body;
}

export const about = () => ask("api/studio");

export async function exampleExemplars() {
  return (await ask("api/exemplars")).map(exemplarOf);
}

export async function exampleLayouts(sizeIndex) {
  return (await ask(`api/layouts?size=${sizeIndex}`)).map(layoutOf);
}

export async function readLayout(file) {
  const form = new FormData();
  form.append("label", file, "label");
  return layoutOf(await ask("api/layout", { method: "POST", body: form }));
}

export async function readExemplar(photo, label) {
  const form = new FormData();
  form.append("photo", photo, "photo");
  if (label) form.append("label", label, "label");
  return exemplarOf(await ask("api/exemplar", { method: "POST", body: form }));
}

export function picture({ layout, exemplars, weights, seed, scale }, signal) {
  const side = ({ width, height }) => ({ width, height });
  const request = { layout: side(layout), exemplars: exemplars.map(side), weights, seed, scale };
  const form = new FormData();
  form.append("request", JSON.stringify(request));
  form.append("layout", new Blob([layout.label]), "layout");
  exemplars.forEach((exemplar, i) => {
    form.append(`photo${i}`, exemplar.photo, "photo");
    form.append(`label${i}`, new Blob([exemplar.label]), "label");
  });
  return ask("api/picture", { method: "POST", body: form, signal });
}

function layoutOf(found) {
  return { ...found, label: bytesOf(found.label) };
}

function exemplarOf(found) {
  const photo = new Blob([bytesOf(found.photo)], { type: "image/png" });
  return { ...found, photo, url: URL.createObjectURL(photo), label: bytesOf(found.label) };
}
