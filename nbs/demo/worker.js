// The work that takes longer than a frame, away from the page: preparing a drawing, and running the network. The page asks
// with { id, what, ... }; the answer is { id, result } or { id, error }.
import { stages } from './prepare.js'

let ort = null      // The runtime
const sessions = [] // The networks

async function load({ script, wasm, model }) { // The runtime comes with the first network
  if (script) {
    const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }))
    ort = await import(url)
    URL.revokeObjectURL(url)
    ort.env.wasm.wasmBinary = wasm
    ort.env.wasm.numThreads = 1
  }
  const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] })
  return { net: sessions.push(session) - 1, outputs: session.outputNames }
}

// Maps of features are worth their transfer for a single image only; a network of the visitor's has no score
const SOME = ['logits', 'score'], MAPS = ['conv1', 'conv2', 'conv3', 'conv4']

async function run({ images, net }) {
  const n = images.length / 784, session = sessions[net]
  const pixels = new ort.Tensor('float32', images, [n, 1, 28, 28])
  const wanted = [...SOME, ...n === 1 ? MAPS : []].filter(name => session.outputNames.includes(name))
  const out = await session.run({ pixels }, wanted)
  const found = { n, logits: out.logits.data, score: out.score?.data }
  if (n === 1) for (const name of MAPS) found[name] = { dims: out[name].dims, data: out[name].data }
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
