// The work that takes longer than a frame, away from the page: preparing a drawing, and running the network. The page asks
// with { id, what, ... }; the answer is { id, result } or { id, error }.
import { stages } from './prepare.js'

let ort = null     // The runtime
let session = null // The network

async function load({ script, wasm, model }) {
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }))
  ort = await import(url)
  URL.revokeObjectURL(url)
  ort.env.wasm.wasmBinary = wasm
  ort.env.wasm.numThreads = 1
  session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] })
}

// Maps of features are worth their transfer for a single image only
const SOME = ['logits', 'score'], ALL = [...SOME, 'conv1', 'conv2', 'conv3', 'conv4']

async function run({ images }) {
  const n = images.length / 784
  const pixels = new ort.Tensor('float32', images, [n, 1, 28, 28])
  const out = await session.run({ pixels }, n === 1 ? ALL : SOME)
  const found = { n, logits: out.logits.data, score: out.score.data }
  if (n === 1) for (const name of ALL.slice(2)) found[name] = { dims: out[name].dims, data: out[name].data }
  return found
}

function prepare({ imageData: { width, height, data }, off }) {
  const v = new Float32Array(width * height)
  for (let i = 0; i < v.length; i++) v[i] = data[4 * i] / 255 // Red, which in a grey drawing is all
  const found = stages({ h: height, w: width, v }, off)
  for (const p of Object.values(found.pictures)) p.v = Uint8Array.from(p.v, t => Math.round(255 * t)) // Smaller to transfer
  return found
}

const jobs = { load, run, prepare }

onmessage = async ({ data: { id, what, ...rest } }) => {
  try {
    postMessage({ id, result: await jobs[what](rest) })
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) })
  }
}
