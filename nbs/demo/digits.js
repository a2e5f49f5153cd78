// The digits of MNIST's training set that the page learns from, and those that are held out, which other people wrote.
import { HELD_OUT, TRAINING } from './labels.js'
import { loadTiles } from './tiles.js'

const set = (labels, tiles) => ({ n: labels.length, labels: Array.from(labels, Number), images: tiles, pixels: joined(tiles) })

// Images of 784 values one after the other, as forward() of sgd.js takes them
export function joined(images) {
  const pixels = new Float32Array(784 * images.length)
  images.forEach((image, k) => pixels.set(image, 784 * k))
  return pixels
}

export async function loadDigits() {
  const tiles = await loadTiles('digits.png')
  const n = TRAINING.length
  return { training: set(TRAINING, tiles.slice(0, n)), heldOut: set(HELD_OUT, tiles.slice(n, n + HELD_OUT.length)) }
}
