// Augmentation by hand: a digit, a slider for each amount that training draws at random, and what the network makes of the
// result. The sliders go far beyond the range of training, which is marked on each.
import { TRAINING, distort, randomPoints } from './elastic.js'
import { chances } from './chances.js'
import { loadNetwork, probabilities } from './network.js'
import { makePicker } from './picker.js'
import { button, element, paint, percent, styles, tileCanvas } from './dom.js'

const QUIET = 400 // ms without a change before the reading is spoken

const { degrees, max_shift: shift, log_scale: scale, shear, elastic_sigma: sigma } = TRAINING
const pixels = v => `${signed(v)} px`
const times = v => `× ${Math.exp(v).toFixed(2)}`
const signed = v => `${v < 0 ? '−' : v > 0 ? '+' : ''}${Math.abs(v)}`

// A positive value turns clockwise, moves right or down, enlarges, and leans right. `range` is that of training.
const SLIDERS = [
  { name: 'angle', label: 'Rotation', most: 90, step: 1, range: [-degrees, degrees], say: v => `${signed(v)}°` },
  { name: 'right', label: 'Shift right', most: 14, step: 0.5, range: [-shift, shift], say: pixels },
  { name: 'down', label: 'Shift down', most: 14, step: 0.5, range: [-shift, shift], say: pixels },
  { name: 'width', label: 'Width', most: 1, step: 0.05, range: [-scale, scale], say: times },
  { name: 'height', label: 'Height', most: 1, step: 0.05, range: [-scale, scale], say: times },
  { name: 'slant', label: 'Shear', most: 1.5, step: 0.05, range: [-shear, shear], say: v => signed(v) },
  { name: 'elastic', label: 'Elastic', least: 0, most: 4, step: 0.1, range: [sigma, sigma], say: v => `${v} px` },
]

// As distort takes them: its map leads from the new image to the old one, so all but the shear and elastic change sign
function amounts(values) {
  const { angle, right, down, width, height, slant, elastic } = values
  return { angle: -angle * Math.PI / 180, right: -right, down: -down, width: -width, height: -height, slant, elastic }
}

// Fills `place`; the result's `offer(image)` adds the visitor's own drawing, 784 values from 0 to 1, to the digits
export function mountAugment(place, network) {
  place.classList.add('trial', 'augment')
  const view = build(place)
  let [image, points, changes, busy] = [null, randomPoints(), 0, false]

  async function changed() {
    changes++
    if (!image) return
    view.picture(distort(image, amounts(view.values()), points))
    if (busy) return // The answer that is being waited for is followed by one more
    busy = true
    const asked = changes
    await answer()
    busy = false
    if (asked !== changes) changed()
  }

  async function answer() {
    const seen = distort(image, amounts(view.values()), points)
    try {
      const { logits, score } = await (await network).run(seen)
      view.reading(probabilities(logits, 0), score[0])
    } catch (error) {
      view.failed(`The network could not be loaded: ${error.message}.`)
    }
  }

  const bend = () => { points = randomPoints(); changed() }
  view.on({
    changed, bend,
    choose(chosen) { image = chosen; changed() },
    reset() { view.set(() => 0); changed() },
    draw() { view.set(({ range: [low, high] }) => low + (high - low) * Math.random()); bend() },
  })
  const loaded = view.digits.load().then(() => view.digits.pick('3'))
    .catch(error => { view.failed(`The digits could not be shown: ${error.message}.`); throw error })
  loaded.catch(() => {}) // Said
  return { loaded, offer: drawing => view.digits.offer(drawing, 'your drawing') }
}

// --- what is shown

function limits(low, high) {
  if (low === high) return `always ${low}`
  return high.startsWith('+') ? `±${high.slice(1)}` : `${low} to ${high}`
}

function slider(settings, changed) {
  const { name, label, most, least = -most, step, range, say } = settings
  const input = element('input', { type: 'range', id: `augment-${name}`, min: least, max: most, step, value: 0 })
  const value = element('output', { htmlFor: input.id })
  const part = v => (v - least) / (most - least)
  const mark = element('span', { className: 'mark' })
  mark.style.setProperty('--from', part(range[0]))
  mark.style.setProperty('--to', part(range[1]))
  const hint = element('span', { className: 'small', id: `augment-${name}-hint` }, `in training ${limits(...range.map(say))}`)
  input.setAttribute('aria-describedby', hint.id)
  const update = () => {
    const text = say(Number(input.value))
    value.textContent = text
    input.setAttribute('aria-valuetext', text)
  }
  input.addEventListener('input', () => { update(); changed() })
  update()
  const row = element('div', { className: 'slider' }, element('label', { htmlFor: input.id }, label), hint, value,
    element('span', { className: 'rail' }, mark, input))
  return { row, name, settings, get: () => Number(input.value), set(v) { input.value = v; update() } }
}

function build(place) {
  let act, timer, label = ''
  const sliders = SLIDERS.map(settings => slider(settings, () => act.changed()))
  const digits = makePicker((image, title) => {
    label = title
    paint(before, image)
    act.choose(image)
  })
  const [before, after] = ['The digit before', 'The digit as the network sees it']
    .map(text => tileCanvas(new Float32Array(784), text))
  const status = element('p', { role: 'status', 'aria-live': 'polite', className: 'visually-hidden' })
  const says = element('p', { className: 'says' }, 'The network is loading …')
  const probs = chances()
  place.replaceChildren(
    element('p', {}, 'The coloured part of each slider is the range that training draws from. Go beyond ' +
      'it and see where the network breaks.'),
    digits.row,
    element('div', { className: 'columns' },
      element('div', { className: 'sliders' }, ...sliders.map(({ row }) => row),
        element('p', { className: 'buttons' }, button('Draw as in training', () => act.draw()),
          button('Another bend', () => act.bend()), button('Reset', () => act.reset()))),
      element('div', { className: 'found' },
        element('div', { className: 'pair' }, before, element('span', { 'aria-hidden': 'true' }, '→'), after), says, status),
      probs.list))

  return {
    digits,
    on(actions) { act = actions },
    values: () => Object.fromEntries(sliders.map(({ name, get }) => [name, get()])),
    set(value) { for (const { set, settings } of sliders) set(value(settings)) },
    picture(seen) { paint(after, seen) },
    reading(found, score) {
      const best = found.indexOf(Math.max(...found))
      const doubt = score < 0 ? 'Not sure this is a digit. If it is: ' : '' // 199 digits in 200 score higher
      const wrong = /\d/.test(label) && best !== Number(label) ? 'Misread: ' : ''
      says.textContent = `${doubt || wrong}${best} (${percent(found[best])} sure)`
      probs.show(found, best)
      clearTimeout(timer)
      timer = setTimeout(() => { status.textContent = says.textContent }, QUIET)
    },
    failed(text) {
      says.textContent = text
      says.classList.add('failed')
    },
  }
}

export async function mount(place) { // On a page of its own
  await styles('augment.css')
  await mountAugment(place, loadNetwork()).loaded
}
