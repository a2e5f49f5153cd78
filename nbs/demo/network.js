// The network: its runtime and its one file are downloaded once a page, checked, and run in a worker, so that the page stays
// responsive. `weights` holds the same numbers that the runtime uses, read from the same file.
import { readWeights } from './onnx.js'

// onnxruntime-web in a fixed version, served with the site, or else from a CDN; each file is checked against its hash before any
// of it runs
const CDN = 'https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/'
const FILES = {
  'ort.wasm.bundle.min.mjs': 'sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG',
  'ort-wasm-simd-threaded.wasm': 'sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM',
}
// What the layers of the page expect of a network
const SHAPES = { conv1: [32, 1, 3, 3], conv2: [64, 32, 3, 3], conv3: [128, 64, 3, 3], conv4: [256, 128, 3, 3], fc1: [50, 4096], fc2: [10, 50] }

let worker = null
const waiting = new Map() // Questions to the worker, by number

function start() {
  worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' })
  worker.onmessage = ({ data: { id, result, error } }) => {
    const { resolve, reject } = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) resolve(result)
    else reject(new Error(error))
  }
  worker.onerror = () => {
    for (const { reject } of waiting.values()) reject(new Error('the script worker.js cannot be loaded'))
    waiting.clear()
    worker = null
  }
}

let count = 0
function ask(what, rest, transfer = []) {
  if (!worker) start()
  return new Promise((resolve, reject) => {
    waiting.set(++count, { resolve, reject })
    worker.postMessage({ id: count, what, ...rest }, transfer)
  })
}

// What stages() of prepare.js makes of a drawing; it works without the network
export const prepare = (imageData, off = []) => ask('prepare', { imageData, off })

async function bytes(url, integrity) {
  const answer = await fetch(url, integrity ? { integrity } : {}).catch(() => { throw new Error(`${url} cannot be downloaded`) })
  if (!answer.ok) throw new Error(`${url} was not found (status ${answer.status})`)
  return answer.arrayBuffer()
}

const here = name => new URL(name, import.meta.url).href
const runtime = (name, hash) => bytes(here(name), hash).catch(() => bytes(CDN + name, hash))

// A network of the worker's, by its number: `run` takes images of 784 values from 0 to 1, row by row
const opened = (weights, net) => ({ weights, run: images => ask('run', { images, net }) })

async function load() {
  const files = Object.entries(FILES).map(([name, hash]) => runtime(name, hash))
  const [model, script, wasm] = await Promise.all([bytes(here('s5_mnist.onnx')), ...files])
  const weights = readWeights(model)
  const { net } = await ask('load', { model, script, wasm }, [model, script, wasm])
  return opened(weights, net)
}

let network = null
export const loadNetwork = () => network ??= load()

// The network in an ONNX file that `s5_export RUN --maps` wrote
export async function openNetwork(model) {
  let weights
  try {
    weights = readWeights(model)
  } catch {
    throw new Error('it is not a network that s5_export RUN --maps wrote')
  }
  for (const [name, dims] of Object.entries(SHAPES)) {
    if (`${weights[name].dims}` !== `${dims}`)
      throw new Error(`its ${name} has weights of shape ${weights[name].dims.join('×')}, expected ${dims.join('×')}`)
  }
  await loadNetwork() // And with it the runtime
  const { net, outputs } = await ask('load', { model }, [model])
  if (!outputs.includes('conv1')) throw new Error('it was written without feature maps; write it again with s5_export RUN --maps --force')
  return opened(weights, net)
}

// Probabilities of the ten digits for image `i`
export function probabilities(logits, i = 0) {
  const ten = logits.subarray(10 * i, 10 * i + 10)
  const top = Math.max(...ten)
  const parts = ten.map(l => Math.exp(l - top))
  const total = parts.reduce((a, b) => a + b, 0)
  return parts.map(p => p / total)
}
