// The distortions that training applies: the arithmetic of random_elastic in s5_mnist/augment.py, for one image and given
// amounts. An image is a Float32Array of 784 values from 0 to 1, row by row. The map leads from a pixel of the new image to a
// place in the old one, so the picture itself moves the opposite way.

const N = 28, POINTS = 5 // Pixels a side; points a side, between which the displacements are interpolated

// What training draws from: the largest amount in either direction, and for elastic the standard deviation
export const TRAINING = { degrees: 15, max_shift: 3, log_scale: 0.2, shear: 0.3, elastic_sigma: 0.7 }

// The new image. Amounts: angle (radians), slant, the logarithms of width and height, right and down (pixels), and elastic
// (pixels); points: [2,5,5] normally distributed numbers, the displacements to the right and down.
export function distort(image, amounts, points) {
  const places = sourcePlaces(affineMap(amounts), smoothField(points), amounts.elastic)
  const inside = (y, x) => y >= 0 && x >= 0 && y < N && x < N ? image[y * N + x] : 0
  return Float32Array.from(places, ([x, y]) => clamp(bicubic(inside, y, x), 0, 1)) // Bicubic overshoots at edges
}

// Two rows of three numbers; coordinates run from -1 to 1 across the image
function affineMap({ angle, slant, width, height, right, down }) {
  const [c, s, w, h] = [Math.cos(angle), Math.sin(angle), Math.exp(width), Math.exp(height)]
  return [[w * c, w * (slant * c - s), 2 * right / N], [h * s, h * (slant * s + c), 2 * down / N]]
}

// Where each new pixel comes from: a list of [x, y] in pixels of the old image
function sourcePlaces([[a, b, right], [c, d, down]], field, elastic) {
  const places = []
  const pixel = t => ((t + 1) * N - 1) / 2 // From coordinates to pixels
  for (let y = 0; y < N; y++) for (let x = 0; x < N; x++) {
    const [u, v] = [(2 * x + 1) / N - 1, (2 * y + 1) / N - 1]
    const i = y * N + x
    places.push([pixel(a * u + b * v + right) + elastic * field[i],
                 pixel(c * u + d * v + down) + elastic * field[N * N + i]])
  }
  return places
}

// Displacements [2,28,28] from those of the points; corner points lie on corner pixels
function smoothField(points) {
  const field = new Float32Array(2 * N * N)
  const step = (POINTS - 1) / (N - 1)
  for (let k = 0; k < 2; k++) {
    const nearest = (y, x) => points[(k * POINTS + clamp(y, 0, POINTS - 1)) * POINTS + clamp(x, 0, POINTS - 1)]
    for (let y = 0; y < N; y++) for (let x = 0; x < N; x++)
      field[(k * N + y) * N + x] = bicubic(nearest, y * step, x * step)
  }
  return field
}

// Value between pixels, from the 4×4 around the place
function bicubic(at, y, x) {
  const [top, left] = [Math.floor(y), Math.floor(x)]
  const [rows, columns] = [weights(y - top), weights(x - left)]
  let sum = 0
  for (let i = 0; i < 4; i++) for (let j = 0; j < 4; j++)
    sum += rows[i] * columns[j] * at(top - 1 + i, left - 1 + j)
  return sum
}

// Weights of the pixels at -1, 0, 1 and 2 for a place t between 0 and 1: cubics whose slope at a neighbour is -0.75
const SLOPE = -0.75
function weights(t) {
  const near = d => ((SLOPE + 2) * d - (SLOPE + 3)) * d * d + 1
  const far = d => ((SLOPE * d - 5 * SLOPE) * d + 8 * SLOPE) * d - 4 * SLOPE
  return [far(1 + t), near(t), near(1 - t), far(2 - t)]
}

const clamp = (t, low, high) => Math.min(Math.max(t, low), high)

// New displacements for the points
export function randomPoints() {
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random())
  return Float32Array.from({ length: 2 * POINTS * POINTS }, normal)
}
