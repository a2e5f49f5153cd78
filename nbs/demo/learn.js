// Watch it learn: ten weight pictures, or a small network with one hidden layer, learn in the browser from 800 digits of MNIST.
// How they learn is in sgd.js; this module takes the steps one after the other and shows what comes of them.
import { batches, crossEntropy, forward, generator, gradients, layer, step } from './sgd.js'
import { joined, loadDigits } from './digits.js'
import { makeChart } from './chart.js'
import { button, count, element, styles, tileCanvas, paint } from './dom.js'

const SEED = 1, BATCH = 50, HIDDEN = 32
const RATES = [0.001, 0.01, 0.1, 0.5, 2, 10, 1e9]
const USUAL = 2           // Index of the first rate
const LAST = 1600         // Steps after which it stops by itself
const EVERY = 4           // Steps between two measurements, once it has taken `CLOSE` steps
const CLOSE = 16
const GUESSING = Math.log(10) // The loss if each digit gets a tenth
const SHOWN = 12          // Mistakes
const ORANGE = [232, 134, 42], BLUE = [59, 130, 214]

const spread = (n, random) => () => (2 * random() - 1) / Math.sqrt(n) // As torch draws the weights of a layer of n inputs

const NETWORKS = {
  ten: {
    title: 'Ten weight pictures',
    layers: () => [layer(784, 10)],
    about: 'One picture of weights for each digit, all 0 at first. Ink on an orange pixel speaks for the digit, ink on a blue one against it.',
  },
  hidden: {
    title: `${HIDDEN} hidden neurons`,
    layers: random => [layer(784, HIDDEN, spread(784, random)), layer(HIDDEN, 10, spread(HIDDEN, random))],
    about: `The weights of ${HIDDEN} neurons, random at first. Ink on an orange pixel excites the neuron, ink on a blue one inhibits it; ` +
      'ten weighted sums of what the neurons say follow.',
  },
}

export async function mount(place) {
  const [digits] = await Promise.all([loadDigits(), styles('chart.css', 'learn.css')])
  place.classList.add('trial', 'learn')
  const view = build(place, digits)
  let run, frame = 0

  function reset() {
    stop()
    run = newRun(view.network(), digits)
    view.pictures(run.layers)
    view.show(run)
    view.say(`Not trained yet: every digit gets about the same probability, and the loss is near ${GUESSING.toFixed(2)}.`)
  }
  function stop() {
    cancelAnimationFrame(frame)
    frame = 0
    view.running(false)
  }
  function advance(steps) { // So many steps, then a look at the result
    for (let i = 0; i < steps; i++) run.step(view.rate())
    run.measure()
    if (run.ended()) stop()
    view.pictures(run.layers)
    view.show(run, frame !== 0)
    view.say(verdict(run, frame !== 0))
  }
  function tick() {
    frame = requestAnimationFrame(tick)
    advance(run.steps < CLOSE ? 1 : EVERY - run.steps % EVERY)
  }
  view.on({
    reset,
    one() {
      stop()
      run.last = run.steps + LAST
      advance(1)
    },
    toggle() {
      if (frame) {
        stop()
        view.show(run)
        return view.say(verdict(run, false))
      }
      run.last = run.steps + LAST
      view.running(true)
      frame = requestAnimationFrame(tick)
    },
  })
  reset()
}

// --- learning

function newRun(kind, { training, heldOut }) {
  const random = generator(SEED)
  const layers = NETWORKS[kind].layers(random)
  const order = batches(training.n, BATCH, random)
  const run = {
    layers, steps: 0, last: LAST, history: [],
    step(rate) {
      const chosen = order.next().value
      const { slopes } = gradients(layers, joined(chosen.map(i => training.images[i])), chosen.map(i => training.labels[i]))
      step(layers, slopes, rate)
      run.steps++
    },
    measure() {
      const [learned, held] = [training, heldOut].map(set => measured(layers, set))
      run.history.push({ step: run.steps, training: learned.loss, heldOut: held.loss })
      Object.assign(run, { correct: held.correct, mistakes: held.mistakes, n: heldOut.n, silent: learned.silent })
    },
    loss: () => run.history.at(-1).training,
    broken: () => !Number.isFinite(run.loss()),
    ended: () => run.broken() || run.silent || run.steps >= run.last,
  }
  run.measure()
  return run
}

