// One filter slides over a digit: the nine pixels below it, its nine weights, their products, the sum, and the map that the
// sums fill. It needs no network; the filters of conv1 are read from its file when the reader asks for them.
import { button, element, paint, styles } from './dom.js'
import { mountGrid } from './grid.js'
import { readWeights } from './onnx.js'
import { makePicker } from './picker.js'
import { number } from './pictures.js'
import { block, join } from './value.js'

const N = 28, M = 26 // Pixels a side; positions a side
const EDGES = Object.entries({
  'Left edges': [-1, 0, 1, -1, 0, 1, -1, 0, 1], 'Right edges': [1, 0, -1, 1, 0, -1, 1, 0, -1],
  'Top edges': [-1, -1, -1, 0, 0, 0, 1, 1, 1], 'Bottom edges': [1, 1, 1, 0, 0, 0, -1, -1, -1],
  'Slanted edges': [0, 1, 1, -1, 0, 1, -1, -1, 0], Blur: Array(9).fill(1 / 9),
}).map(([name, weights]) => ({ name, weights, bias: 0 }))
const SLOW = 90, FAST = 18 // Milliseconds a position while it plays: in the first row, and then

const patchAt = (image, cell) => Float32Array.from({ length: 9 }, (_, i) =>
  image[(Math.floor(cell / M) + Math.floor(i / 3)) * N + cell % M + i % 3])
const products = (patch, { weights }) => patch.map((p, i) => p * weights[i])
const sumAt = (image, filter, cell) => products(patchAt(image, cell), filter).reduce((a, b) => a + b, filter.bias)

export async function mount(place) {
  await styles('value.css', 'kernel.css')
  place.classList.add('kernel', 'trial')
  const view = build(place)
  let pixels, filter, image, sums // `image`: the pixels, normalised for a filter of the network
  let cell = 0, seen = new Uint8Array(M * M), timer = 0

  function change(more) { // Another digit or another filter; the window stays, and the map is as full as it was
    [pixels, filter] = [more.pixels ?? pixels, more.filter ?? filter]
    if (!pixels || !filter) return
    image = filter.mean === undefined ? pixels : pixels.map(p => (p - filter.mean) / filter.std)
    sums = Float32Array.from({ length: M * M }, (_, i) => sumAt(image, filter, i))
    view.image(pixels)
    move(cell)
  }
  function clear() {
    pause()
    seen.fill(0)
    move(0)
  }
  function move(to, aloud = false) {
    cell = to
    seen[cell] = 1
    const patch = patchAt(image, cell)
    view.show({ cell, sums, seen, patch, filter, products: products(patch, filter), sum: sums[cell] }, aloud)
  }
  function pause() {
    clearTimeout(timer)
    timer = 0
    view.playing(false)
  }
  function tick() {
    if (cell === M * M - 1) return pause()
    move(cell + 1)
    timer = setTimeout(tick, cell < M ? SLOW : FAST)
  }
  view.on({
    filter: chosen => change({ filter: chosen }),
    clear,
    to(where, aloud) { pause(); move(where, aloud) },
    step() { pause(); move((cell + 1) % (M * M), true) },
    play() {
      if (timer) return pause()
      if (cell === M * M - 1) clear()
      view.playing(true)
      tick()
    },
    all() { pause(); seen.fill(1); move(cell, true) },
    again: () => move(cell),
  })
  const digits = makePicker(chosen => change({ pixels: chosen }))
  await digits.load()
  view.choices.prepend(digits.row)
  change({ filter: EDGES[0] })
  digits.pick('7')
  const begin = sums.findIndex((t, i) => i > M * M / 2 && t > 0.8 * Math.max(...sums)) // Where there is something to see
  seen.fill(1, 0, begin)
  move(begin)
}

async function filtersOfConv1() {
  const answer = await fetch(new URL('s5_mnist.onnx', import.meta.url))
  if (!answer.ok) throw new Error(`s5_mnist.onnx was not found (status ${answer.status})`)
  const { mean, std, conv1: { weight, bias } } = readWeights(await answer.arrayBuffer())
  return Array.from(bias, (b, k) => ({ name: `Filter ${k} of conv1`, weights: weight.subarray(9 * k, 9 * k + 9), bias: b, mean, std }))
}

// --- what is shown

const PLUS = [255, 150, 40], MINUS = [60, 140, 255]

// Values side by side, the larger the brighter; those that are not shown stay transparent
function colours(canvas, values, side, shown = () => true) {
  const top = values.reduce((a, v) => Math.max(a, Math.abs(v)), 1e-6)
  const data = new ImageData(side, side)
  values.forEach((v, i) => {
    if (shown(i)) data.data.set([...(v < 0 ? MINUS : PLUS).map(c => c * Math.abs(v) / top), 255], 4 * i)
  })
  Object.assign(canvas, { width: side, height: side })
  canvas.getContext('2d').putImageData(data, 0, 0)
}

