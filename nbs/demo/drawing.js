// A canvas with the network's answer beside it, which follows while one draws; at first it draws a digit by itself. It stands
// at the top of the page to draw on, and small in the parts that need a drawing.
import { mountCanvas } from './draw.js' // From the package: site/_demo.py brings it here
import { chances } from './chances.js'
import { element, percent } from './dom.js'
import { loadNetwork, prepare, probabilities } from './network.js'
import { newestOnly, play } from './play.js'
import { showImage } from './pictures.js'
import { DIGITS } from './strokes.js'

export const SHEETS = ['draw.css', 'drawing.css']

const doubt = 'Not sure this is a digit. If it is: '
const plainly = ({ digit, sure, unsure }) => `${unsure ? doubt : ''}${digit} (${sure} sure)`

// `small`: without the list of probabilities, and with a button for each digit. `onShow(shown)` gets what was made of each
// drawing: { pictures, image, pixels, found, probs, digit, sure, unsure, text }, as far as it came. `tell` makes the sentence
// that is the answer.
// Returns { canvas, again(), leaveOut(stages), draw(strokes, pen), use(network), own }; `own`: is the drawing the page's?
export function mountDrawing(place, { small = false, tell = plainly, onShow = () => {} } = {}) {
  const view = build(place, small)
  let network = null, off = [], own = false, text = ''
  const player = play(strokes => canvas.set(strokes))

  const changed = newestOnly(async ({ empty, imageData, at }) => {
    const shown = await read(empty, imageData).catch(error => ({ text: `This drawing could not be read: ${error.message}` }))
    view.show(shown)
    text = shown.text
    say()
    onShow(shown)
    performance.clearMeasures('reading')
    performance.measure('reading', { start: at }) // Shown by the browser's developer tools
  }, busy => place.toggleAttribute('data-reading', busy))

  async function read(empty, imageData) {
    if (empty) return { text: 'Draw a digit.' }
    const { image, pictures } = await prepare(imageData, off)
    if (!image) return { pictures, text: 'This does not look like a single digit.' }
    if (!network) return { image, pictures, text: 'The network has not been loaded.' }
    const pixels = Float32Array.from(image, t => t / 255)
    const { weights, run } = network
    const found = await run(pixels)
    const probs = probabilities(found.logits)
    const digit = probs.indexOf(Math.max(...probs))
    const answer = { digit, sure: percent(probs[digit]), unsure: found.score?.[0] < 0, own } // 199 digits in 200 score higher
    return { image, pictures, pixels, found, probs, weights, ...answer, text: tell(answer) }
  }

  function say() { // Once the pen is up, so that a screen reader is not interrupted
    if (network && !canvas.busy && !player.playing) view.say(text)
  }
  const canvas = mountCanvas(view.paper, {
    onChange: (strokes, imageData) => changed({ empty: !strokes.length, imageData, at: performance.now() }),
    onLift: say,
    onStart() {
      if (own) canvas.clear()
      player.stop()
      own = false
    },
  })
  const again = () => changed({ empty: !canvas.strokes.length, imageData: canvas.image(), at: performance.now() })
  function draw(strokes, pen) {
    player.stop()
    own = true
    canvas.set(strokes.map(stroke => [...stroke]), pen)
  }
  function sketch(digit) {
    own = true
    player.start(DIGITS[digit])
  }
  function use(chosen) {
    network = chosen
    again()
  }

  view.on(sketch)
  view.say('Loading the network …')
  sketch(5)
  loadNetwork().then(found => {
    network ??= found
    place.dataset.ready = 'yes'
    again()
  }).catch(error => view.fail(`The network could not be loaded: ${error.message}. Reload the page, or use a browser that ` +
    'supports WebAssembly.'))
  return { canvas, again, draw, use, leaveOut(stages) { off = stages; again() }, get own() { return own } }
}

// --- what is shown

function build(place, small) {
  let sketch, last = 5
  const paper = element('div', { className: 'paper' })
  const read = element('span', { className: 'read', 'aria-hidden': 'true' }, '–')
  const seen = element('canvas', { className: 'seen', width: 28, height: 28, role: 'img', 'aria-label': 'The image that the network sees' })
  const status = element('p', { className: 'status', role: 'status', 'aria-live': 'polite' })
  const probs = chances()
  const button = (text, digit, more) => element('button', { type: 'button', onclick: () => sketch(last = digit()), ...more }, text)
  const another = small
    ? element('div', { className: 'samples', role: 'group', 'aria-label': 'Draw one for me' },
      element('span', { className: 'small' }, 'Draw one for me:'), ...DIGITS.map((_, digit) =>
      button(`${digit}`, () => digit, { 'aria-label': `Draw a ${digit} for me` })))
    : element('p', {}, button('Draw one for me', () => (last + 1 + Math.floor(9 * Math.random())) % 10, { className: 'another' }))
  place.replaceChildren(element('div', { className: `digit ${small ? 'small-digit' : ''}` }, paper,
    element('div', { className: 'answer' },
      element('p', { className: 'first' }, read, seen), status, ...(small ? [] : [probs.list]), another)))
  return {
    paper,
    on(action) { sketch = action },
    say(text) { if (status.textContent !== text) status.textContent = text },
    fail(text) {
      status.textContent = text
      status.classList.add('failed')
    },
    show({ image, probs: found, digit = null, unsure = false }) {
      showImage(seen, image ?? new Uint8Array(784), 28, 28)
      read.textContent = digit ?? '–'
      read.classList.toggle('unsure', unsure)
      probs.show(found, digit)
    },
  }
}
