// Draw a digit: the canvas, the 28×28 image made from the drawing, and the network's prediction, all in the browser.
import { preprocess } from './prepare.js'

const SIZE = 256, PEN = 22, STEP = 8, QUIET = 150 // Pixels, pixels, pixels per key press, ms after the last stroke
const find = id => document.getElementById(id)
const [canvas, status, answer, spoken] = ['draw', 'status', 'answer', 'pen'].map(find)
const pen = canvas.getContext('2d', { willReadFrequently: true })
const strokes = []     // Lists of [x, y] points, in canvas pixels
let stroke = null      // The stroke being drawn
let finger = null      // Id of the pointer that draws it; null for the keyboard
let ort = null         // The runtime that runs the network
let session = null     // The network, once loaded
let asked = 0          // Counts drawings, to drop a late answer to an old one

for (let digit = 0; digit < 10; digit++) {
  const row = document.createElement('li')
  row.id = `p${digit}`
  row.innerHTML = `<span>${digit}</span><meter min="0" max="100" aria-label="Probability of ${digit}"></meter><span class="percent"></span>`
  find('probs').append(row)
}

// --- drawing

function paint() {
  pen.fillStyle = '#fff'
  pen.fillRect(0, 0, SIZE, SIZE)
  Object.assign(pen, { strokeStyle: '#000', fillStyle: '#000', lineWidth: PEN, lineCap: 'round', lineJoin: 'round' })
  for (const points of strokes) {
    pen.beginPath()
    pen.moveTo(...points[0])
    for (const p of points.length > 1 ? points.slice(1) : points) pen.lineTo(...p)
    pen.stroke()
  }
}

function pointOf(event) {
  const box = canvas.getBoundingClientRect()
  return [(event.clientX - box.left) * SIZE / box.width, (event.clientY - box.top) * SIZE / box.height]
}

let timer
function changed() {
  paint()
  asked++
  clearTimeout(timer)
  timer = setTimeout(read, QUIET)
}

canvas.addEventListener('pointerdown', event => {
  if (event.button > 0 || finger !== null) return // Ignore a second finger or the palm
  event.preventDefault()
  lift()
  finger = event.pointerId
  canvas.setPointerCapture(finger)
  strokes.push(stroke = [pointOf(event)])
  changed()
})
canvas.addEventListener('pointermove', event => {
  if (event.pointerId !== finger) return
  const all = event.getCoalescedEvents?.() ?? []
  for (const e of all.length ? all : [event]) stroke.push(pointOf(e))
  changed()
})
for (const end of ['pointerup', 'pointercancel', 'lostpointercapture'])
  canvas.addEventListener(end, event => { if (event.pointerId === finger) lift() })
function lift() { [stroke, finger, cursor.down] = [null, null, false] }

// Keyboard: arrows move a cursor, the space bar lowers and lifts the pen
const cursor = { at: [SIZE / 2, SIZE / 4], down: false }
const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }
canvas.addEventListener('keydown', event => {
  if (event.ctrlKey || event.altKey || event.metaKey || finger !== null) return
  if (event.key === ' ') {
    if (event.repeat) return event.preventDefault()
    const down = !cursor.down
    lift()
    cursor.down = down
    if (down) strokes.push(stroke = [[...cursor.at]])
  } else if (moves[event.key]) {
    cursor.at = cursor.at.map((v, i) => Math.min(Math.max(v + moves[event.key][i], 0), SIZE))
    if (cursor.down) stroke.push([...cursor.at])
  } else return
  const [x, y] = cursor.at.map(v => Math.round(100 * v / SIZE))
  spoken.textContent = `Pen ${cursor.down ? 'down' : 'up'}, ${x} percent from the left, ${y} percent from the top.`
  event.preventDefault()
  changed()
  mark()
})
function mark() {
  pen.strokeStyle = '#d33'
  pen.lineWidth = 2
  pen.strokeRect(cursor.at[0] - 5, cursor.at[1] - 5, 10, 10)
}
canvas.addEventListener('focus', () => { if (canvas.matches(':focus-visible')) mark() })
canvas.addEventListener('blur', () => { lift(); paint() })

find('undo').addEventListener('click', () => { lift(); strokes.pop(); changed() })
find('clear').addEventListener('click', () => { lift(); strokes.length = 0; changed() })

// --- reading

function drawing() { // The canvas without the cursor, as preprocess takes it
  paint()
  const { data } = pen.getImageData(0, 0, SIZE, SIZE)
  return { h: SIZE, w: SIZE, v: Float32Array.from({ length: SIZE * SIZE }, (_, i) => data[4 * i] / 255) }
}

