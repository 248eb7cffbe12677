// The tile's image as the reader wants to see it: brightness, contrast, gamma and saturation, computed once for a tile
// and not with every frame.

export const NEUTRAL = { brightness: 0, contrast: 0, gamma: 1, saturation: 1 };
const NAMES = Object.keys(NEUTRAL);
// Share of red, green and blue in what the eye sees as brightness (ITU-R BT.709).
const LUMA = [0.2126, 0.7152, 0.0722];

const isNeutral = (settings) => NAMES.every((name) => settings[name] === NEUTRAL[name]);

/** `work.image` under these settings; computed when it is asked for the first time. */
export function picture(work, settings) {
  if (isNeutral(settings)) return work.image;
  const key = NAMES.map((name) => settings[name]).join();
  if (work.adjusted?.key !== key || work.adjusted.image !== work.image) {
    work.adjusted = { key, image: work.image, result: adjust(work.image, settings) };
  }
  return work.adjusted.result;
}

export const looksDifferent = (first, second) => NAMES.some((name) => first[name] !== second[name]);

/** What becomes of each value 0..255 of a colour: gamma first, then contrast about the middle, then brightness. */
export function valueTable({ brightness, contrast, gamma }) {
  // From flat grey (-1) over unchanged (0) to black and white (1).
  const slope = Math.tan(((Math.min(contrast, 0.98) + 1) * Math.PI) / 4);
  return Float32Array.from({ length: 256 }, (_, value) => {
    const light = ((value / 255) ** (1 / gamma) - 0.5) * slope + 0.5 + brightness;
    return Math.max(0, Math.min(255, 255 * light));
  });
}

/** A canvas with the adjusted image. */
export function adjust(image, settings) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height);
  const { data } = pixels; // clamped to 0..255 by its type
  const table = valueTable(settings);
  const { saturation } = settings;
  for (let at = 0; at < data.length; at += 4) {
    const red = table[data[at]];
    const green = table[data[at + 1]];
    const blue = table[data[at + 2]];
    const grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue;
    data[at] = grey + saturation * (red - grey);
    data[at + 1] = grey + saturation * (green - grey);
    data[at + 2] = grey + saturation * (blue - grey);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