// The mean loss of a set, how many it reads correctly, and the others, the most confident mistake first
function measured(layers, { pixels, labels, n }) {
  const values = forward(layers, pixels)
  const logits = values.at(-1)
  const mistakes = []
  labels.forEach((label, k) => {
    const row = logits.subarray(10 * k, 10 * k + 10)
    const read = row.indexOf(Math.max(...row))
    if (read !== label) mistakes.push({ k, label, read, by: row[read] - row[label] })
  })
  mistakes.sort((a, b) => b.by - a.by)
  return { loss: crossEntropy(logits, labels).loss, correct: n - mistakes.length, mistakes,
    silent: layers.length > 1 && values[1].every(v => v === 0) }
}

// --- what is said

function verdict(run, running) {
  const after = `after ${count(run.steps)} ${run.steps === 1 ? 'step' : 'steps'}`
  if (run.broken()) {
    return `The loss is no longer a number ${after}: each step was so far too long that the weights outgrew what a number can hold. ` +
      'Reset, and choose a smaller learning rate.'
  }
  if (run.silent) {
    return `All ${HIDDEN} neurons give 0 for every digit ${after}. Where ReLU gives 0 no slope comes back, so they cannot recover. ` +
      'Reset, and choose a smaller learning rate.'
  }
  if (run.loss() > GUESSING + 0.05) return `The loss is above ${GUESSING.toFixed(2)}, that of pure guessing: the steps overshoot.`
  if (running) return 'It is learning …'
  return `${run.steps >= run.last ? 'It stopped by itself' : 'Stopped'} ${after}: it reads ${run.correct} of ${run.n} held-out digits correctly.`
}

const short = loss => !Number.isFinite(loss) ? 'not a number' : loss < 1000 ? loss.toFixed(3) : loss.toExponential(1).replace('e+', ' · 10^')

// --- what is shown

function paintWeights(canvas, { weight, outputs }, o, top) { // Orange above 0, blue below, nothing at 0
  const image = new ImageData(28, 28), pixels = image.data
  for (let i = 0; i < 784; i++) {
    const w = weight[i * outputs + o];
    [pixels[4 * i], pixels[4 * i + 1], pixels[4 * i + 2]] = w > 0 ? ORANGE : BLUE
    pixels[4 * i + 3] = 255 * Math.abs(w) / top // A clamped array: no more than 255
  }
  canvas.getContext('2d').putImageData(image, 0, 0)
}

function makePictures(kind) {
  const n = kind === 'ten' ? 10 : HIDDEN
  const canvases = Array.from({ length: n }, (_, o) =>
    element('canvas', { width: 28, height: 28, role: 'img', 'aria-label': kind === 'ten' ? `Weights of ${o}` : `Weights of neuron ${o}` }))
  const items = canvases.map((canvas, o) => element('li', {}, canvas, ...kind === 'ten' ? [`${o}`] : []))
  return {
    list: element('ul', { className: `weights of-${kind}`, 'aria-label': NETWORKS[kind].title }, ...items),
    paint([first]) {
      const top = 0.6 * first.weight.reduce((most, w) => Math.max(most, Math.abs(w)), 1e-9) // From here on in full colour
      canvases.forEach((canvas, o) => paintWeights(canvas, first, o, top))
    },
  }
}

function makeMistakes({ heldOut }) {
  const items = Array.from({ length: SHOWN }, () => {
    const canvas = tileCanvas(new Float32Array(784), ''), text = element('span', { className: 'small' })
    return { canvas, text, item: element('li', {}, canvas, text) }
  })
  const heading = element('p', { className: 'heading' })
  return {
    element: element('div', { className: 'mistakes' }, heading, element('ul', {}, ...items.map(({ item }) => item))),
    show(mistakes) {
      const n = Math.min(SHOWN, mistakes.length)
      heading.textContent = mistakes.length > SHOWN ? `Misread: ${mistakes.length} held-out digits. The ${SHOWN} most confident mistakes:`
        : `Misread: ${mistakes.length} held-out digits.`
      items.forEach(({ canvas, text, item }, i) => {
        item.hidden = i >= n
        if (i >= n) return
        const { k, label, read } = mistakes[i]
        paint(canvas, heldOut.images[k])
        canvas.setAttribute('aria-label', `Held-out digit ${k}`)
        text.textContent = `${label} read as ${read < 0 ? '?' : read}` // No answer if the logits are no numbers
      })
    },
  }
}

function choice(name, title, checked, changed) {
  const input = element('input', { type: 'radio', name: 'learn-network', value: name, checked, onchange: changed })
  return element('label', {}, input, ` ${title}`)
}

