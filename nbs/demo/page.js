// Draw a digit: the drawing, the image made of it, and the network's answer, which follow while one draws. The parts of the page
// below are modules of their own; if one of them cannot be loaded, the others work.
import { mountCanvas } from './draw.js' // From the package: site/_demo.py brings it here
import { loadNetwork, prepare, probabilities } from './network.js'
import { showImage } from './pictures.js'
import { DIGITS } from './strokes.js'

const find = id => document.getElementById(id)
const [status, answer] = ['status', 'answer'].map(find)
let network = null // Once loaded
let parts = {}     // The layers and the preparation, once loaded
let off = []       // Stages of the preparation that are left out

for (let digit = 0; digit < 10; digit++) {
  const row = document.createElement('li')
  row.id = `p${digit}`
  row.innerHTML = `<span>${digit}</span><meter min="0" max="100" aria-label="Probability of ${digit}"></meter><span class="percent"></span>`
  find('probs').append(row)
}

// --- reading: one drawing at a time, and of those that come meanwhile only the newest

let newest = null, reading = false
function changed(strokes, imageData) {
  newest = { empty: !strokes.length, imageData, at: performance.now() }
  if (!reading) next()
}

async function next() {
  const drawing = newest
  newest = null
  reading = true
  document.body.dataset.reading = 'yes'
  try {
    show(await read(drawing))
    performance.clearMeasures('reading')
    performance.measure('reading', { start: drawing.at }) // Shown by the browser's developer tools
  } catch (error) {
    show({ text: `This drawing could not be read: ${error.message}` })
  }
  reading = false
  if (newest) next()
  else delete document.body.dataset.reading
}

async function read({ empty, imageData }) {
  if (empty) return { text: 'Draw a digit.' }
  const { image, pictures } = await prepare(imageData, off)
  if (!image) return { pictures, text: 'This does not look like a single digit.' }
  if (!network) return { image, pictures, text: 'The network has not been loaded.' }
  const pixels = Float32Array.from(image, t => t / 255)
  const found = await network.run(pixels)
  const probs = probabilities(found.logits)
  const digit = probs.indexOf(Math.max(...probs))
  const unsure = found.score[0] < 0 // 199 digits in 200 score higher
  const text = `${unsure ? 'Not sure this is a digit. If it is: ' : ''}${digit}, with ${(100 * probs[digit]).toFixed(1)} percent.`
  return { image, pictures, pixels, found, probs, digit, unsure, text }
}

// --- showing

let text = ''
function say() { // Once the pen is up, so that a screen reader is not interrupted
  if (network && !drawing.busy && !playing && status.textContent !== text) status.textContent = text
}

function show(shown) {
  const { image, probs, digit = null, unsure = false } = shown
  showImage(find('seen'), image ?? new Uint8Array(784), 28, 28)
  for (let d = 0; d < 10; d++) {
    const row = find(`p${d}`), percent = 100 * (probs?.[d] ?? 0)
    row.classList.toggle('best', d === digit)
    row.querySelector('meter').value = percent
    row.querySelector('.percent').textContent = probs ? `${percent.toFixed(1)} %` : ''
  }
  answer.textContent = digit ?? '–'
  answer.classList.toggle('unsure', unsure)
  text = shown.text
  say()
  current = shown
  showParts()
}

// Parts that are out of sight are not drawn until one scrolls to them
const visible = new Set()
let current = { text: '' }
const sight = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) visible[isIntersecting ? 'add' : 'delete'](target.id)
  showParts()
}, { rootMargin: '200px' })
for (const id of ['inside', 'preparation', 'augment']) sight.observe(find(id))

const drawn = {} // What each part shows; it is not drawn twice, because that would take the focus from its buttons
function showParts() {
  const isNew = id => visible.has(id) && parts[id] && drawn[id] !== current && (drawn[id] = current)
  if (isNew('inside')) parts.inside.show(current.found ? current : null, network?.weights)
  if (isNew('preparation')) parts.preparation.show(current.pictures, current.text)
  if (current.image && !own && isNew('augment')) parts.augment.offer(Float32Array.from(current.image, v => v / 255))
}

// --- the drawing, and the digits that the page draws by itself

const calm = matchMedia('(prefers-reduced-motion: reduce)').matches
const PACE = 28 // Milliseconds for each point of a stroke
let own = false, playing = 0 // Is the drawing the page's own? Is it still growing?

export const drawing = mountCanvas(find('drawing'), {
  onChange: changed,
  onLift: () => say(),
  onStart() {
    if (own) drawing.clear()
    stop(false)
  },
})

function stop(still) {
  cancelAnimationFrame(playing);
  [playing, own] = [0, still]
}

function play(digit) {
  stop(true)
  const strokes = DIGITS[digit], points = strokes.flat().length
  if (calm) return drawing.set(strokes.map(stroke => [...stroke]))
  const from = performance.now()
  function grow(now) {
    let left = Math.min(Math.max(1, Math.floor((now - from) / PACE)), points)
    playing = left < points ? requestAnimationFrame(grow) : 0
    drawing.set(strokes.map(stroke => {
      const some = stroke.slice(0, Math.max(left, 0))
      left -= stroke.length
      return some
    }).filter(stroke => stroke.length))
  }
  playing = requestAnimationFrame(grow)
}

let last = 5
find('another').addEventListener('click', () => play(last = (last + 1 + Math.floor(9 * Math.random())) % 10))

// --- the network and the parts of the page

function fail(message) {
  status.textContent = `${message} Reload the page, or use a browser that supports WebAssembly.`
  status.classList.add('failed')
}

async function part(id, file, mount) {
  try {
    return mount(find(id), await import(file))
  } catch (error) {
    find(id).innerHTML = '<p class="failed"></p>'
    find(id).firstChild.textContent = `This part of the page could not be loaded: ${error.message}`
  }
}

show({ text: '' })
status.textContent = 'Loading the network …'
play(5)
const loading = loadNetwork()
part('inside', './layers.js', (place, { mountLayers }) => parts.inside = mountLayers(place)).then(again)
part('preparation', './preparation.js', (place, { mountPreparation }) => parts.preparation = mountPreparation(place, {
  onSwitch(names) { off = names; again() },
  onExample(strokes, pen) { stop(true); drawing.set(strokes, pen) },
})).then(again)
part('quiz', './quiz.js', (place, { mountQuiz }) => mountQuiz(place, loading))
part('augment', './augment.js', (place, { mountAugment }) => parts.augment = mountAugment(place, loading))
part('check', './check.js', (place, { mountCheck }) => mountCheck(place, loading))
function again() { changed(drawing.strokes, drawing.image()) }
loading.then(found => {
  network = found
  document.body.dataset.ready = 'yes'
  again()
}).catch(error => fail(`The network could not be loaded: ${error.message}.`))
