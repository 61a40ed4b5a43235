/**
 * The log-mel picture of a sound: the same cells and colours as `logitstore.views.picture`. 96 HTK-mel bands from 0 Hz to
 * half the rate, about 500 frames whatever the length, drawn over 80 dB. It hides nothing; masks are drawn over it.
 */

const BANDS = 96, FRAMES = 500, RANGE_DB = 80;
const COLOURS = [
  [6, 6, 26], [43, 15, 92], [98, 25, 122], [157, 42, 116], [212, 70, 87], [245, 122, 53], [250, 186, 74], [250, 250, 190],
];

/**
 * Decibels of every cell, frame by frame, low bands first.
 * @param {Float32Array} samples
 * @param {number} rate in Hz
 * @returns {{cells: Float32Array, frames: number, loudest: number}} cells: frames x 96
 */
export function logMel(samples, rate) {
  const size = 1 << Math.max(5, Math.ceil(Math.log2(rate * 0.032)));
  const hop = Math.max(1, Math.round(samples.length / FRAMES)), half = size / 2;
  const frames = Math.max(1, Math.floor(Math.max(samples.length, half + 1) / hop) + 1);
  const padded = reflected(samples, half);
  const window = Float64Array.from({ length: size }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / size));
  const bank = filters(size, rate), transform = fourier(size);
  const real = new Float64Array(size), imaginary = new Float64Array(size), power = new Float64Array(half + 1);
  const cells = new Float32Array(frames * BANDS);
  let loudest = -Infinity;
  for (let frame = 0; frame < frames; frame++) {
    for (let n = 0; n < size; n++) real[n] = (padded[frame * hop + n] ?? 0) * window[n];
    imaginary.fill(0);
    transform(real, imaginary);
    for (let n = 0; n <= half; n++) power[n] = real[n] ** 2 + imaginary[n] ** 2;
    for (let band = 0; band < BANDS; band++) {
      let sum = 0;
      for (const [bin, weight] of bank[band]) sum += power[bin] * weight;
      const decibels = 10 * Math.log10(Math.max(sum, 1e-10));
      cells[frame * BANDS + band] = decibels;
      loudest = Math.max(loudest, decibels);
    }
  }
  return { cells, frames, loudest };
}

/**
 * Draw decibels into a canvas, one pixel a cell, low bands at the bottom.
 * @param {HTMLCanvasElement} canvas
 * @param {{cells: Float32Array, frames: number}} picture
 * @param {number} loudest decibels of the brightest colour
 */
export function paint(canvas, picture, loudest) {
  canvas.width = picture.frames;
  canvas.height = BANDS;
  const context = canvas.getContext("2d");
  const image = context.createImageData(picture.frames, BANDS);
  for (let frame = 0; frame < picture.frames; frame++) {
    for (let band = 0; band < BANDS; band++) {
      const level = (picture.cells[frame * BANDS + band] - loudest + RANGE_DB) / RANGE_DB;
      image.data.set(PALETTE[Math.trunc(Math.min(1, Math.max(0, level)) * 255)], 4 * ((BANDS - 1 - band) * picture.frames + frame));
    }
  }
  context.putImageData(image, 0, 0);
}

/** Where a frequency lies in the picture, 0 at its bottom to 1 at its top. @param {number} hertz @param {number} rate */
export function heightOf(hertz, rate) {
  return Math.log1p(hertz / 700) / Math.log1p(rate / 2 / 700);
}

const PALETTE = Array.from({ length: 256 }, (_, shade) => {
  const at = (shade / 255) * (COLOURS.length - 1), left = Math.min(Math.floor(at), COLOURS.length - 2);
  return [...COLOURS[left].map((low, channel) => Math.round(low + (COLOURS[left + 1][channel] - low) * (at - left))), 255];
});

/** Samples with `half` more at both ends, mirrored. @param {Float32Array} samples @param {number} half */
function reflected(samples, half) {
  const length = Math.max(samples.length, half + 1), padded = new Float64Array(length + 2 * half);
  for (let n = 0; n < padded.length; n++) {
    let at = Math.abs(n - half);
    if (at >= length) at = 2 * (length - 1) - at;
    padded[n] = samples[at] ?? 0;
  }
  return padded;
}

/** The triangles of the bands: for each, its bins and their weights. @param {number} size @param {number} rate */
function filters(size, rate) {
  const top = Math.log1p(rate / 2 / 700);
  const edges = Array.from({ length: BANDS + 2 }, (_, n) => 700 * Math.expm1((top * n) / (BANDS + 1)));
  return Array.from({ length: BANDS }, (_, band) => {
    const [low, middle, high] = edges.slice(band, band + 3), found = [];
    for (let bin = 0; bin <= size / 2; bin++) {
      const hertz = (bin * rate) / size;
      const weight = Math.min((hertz - low) / (middle - low), (high - hertz) / (high - middle));
      if (weight > 0) found.push([bin, weight]);
    }
    return found;
  });
}

/** A Fourier transform in place, for one power of two. @param {number} size */
function fourier(size) {
  const bits = Math.log2(size), order = new Uint32Array(size);
  for (let n = 1; n < size; n++) order[n] = (order[n >> 1] >> 1) | ((n & 1) << (bits - 1));
  const cosines = Float64Array.from({ length: size / 2 }, (_, n) => Math.cos((2 * Math.PI * n) / size));
  const sines = Float64Array.from({ length: size / 2 }, (_, n) => -Math.sin((2 * Math.PI * n) / size));
  return (/** @type {Float64Array} */ real, /** @type {Float64Array} */ imaginary) => {
    for (let n = 0; n < size; n++) {
      const m = order[n];
      if (m > n) {
        [real[n], real[m]] = [real[m], real[n]];
        [imaginary[n], imaginary[m]] = [imaginary[m], imaginary[n]];
      }
    }
    for (let width = 2; width <= size; width *= 2) {
      const half = width / 2, stride = size / width;
      for (let start = 0; start < size; start += width) {
        for (let n = 0; n < half; n++) {
          const a = start + n, b = a + half, c = cosines[n * stride], s = sines[n * stride];
          const x = real[b] * c - imaginary[b] * s, y = real[b] * s + imaginary[b] * c;
          real[b] = real[a] - x;
          imaginary[b] = imaginary[a] - y;
          real[a] += x;
          imaginary[a] += y;
        }
      }
    }
  };
}
