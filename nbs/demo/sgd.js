// How a network learns, written out: the loss of a network of linear layers with ReLU between them, the slope of the loss for
// every weight, and a step downhill. Nothing here knows of the page; tests/test_learn_parts.py compares it with torch.

// A layer has a weight for each pair of an input and an output, weight[input * outputs + output], and a bias for each output
export const layer = (inputs, outputs, draw = () => 0) => ({
  inputs, outputs, weight: Float32Array.from({ length: inputs * outputs }, draw), bias: new Float32Array(outputs),
})

// --- forward

function linear({ inputs, outputs, weight, bias }, x) { // Rows of inputs, one after the other, to rows of outputs
  const n = x.length / inputs
  const out = new Float32Array(n * outputs)
  const sums = new Float64Array(outputs)
  for (let k = 0; k < n; k++) {
    sums.set(bias)
    for (let i = 0; i < inputs; i++) {
      const value = x[k * inputs + i]
      if (value === 0) continue // As most pixels are
      for (let o = 0; o < outputs; o++) sums[o] += value * weight[i * outputs + o]
    }
    out.set(sums, k * outputs)
  }
  return out
}

const relu = values => values.map(v => v < 0 ? 0 : v)

// All values on the way: the input of the first layer, of the second, ..., and at the end the logits
export function forward(layers, x) {
  const values = [x]
  layers.forEach((layer, l) => {
    const out = linear(layer, values[l])
    values.push(l < layers.length - 1 ? relu(out) : out)
  })
  return values
}

// The mean cross-entropy of logits, and its slope for each of them: (probability − 1 for the label, 0 for the others) / n
export function crossEntropy(logits, labels) {
  const n = labels.length, classes = logits.length / n
  const slopes = new Float32Array(logits.length)
  let loss = 0
  for (let k = 0; k < n; k++) {
    const row = logits.subarray(k * classes, (k + 1) * classes)
    const top = Math.max(...row) // Taken off first, so that no exponential is too large for a number
    const sum = row.reduce((total, z) => total + Math.exp(z - top), 0)
    loss += (top + Math.log(sum) - row[labels[k]]) / n
    for (let c = 0; c < classes; c++)
      slopes[k * classes + c] = (Math.exp(row[c] - top) / sum - (c === labels[k])) / n
  }
  return { loss, slopes }
}

// --- backward

// The slope of the loss for every weight and bias of a layer, from the slopes for its outputs
function ownSlopes({ inputs, outputs }, x, slopes) {
  const weight = new Float32Array(inputs * outputs), bias = new Float32Array(outputs)
  for (let k = 0; k < slopes.length / outputs; k++) {
    const row = slopes.subarray(k * outputs, (k + 1) * outputs)
    for (let o = 0; o < outputs; o++) bias[o] += row[o]
    for (let i = 0; i < inputs; i++) {
      const value = x[k * inputs + i]
      if (value === 0) continue
      for (let o = 0; o < outputs; o++) weight[i * outputs + o] += value * row[o]
    }
  }
  return { weight, bias }
}

// The slope of the loss for every input of a layer; where ReLU gave 0, nothing passes
function inputSlopes({ inputs, outputs, weight }, x, slopes) {
  return x.map((value, j) => {
    if (value === 0) return 0
    const k = Math.floor(j / inputs), i = j % inputs
    let sum = 0
    for (let o = 0; o < outputs; o++) sum += slopes[k * outputs + o] * weight[i * outputs + o]
    return sum
  })
}

export function gradients(layers, x, labels) { // The loss, and slopes in the form of the layers
  const values = forward(layers, x)
  let { loss, slopes } = crossEntropy(values.at(-1), labels)
  const found = []
  for (let l = layers.length - 1; l >= 0; l--) { // The chain rule, from the last layer to the first
    found.unshift(ownSlopes(layers[l], values[l], slopes))
    if (l > 0) slopes = inputSlopes(layers[l], values[l], slopes)
  }
  return { loss, slopes: found }
}

export function step(layers, slopes, rate) { // Every weight a little downhill
  layers.forEach(({ weight, bias }, l) => {
    slopes[l].weight.forEach((slope, i) => { weight[i] -= rate * slope })
    slopes[l].bias.forEach((slope, o) => { bias[o] -= rate * slope })
  })
}

// --- chance, the same for the same seed

export function generator(seed) { // A function that returns a number from 0 up to 1; a linear congruential generator
  let state = seed >>> 0
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32
}

export function* batches(n, size, random) { // Without end: the numbers below n in a new order, some at a time
  const order = Array.from({ length: n }, (_, i) => i)
  while (true) {
    for (let i = n - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]]
    }
    for (let i = 0; i + size <= n; i += size) yield order.slice(i, i + size)
  }
}
