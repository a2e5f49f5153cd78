// One neuron's slope: a neuron with a single weight tells six 0s from six 1s by how much ink they have. Move the weight and see
// the loss and its slope; take steps downhill, and overshoot with too large a learning rate.
import { loadDigits } from './digits.js'
import { makeChart } from './chart.js'
import { number } from './pictures.js'
import { button, element, styles, tileCanvas } from './dom.js'

const EACH = 6                    // Digits of each class
const BIAS = -3                   // Stays as it is, so that one weight is left to learn
const FROM = -1, TO = 7, START = 0
const RATES = [0.05, 0.2, 1, 2, 3]
const USUAL = 1                   // Index of the first rate
const WIGGLE = 0.001
const KEPT = 30                   // Steps whose trail is shown

// --- the neuron; a digit is { ink, label }, and its label is 1 for a 0 and 0 for a 1: "is this a zero?"

const sigmoid = z => 1 / (1 + Math.exp(-z))
const mean = values => values.reduce((a, b) => a + b, 0) / values.length
export const probability = (w, { ink }) => sigmoid(w * ink + BIAS)

export const lossAt = (w, digits) => mean(digits.map(digit => {
  const p = probability(w, digit)
  return -Math.log(digit.label ? p : 1 - p)
}))

export const slopeAt = (w, digits) => mean(digits.map(digit => (probability(w, digit) - digit.label) * digit.ink))

const inkOf = image => image.reduce((a, b) => a + b, 0) / 28 // In a row of pixels, on average

function twelve({ images, labels }) { // The first ones of each class
  const first = digit => labels.flatMap((label, i) => label === digit ? [i] : []).slice(0, EACH)
  return [0, 1].flatMap(first).map(i => ({ image: images[i], name: labels[i], label: labels[i] === 0 ? 1 : 0, ink: inkOf(images[i]) }))
}

// --- the part

export async function mount(place) {
  const [{ training }] = await Promise.all([loadDigits(), styles('chart.css', 'slope.css')])
  place.classList.add('trial', 'slope')
  const digits = twelve(training)
  const view = build(place, digits)
  let w, trail

  const show = () => view.show({ w, trail, loss: lossAt(w, digits), slope: slopeAt(w, digits),
    wiggled: (lossAt(w + WIGGLE, digits) - lossAt(w, digits)) / WIGGLE })
  function move(to) {
    [w, trail] = [to, []]
    show()
    view.say('')
  }
  view.on({
    move,
    step(rate) {
      const slope = slopeAt(w, digits), before = lossAt(w, digits)
      trail = [...trail, w].slice(-KEPT)
      const old = w
      w -= rate * slope
      show()
      view.say(`w = ${number(old)} − ${rate} × ${number(slope).replace(/^−.*/, '($&)')} = ${number(w)}. ` + told(before, lossAt(w, digits)))
    },
    reset() { move(START) },
  })
  move(START)
}

function told(before, after) {
  if (Math.abs(after - before) < 0.0005) return 'The loss stays as it is: hardly any slope is left.'
  return after < before ? `The loss fell from ${number(before, 3)} to ${number(after, 3)}.`
    : `The loss rose from ${number(before, 3)} to ${number(after, 3)}: the step was too long.`
}

// --- what is shown

function slider(id, label, settings, say) {
  const input = element('input', { type: 'range', id, ...settings })
  const value = element('output', { htmlFor: id })
  const update = () => {
    value.textContent = say(Number(input.value))
    input.setAttribute('aria-valuetext', value.textContent)
  }
  update()
  input.addEventListener('input', update)
  return { input, update, row: element('div', { className: 'dial' }, element('label', { htmlFor: id }, label), value, input) }
}