function swatches(filters, choose) {
  const row = element('div', { className: 'swatches', role: 'group', 'aria-label': 'Filter' })
  row.append(...filters.map(filter => {
    const picture = element('canvas', { 'aria-hidden': 'true' })
    colours(picture, filter.weights, 3)
    const named = filter.mean === undefined
    return element('button', { type: 'button', title: filter.name, 'aria-label': filter.name, className: named ? 'named' : '',
      onclick: () => choose(filter) }, picture, ...(named ? [filter.name] : []))
  }))
  return row
}

function build(place) {
  let act, last
  const figure = (grid, text) => element('figure', {}, grid, element('figcaption', {}, text))
  const [left, right] = [element('div'), element('div', { className: 'sums' })]
  const [calculation, line] = [element('div', { className: 'product' }), element('p', { className: 'sum' })]
  const spoken = element('p', { className: 'visually-hidden', role: 'status', 'aria-live': 'polite' })
  const relu = element('input', { type: 'checkbox', onchange: () => act.again() })
  const play = button('Play', () => act.play())
  const own = button('The 32 filters of conv1', async () => {
    try {
      filters.append(swatches(await filtersOfConv1(), pick))
      own.remove()
      filters.lastChild.firstChild.focus()
    } catch (error) {
      own.replaceWith(element('p', { className: 'failed' }, `The filters could not be loaded: ${error.message}`))
    }
  })
  const filters = element('div', { className: 'filters' })
  function pick(filter) {
    for (const other of filters.querySelectorAll('.swatches button'))
      other.setAttribute('aria-pressed', other.title === filter.name)
    act.filter(filter)
  }
  filters.append(swatches(EDGES, pick))
  filters.querySelector('button').setAttribute('aria-pressed', 'true')
  const choices = element('div', {}, filters, own)
  place.replaceChildren(
    choices,
    element('div', { className: 'sheet' },
      figure(left, 'The digit, with the filter on it'),
      figure(right, 'The map: orange is positive, blue negative'),
      element('div', { className: 'value' }, calculation, line,
        element('p', { className: 'buttons' }, button('Step', () => act.step()), play, button('Whole map', () => act.all()),
          button('Clear', () => act.clear())),
        element('label', {}, relu, ' ReLU: a negative sum becomes 0'))),
    spoken)

  const inside = t => Math.min(Math.max(t, 1), M) // The middle of the filter; it never leaves the image
  const positionOf = pixel => (inside(Math.floor(pixel / N)) - 1) * M + inside(pixel % N) - 1
  const middleOf = cell => (Math.floor(cell / M) + 1) * N + cell % M + 1
  const image = mountGrid(left, {
    onMove(at, byKey) { if (at !== null) act.to(positionOf(at), byKey) },
    onChoose: at => act.to(positionOf(at), true),
  })
  const map = mountGrid(right, {
    onMove(at, byKey) { if (at !== null) act.to(at, byKey) },
    onChoose: at => act.to(at, true),
  })
  image.layout(N, N)
  map.layout(M, M)
  image.label('The digit. The arrow keys move the filter.')
  map.label('The map of sums. The arrow keys choose a position.')
  Object.assign(image.canvas, { width: N, height: N })

  return {
    choices,
    on(actions) { act = actions },
    image(pixels) { paint(image.canvas, pixels) },
    playing(yes) { play.textContent = yes ? 'Pause' : 'Play' },
    show({ cell, sums, seen, patch, filter, products, sum }, aloud) {
      const found = relu.checked ? sums.map(t => Math.max(t, 0)) : sums
      image.mark(middleOf(cell), 3)
      map.mark(cell)
      colours(map.canvas, found, M, i => seen[i])
      const total = products.reduce((a, b) => a + b, 0)
      calculation.innerHTML = join(block(patch, 3, filter.bias ? 'normalised pixels' : 'pixels'), block(filter.weights, 3, 'weights')) +
        `<span class="sign" aria-hidden="true">=</span>${block(products, 3, 'products')}`
      const bias = filter.bias ? ` ${filter.bias < 0 ? '−' : '+'} ${number(Math.abs(filter.bias))} (bias) = ${number(sum)}` : ''
      const after = relu.checked && sum < 0 ? ', and ReLU makes it 0' : ''
      const text = `Row ${Math.floor(cell / M)}, column ${cell % M}: the nine products add up to ${number(total)}${bias}${after}.`
      if (text !== last) line.textContent = last = text
      if (aloud) spoken.textContent = text
    },
  }
}