function rateSlider(changed) {
  const say = i => RATES[i] === 1e9 ? 'a billion' : `${RATES[i]}`
  const input = element('input', { type: 'range', id: 'learn-rate', min: 0, max: RATES.length - 1, step: 1, value: USUAL })
  const value = element('output', { htmlFor: input.id })
  const update = () => {
    value.textContent = say(input.value)
    input.setAttribute('aria-valuetext', say(input.value))
  }
  input.addEventListener('input', update)
  update()
  return { get: () => RATES[input.value], row: element('div', { className: 'rate' },
    element('label', { htmlFor: input.id }, 'Learning rate'), value, input) }
}

function build(place, digits) {
  let act, pictures, painted = -1
  const { training, heldOut } = digits
  const networks = Object.entries(NETWORKS).map(([name, { title }]) => choice(name, title, name === 'ten', () => act.reset()))
  const rate = rateSlider()
  const [go, one, again] = [button('Learn', () => act.toggle(), { className: 'go' }), button('One step', () => act.one()),
    button('Reset', () => act.reset())]
  const chart = makeChart('The loss after each step', 'steps', 'loss')
  const [losses, held] = ['training', 'held'].map(name => element('output', { className: `number ${name}` }))
  const correct = element('strong', { className: 'correct' })
  const steps = element('span', { className: 'steps' })
  const status = element('p', { className: 'says', role: 'status', 'aria-live': 'polite' })
  const about = element('p', { className: 'small' })
  const weights = element('div', {})
  const mistakes = makeMistakes(digits)
  const key = (name, text, number) => element('p', { className: 'key' }, element('i', { className: name, 'aria-hidden': 'true' }), text, number)
  place.replaceChildren(
    element('div', { className: 'controls' },
      element('fieldset', {}, element('legend', { className: 'visually-hidden' }, 'Network'), ...networks), rate.row,
      element('div', { className: 'buttons' }, go, one, again)),
    status,
    element('div', { className: 'sheet' },
      element('div', { className: 'losses' },
        element('div', { className: 'keys' }, key('training', `loss of the ${training.n} digits it learns from `, losses),
          key('held', `loss of ${heldOut.n} held-out digits `, held)),
        chart.element,
        element('p', { className: 'score' }, steps, correct)),
      element('div', { className: 'look' }, weights, about)),
    mistakes.element,
    element('p', { className: 'small' }, `Each step is one mini-batch of ${BATCH} digits. Other people wrote the held-out digits. The digits are from ` +
      'MNIST, by Yann LeCun, Corinna Cortes and Christopher Burges, ',
      element('a', { href: 'https://creativecommons.org/licenses/by-sa/3.0/' }, 'CC BY-SA 3.0'), ', in 16 grey levels.'))

  const network = () => place.querySelector('[name="learn-network"]:checked').value
  function scale(history) { // The steps double when they no longer fit; a loss far above guessing leaves through the top
    let right = 25
    while (right < history.at(-1).step) right *= 2
    const most = history.reduce((m, { heldOut: loss }) => Math.max(m, Number.isFinite(loss) ? loss : 0), 2.5)
    return { x: [0, right], y: [0, Math.min(most, 8)] }
  }
  return {
    network,
    rate: rate.get,
    on(actions) { act = actions },
    running(yes) {
      go.textContent = yes ? 'Stop' : 'Learn'
    },
    say(text) { if (status.textContent !== text) status.textContent = text },
    pictures(layers) {
      if (pictures?.kind !== network()) {
        pictures = { kind: network(), ...makePictures(network()) }
        weights.replaceChildren(pictures.list)
        about.textContent = NETWORKS[network()].about
      }
      pictures.paint(layers)
    },
    show(run, busy = false) {
      const { history } = run, now = history.at(-1)
      const line = name => history.filter(h => Number.isFinite(h[name])).map(h => [h.step, h[name]])
      chart.draw({ ...scale(history), lines: [{ name: 'training', points: line('training') }, { name: 'held', points: line('heldOut') }],
        dots: [{ name: 'training', at: line('training').at(-1) }, { name: 'held', at: line('heldOut').at(-1) }] })
      losses.textContent = short(now.training)
      held.textContent = short(now.heldOut)
      steps.textContent = `Step ${count(now.step)}: `
      correct.textContent = `${run.correct} of ${run.n} held-out digits read correctly`
      const over = run.broken() || run.silent
      if (over && [go, one].includes(document.activeElement)) again.focus()
      go.disabled = one.disabled = over
      if (!busy) chart.describe(`The loss, step by step: now ${short(now.training)} in training and ${short(now.heldOut)} held out`)
      const epoch = Math.floor(run.steps / (training.n / BATCH))
      if (!busy || epoch !== painted) mistakes.show(run.mistakes) // Once an epoch, so that one can look at them
      painted = epoch
    },
  }
}