function build(place, digits) {
  let act
  const weight = slider('slope-weight', 'Weight w', { min: FROM, max: TO, step: 'any', value: START }, number)
  const rate = slider('slope-rate', 'Learning rate', { min: 0, max: RATES.length - 1, step: 1, value: USUAL }, i => `${RATES[i]}`)
  weight.input.addEventListener('input', () => act.move(Number(weight.input.value)))
  weight.input.addEventListener('keydown', event => { // A step of 0.05, which `any` leaves to the browser
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key]
    if (!way) return
    event.preventDefault()
    weight.input.value = (Math.round(20 * weight.input.value) + way) / 20
    weight.input.dispatchEvent(new Event('input'))
  })
  const chart = makeChart('', 'weight w', 'loss')
  const rows = digits.map(({ image, name, ink }) => {
    const chance = element('span', {})
    const item = element('li', {}, tileCanvas(image, `A ${name}`), element('span', {}, `ink ${number(ink, 1)}`), chance)
    return { item, chance }
  })
  const [loss, slope, wiggled] = ['loss', 'slope', 'wiggled'].map(name => element('output', { className: name }))
  const status = element('p', { className: 'says', role: 'status', 'aria-live': 'polite' })
  const fact = (title, value) => element('div', {}, element('dt', {}, title), element('dd', {}, value))
  place.replaceChildren(
    element('p', {}, 'A neuron sees one number of each digit, its ink: how many pixels of a row are inked, on average. It answers “a 0” with ' +
      `probability σ(w · ink − ${-BIAS}). Its loss is the mean over these ${digits.length} digits.`),
    element('ul', { className: 'digits12' }, ...rows.map(({ item }) => item)),
    element('div', { className: 'sheet' },
      element('div', {}, weight.row, chart.element),
      element('div', { className: 'side' },
        element('dl', {}, fact('Loss', loss), fact('Slope, by the formula: the mean of (p − label) · ink', slope),
          fact(`Slope, by wiggling: (loss at w + ${WIGGLE} − loss at w) / ${WIGGLE}`, wiggled)),
        rate.row,
        element('div', { className: 'buttons' }, button('Take a step', () => act.step(RATES[rate.input.value]), { className: 'take' }),
          button('Reset', () => act.reset())),
        status)),
    element('p', { className: 'small' }, 'The label is 1 for a 0 and 0 for a 1. An underlined probability is on the wrong side of one half. The digits are ' +
      'from MNIST, by Yann LeCun, Corinna Cortes and Christopher Burges, ',
      element('a', { href: 'https://creativecommons.org/licenses/by-sa/3.0/' }, 'CC BY-SA 3.0'), '.'))

  const curve = Array.from({ length: 161 }, (_, i) => FROM + i * (TO - FROM) / 160).map(w => [w, lossAt(w, digits)])
  const y = [0, Math.ceil(Math.max(...curve.map(([, loss]) => loss)))]
  return {
    on(actions) { act = actions },
    say(text) { status.textContent = text },
    show(state) {
      const { w, trail, loss: height } = state
      const point = v => [v, lossAt(v, digits)]
      const tangent = [-2, 2].map(d => [w + d, height + d * state.slope])
      chart.draw({ x: [FROM, TO], y,
        lines: [{ name: 'curve', points: curve }, { name: 'tangent', points: tangent }, { name: 'trail', points: [...trail, w].map(point) }],
        dots: [...trail.map(v => ({ name: 'past', at: point(v) })), { name: 'now', at: point(w) }] })
      chart.describe(`The loss for each weight. At ${number(w)} it is ${number(height, 3)}, and its slope ${number(state.slope, 3)}`)
      weight.input.value = w
      weight.update()
      loss.textContent = number(height, 3)
      slope.textContent = number(state.slope, 4)
      wiggled.textContent = number(state.wiggled, 4)
      rows.forEach(({ chance }, i) => {
        const p = probability(w, digits[i])
        chance.textContent = `${Math.round(100 * p)} %`
        chance.className = (p > 0.5) === (digits[i].label === 1) ? '' : 'wrong'
        chance.title = chance.className ? 'On the wrong side of one half' : ''
      })
    },
  }
}