async function read() {
  const asking = asked
  try {
    const image = strokes.length ? preprocess(drawing()) : null
    if (document.activeElement === canvas && canvas.matches(':focus-visible')) mark()
    if (!image) return show(null, null, strokes.length ? 'This does not look like a single digit.' : 'Draw a digit.')
    if (!session) return grey(find('seen'), image, 28, 28)
    const pixels = new ort.Tensor('float32', Float32Array.from(image, t => t / 255), [1, 1, 28, 28])
    const found = await session.run({ pixels })
    if (asking === asked) show(image, found)
  } catch (error) {
    if (asking === asked) show(null, null, `This drawing could not be read: ${error.message}`)
  }
}

// --- showing

function say(text) { status.textContent = text }

function grey(target, values, h, w) { // Values from 0 to the largest, on a small canvas
  Object.assign(target, { width: w, height: h })
  const top = Math.max(...values, 1e-6)
  const data = new ImageData(w, h)
  values.forEach((v, i) => data.data.set([255 * v / top, 255 * v / top, 255 * v / top, 255], 4 * i))
  target.getContext('2d').putImageData(data, 0, 0)
}

function show(image, found, otherwise) {
  grey(find('seen'), image ?? new Uint8Array(784), 28, 28)
  const logits = found ? [...found.logits.data] : null
  const top = logits && Math.max(...logits)
  const parts = logits?.map(l => Math.exp(l - top)) ?? Array(10).fill(0)
  const total = parts.reduce((a, b) => a + b, 0) || 1
  const best = logits ? logits.indexOf(top) : -1
  parts.forEach((p, digit) => {
    const percent = 100 * p / total
    const row = find(`p${digit}`)
    row.classList.toggle('best', digit === best)
    row.querySelector('meter').value = percent
    row.querySelector('.percent').textContent = logits ? `${percent.toFixed(1)} %` : ''
  })
  answer.textContent = logits ? best : '–'
  const unsure = logits && found.score.data[0] < 0 // 199 digits in 200 score higher
  answer.classList.toggle('unsure', unsure)
  const doubt = unsure ? 'Not sure this is a digit. If it is: ' : ''
  if (session) say(logits ? `${doubt}${best}, with ${(100 * parts[best] / total).toFixed(1)} percent.` : otherwise)
  for (const name of ['conv1', 'conv2', 'conv3', 'conv4']) maps(name, found?.[name])
}

function maps(name, tensor) { // The feature maps of a convolution, side by side
  const place = find(name)
  place.replaceChildren()
  if (!tensor) return
  const [, channels, h, w] = tensor.dims
  const columns = 2 ** Math.ceil(Math.log2(channels) / 2)
  const rows = channels / columns
  const values = new Float32Array(rows * h * columns * w)
  for (let c = 0; c < channels; c++) for (let y = 0; y < h; y++) for (let x = 0; x < w; x++)
    values[(Math.floor(c / columns) * h + y) * columns * w + c % columns * w + x] = tensor.data[(c * h + y) * w + x]
  const board = document.createElement('canvas')
  board.setAttribute('role', 'img')
  board.setAttribute('aria-label', `${name}: ${channels} feature maps of ${h} by ${w}`)
  grey(board, values, rows * h, columns * w)
  place.append(board)
}

// --- the network

// onnxruntime-web in a fixed version; each file is checked against its hash before any of it runs
const RUNTIME = 'https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/'
const FILES = {
  'ort.wasm.bundle.min.mjs': 'sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG',
  'ort-wasm-simd-threaded.wasm': 'sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM',
}
const MODEL = new URL('s5_mnist.onnx', import.meta.url).href

async function bytes(url, integrity) {
  const answer = await fetch(url, integrity ? { integrity } : {}).catch(() => { throw new Error(`${url} cannot be downloaded`) })
  if (!answer.ok) throw new Error(`${url} was not found (status ${answer.status})`)
  return answer.arrayBuffer()
}

async function load() {
  const files = Object.entries(FILES).map(([name, hash]) => bytes(RUNTIME + name, hash))
  const [model, script, wasm] = await Promise.all([bytes(MODEL), ...files])
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }))
  ort = await import(url)
  URL.revokeObjectURL(url)
  ort.env.wasm.wasmBinary = wasm
  ort.env.wasm.numThreads = 1
  session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] })
}

paint()
show(null)
say('Loading the network …')
load().then(() => {
  say('Draw a digit.')
  document.body.dataset.ready = 'yes'
  changed()
}).catch(error => {
  say(`The network could not be loaded: ${error.message}. ` +
    'Reload the page, or use a browser that supports WebAssembly.')
  status.classList.add('failed')
})
