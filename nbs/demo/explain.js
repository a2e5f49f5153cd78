// How each value of the network comes about: the layers in their order, what one value is computed from, and which part of the
// image it depends on. Only arithmetic, nothing of the page.

// `maps` maps of `size` by `size` values, computed from the layer `from`; neighbouring values are `jump` pixels of the image
// apart, and each depends on `field` by `field` pixels
export const LAYERS = [
  { name: 'image', kind: 'image', maps: 1, size: 28, jump: 1, field: 1 },
  { name: 'conv1', kind: 'conv', from: 'image', maps: 32, size: 26, jump: 1, field: 3 },
  { name: 'conv2', kind: 'conv', from: 'conv1', maps: 64, size: 24, jump: 1, field: 5 },
  { name: 'pool1', kind: 'pool', from: 'conv2', maps: 64, size: 12, jump: 2, field: 6 },
  { name: 'conv3', kind: 'conv', from: 'pool1', maps: 128, size: 10, jump: 2, field: 10 },
  { name: 'conv4', kind: 'conv', from: 'conv3', maps: 256, size: 8, jump: 2, field: 14 },
  { name: 'pool2', kind: 'pool', from: 'conv4', maps: 256, size: 4, jump: 4, field: 16 },
  { name: 'fc1', kind: 'linear', from: 'pool2', maps: 50, size: 1, jump: 0, field: 28 },
  { name: 'fc2', kind: 'linear', from: 'fc1', maps: 10, size: 1, jump: 0, field: 28 },
]
export const layerOf = name => LAYERS.find(layer => layer.name === name)

function pooled(values, maps, size) { // The largest of each 2 by 2 values
  const half = size / 2, out = new Float32Array(maps * half * half)
  for (let k = 0; k < maps; k++) for (let y = 0; y < half; y++) for (let x = 0; x < half; x++) {
    const i = (k * size + 2 * y) * size + 2 * x
    out[(k * half + y) * half + x] = Math.max(values[i], values[i + 1], values[i + size], values[i + size + 1])
  }
  return out
}

function linear({ weight, bias }, values) {
  return bias.map((b, k) => {
    let total = b
    for (let i = 0, at = k * values.length; i < values.length; i++) total += weight[at + i] * values[i]
    return total
  })
}

// The values of all layers by name, map after map: `pixels` from 0 to 1, what the network returned for them, its weights.
// The network returns the maps of its convolutions after ReLU; pools and fc1 are computed here.
export function allValues(pixels, found, weights) {
  const values = { image: pixels.map(p => (p - weights.mean) / weights.std), fc2: found.logits }
  for (const name of ['conv1', 'conv2', 'conv3', 'conv4']) values[name] = found[name].data
  values.pool1 = pooled(values.conv2, 64, 24)
  values.pool2 = pooled(values.conv4, 256, 8)
  values.fc1 = linear(weights.fc1, values.pool2).map(t => Math.max(t, 0))
  return values
}

// The part of the image that a value depends on: first row and column, and width in pixels
export function fieldOf(layer, y, x) {
  return { top: y * layer.jump, left: x * layer.jump, size: layer.field }
}

function block(values, size, map, top, left, k) { // k by k values of a map
  const out = new Float32Array(k * k)
  for (let y = 0; y < k; y++) for (let x = 0; x < k; x++) out[y * k + x] = values[(map * size + top + y) * size + left + x]
  return out
}

// How value (y, x) of map `map` comes about.
//   conv, linear: { k, terms: [{ from, patch, kernel, products, sum }], bias, total, value }, one term for each map of the
//     layer before, the largest sums (whatever their sign) first; `total` is their sum plus the bias
//   pool: { patch, value }; image: { value }
export function explain(layer, map, y, x, values, weights) {
  const value = values[layer.name][(map * layer.size + y) * layer.size + x]
  if (layer.kind === 'image') return { value }
  const before = layerOf(layer.from)
  if (layer.kind === 'pool') return { value, patch: block(values[layer.from], before.size, map, 2 * y, 2 * x, 2) }
  const k = layer.kind === 'conv' ? 3 : before.size
  const { weight, bias } = weights[layer.name]
  const terms = []
  for (let from = 0; from < before.maps; from++) {
    const patch = block(values[layer.from], before.size, from, y, x, k)
    const at = (map * before.maps + from) * k * k
    const kernel = weight.subarray(at, at + k * k)
    const products = patch.map((p, i) => p * kernel[i])
    terms.push({ from, patch, kernel, products, sum: products.reduce((a, b) => a + b, 0) })
  }
  const total = terms.reduce((t, term) => t + term.sum, bias[map])
  terms.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum))
  return { k, terms, bias: bias[map], total, value }
}
