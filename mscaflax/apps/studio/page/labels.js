// Label maps as pixels: colouring, flood fill, discs and lines. Ids stay exact: nothing is ever blended.

/** Draws ids (Uint8Array, row by row) in the palette's colours into a canvas of the same size. */
export function drawLabel(canvas, { width, height, label }, palette) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < label.length; i += 1) {
    const [r, g, b] = palette[label[i]];
    image.data.set([r, g, b, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Gives id to the area around (x, y) that holds one other id; neighbours share a side. */
export function floodFill({ width, height, label }, x, y, id) {
  const old = label[y * width + x];
  if (old === id) return;
  const waiting = [y * width + x];
  while (waiting.length) {
    const place = waiting.pop();
    if (label[place] !== old) continue;
    label[place] = id;
    const column = place % width;
    if (column > 0) waiting.push(place - 1);
    if (column < width - 1) waiting.push(place + 1);
    if (place >= width) waiting.push(place - width);
    if (place < width * (height - 1)) waiting.push(place + width);
  }
}

/** The pixels of a brush of this diameter around (x, y), inside of the map. */
export function disc({ width, height }, x, y, diameter) {
  const places = [];
  const reach = Math.ceil(diameter / 2);
  // An even disc has its centre on the corner of four pixels.
  const shift = diameter % 2 ? 0 : 0.5;
  const limit = (diameter / 2) ** 2;
  for (let v = y - reach; v <= y + reach; v += 1) {
    for (let u = x - reach; u <= x + reach; u += 1) {
      const near = (u - x + shift) ** 2 + (v - y + shift) ** 2 <= limit - (diameter > 2 ? 0.2 : 0);
      if (near && u >= 0 && v >= 0 && u < width && v < height) places.push(v * width + u);
    }
  }
  return places;
}

/** The pixels from one to another, both included (Bresenham). */
export function line([x, y], [toX, toY]) {
  const places = [[x, y]];
  const dx = Math.abs(toX - x), dy = -Math.abs(toY - y);
  const stepX = Math.sign(toX - x), stepY = Math.sign(toY - y);
  let error = dx + dy;
  while (x !== toX || y !== toY) {
    const twice = 2 * error;
    if (twice >= dy) { error += dy; x += stepX; }
    if (twice <= dx) { error += dx; y += stepY; }
    places.push([x, y]);
  }
  return places;
}
