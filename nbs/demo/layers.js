// The row of layers, one click deeper each time: a layer, one of its maps, one of its values and how that is computed.
import { SHEETS, mountDrawing } from './drawing.js'
import { element, styles } from './dom.js'
import { LAYERS, allValues, explain, fieldOf, layerOf } from './explain.js'
import { mountGrid } from './grid.js'
import { loadNetwork } from './network.js'
import { number, showBoard, showImage } from './pictures.js'
import { explanation } from './value.js'

const ABOUT = {
  image: `What the network is given: 28×28 pixels. From each pixel it first subtracts 0.1307, the mean of MNIST’s training images,
    and divides the difference by their standard deviation, 0.3081.`,
  conv1: `Each of the 32 maps has a filter of 3×3 weights that slides over the image. At each position the nine pixels are multiplied
    by the nine weights and added up. The map is bright where the image resembles the filter: along an edge, or at the end of a
    stroke. Sums below zero become zero, which is called ReLU.`,
  conv2: `Each of the 64 maps looks at all 32 maps of conv1, through 3×3 weights of its own for each of them, and adds up the results.`,
  pool1: `Pooling keeps the largest of each 2×2 values, so that the maps are half as wide and half as high. They no longer tell
    exactly where something was found, only roughly: a digit may be drawn a little to the side. (The network pools before ReLU.
    The result is the same.)`,
  conv3: `Each of the 128 maps is computed from all 64 pooled maps. A value depends on 10×10 pixels: enough for a curve or a corner.`,
  conv4: `Each value of the 256 maps depends on 14×14 pixels, a quarter of the image: a loop, a crossing, a long stroke.`,
  pool2: `The maps of conv4, pooled to 4×4. These 256 × 16 = 4,096 values are all that the last two layers know of the digit.`,
  fc1: `Each of the 50 values is a sum over all 4,096 pooled values, each times a weight of its own, and ReLU again.`,
  fc2: `Ten logits, one for each digit; the brighter, the larger. Each is a sum of fifty terms. The digit with the largest logit
    is the network’s answer.`,
}
const COLUMNS = { 1: 1, 10: 10, 32: 8, 50: 25, 64: 16, 128: 16, 256: 32 } // At most, by number of maps

const strongest = values => values.indexOf(Math.max(...values))
const sizeOf = ({ name, maps, size }) =>
  name === 'image' ? `${size}×${size} pixels` : size > 1 ? `${maps} of ${size}×${size}` : `${maps} values`

const HTML = `
  <div class="layer-row" role="tablist" aria-label="Layers of the network">${LAYERS.map(layer => `
    <button type="button" role="tab" id="tab-${layer.name}" aria-controls="layer-panel" data-layer="${layer.name}">
      <canvas aria-hidden="true"></canvas><b>${layer.name}</b><small>${sizeOf(layer)}</small></button>`).join('')}
  </div>
  <p class="hint closed-hint">Choose a layer to look inside it.</p>
  <div id="layer-panel" role="tabpanel">
    <p class="about"></p>
    <div class="board"></div>
    <p class="logits" aria-hidden="true">${[...'0123456789'].map(d => `<span>${d}</span>`).join('')}</p>
    <p class="hint board-hint"></p>
    <div class="closer" hidden>
      <h3></h3>
      <div class="views">
        <div class="map"></div>
        <p class="hint">Point at a value, or choose one with the arrow keys. A click holds it, so that you can move away.</p>
        <div class="field"><canvas role="img" aria-label="The image, with the receptive field marked"></canvas><div class="cell-mark"></div></div>
        <p class="hint field-hint"></p>
      </div>
      <div class="how"><h4></h4><div class="value"></div></div>
    </div>
  </div>
  <p class="layer-spoken visually-hidden" role="status" aria-live="polite"></p>`

// Returns { show(shown) }; `shown` is { pixels, found, probs, weights } of the drawing, or null if there is nothing to show.
// With `open: false`, only the row is seen until the reader chooses a layer.
export function mountLayers(place, { open: opened = true } = {}) {
  place.innerHTML = HTML
  const find = selector => place.querySelector(selector)
  const tabs = [...place.querySelectorAll('[role=tab]')]
  let layer = layerOf('conv1'), map = null, cell = 0
  let held = false  // Does the value stay when the pointer moves on?
  let aloud = false // Is the next value to be read to who uses the keyboard?
  let values = null, shown = null, columns = 8
  const say = text => { find('.layer-spoken').textContent = text }

  const board = mountGrid(find('.board'), {
    onMove(at, byKey) {
      if (!values) return
      board.mark(at ?? map)
      find('.board-hint').textContent = at === null ? hint() : titleOf(at)
      if (byKey) say(titleOf(at))
    },
    onChoose(at) { if (values) choose(layer, at, null) },
  })
  const view = mountGrid(find('.map'), {
    onMove(at, byKey) {
      if (at === null || held && !byKey) return
      cell = at
      if (byKey) held = aloud = true
      schedule()
    },
    onChoose(at) { [cell, held] = [at, !held || at !== cell]; schedule() },
  })

  function titleOf(k) {
    const value = () => number(values[layer.name][k])
    if (layer.name === 'fc2') return `Digit ${k}: logit ${value()}, probability ${number(100 * shown.probs[k], 1)} %`
    if (layer.size === 1) return `Value ${k} of ${layer.name}: ${value()}`
    return layer.name === 'image' ? 'The image' : `Map ${k} of ${layer.name}, largest value ${number(Math.max(...mapOf(layer, k)))}`
  }
  const hint = () => layer.size > 1 ? 'Click a map to enlarge it, or choose one with the arrow keys and Enter.'
    : 'Click a value to see how it is computed, or choose one with the arrow keys and Enter.'

  // --- what is open

  function choose(to, k, at) { // A layer; one of its maps or null; a value in it or null, for the largest
    [layer, map, held] = [to, k, at !== null]
    find('#layer-panel').hidden = false
    find('.closed-hint').hidden = true
    if (k !== null && values) cell = at ?? strongest(mapOf(layer, k))
    open()
    if (k !== null && values) say(`${titleOf(k)}. ${find('.closer h4').textContent}`)
  }

  function open() {
    for (const tab of tabs) {
      const on = tab.dataset.layer === layer.name
      tab.setAttribute('aria-selected', on && !find('#layer-panel').hidden)
      tab.tabIndex = on ? 0 : -1
    }
    find('#layer-panel').setAttribute('aria-labelledby', `tab-${layer.name}`)
    find('.about').textContent = ABOUT[layer.name]
    place.dataset.layer = layer.name
    board.label(`Maps of ${layer.name}, ${sizeOf(layer)}. The arrow keys choose one, Enter opens it.`)
    drawBoard()
    drawValue()
  }

  function drawBoard() {
    const room = Math.floor(find('.board').clientWidth / (layer.size > 1 ? 26 : 22)) || 8
    columns = Math.min(COLUMNS[layer.maps], Math.max(4, room))
    board.layout(Math.ceil(layer.maps / columns), columns, layer.maps)
    board.mark(map)
    find('.board-hint').textContent = values ? hint() : 'Draw a digit to see the maps.'
    find('.board').hidden = !values
    if (values) showBoard(board.canvas, pictureOf(layer), layer.maps, layer.size, columns)
  }
  const pictureOf = ({ name }) => {
    if (name === 'image') return shown.pixels
    const least = name === 'fc2' ? Math.min(...values.fc2) : 0 // Logits may be negative
    return least < 0 ? values.fc2.map(v => v - least) : values[name]
  }
  const mapOf = (layer, k) => pictureOf(layer).subarray(k * layer.size ** 2, (k + 1) * layer.size ** 2)

  function thumbnail(canvas, layer) { // Nine of the maps, or all values of a layer without maps
    const { maps, size } = layer, all = pictureOf(layer)
    if (size === 1) return showBoard(canvas, all, maps, 1, maps / 5 > 5 ? 10 : 5)
    if (maps === 1) return showImage(canvas, all, size, size)
    const nine = new Float32Array(9 * size * size)
    for (let i = 0; i < 9; i++) nine.set(mapOf(layer, Math.floor(i * maps / 9)), i * size * size)
    showBoard(canvas, nine, 9, size, 3)
  }

  function drawValue() {
    find('.closer').hidden = map === null || !values
    if (find('.closer').hidden) return
    const { name, size } = layer
    const [y, x] = [Math.floor(cell / size), cell % size]
    find('.closer h3').textContent = titleOf(map)
    find('.views').hidden = size === 1
    if (size > 1) {
      showImage(view.canvas, mapOf(layer, map), size, size)
      view.layout(size, size)
      view.mark(cell)
      view.label(`Map ${map} of ${name}, enlarged. The arrow keys choose a value.`)
    }
    const { top, left, size: width } = fieldOf(layer, y, x)
    showImage(find('.field canvas'), shown.pixels, 28, 28, 1)
    const percent = t => `${100 * t / 28}%`
    Object.assign(find('.field .cell-mark').style, { top: percent(top), left: percent(left), width: percent(width), height: percent(width) })
    find('.field-hint').textContent = name === 'image' ? 'The pixel in the image.'
      : `The ${width}×${width} pixels that this value depends on: its receptive field.`
    const found = explain(layer, map, y, x, values, shown.weights)
    find('.closer h4').textContent = size > 1 ? `Row ${y}, column ${x}: ${number(found.value)}` : `How ${number(found.value)} comes about`
    find('.value').innerHTML = explanation(layer, map, y, x, found,
      { pixel: shown.pixels[cell], mean: shown.weights.mean, std: shown.weights.std, probability: shown.probs[map] })
    place.explained = { layer: name, map, y, x, ...found } // For tests
    if (aloud) say(find('.closer h4').textContent)
    aloud = false
  }

  let frame = 0
  function schedule() { frame ||= requestAnimationFrame(() => { frame = 0; if (values) drawValue() }) }

  // --- tabs, and terms that lead to the layer before

  find('.layer-row').addEventListener('click', event => {
    const tab = event.target.closest('[role=tab]')
    if (!tab) return
    const name = tab.dataset.layer
    choose(layerOf(name), name === 'image' ? 0 : name === 'fc2' && values ? strongest(values.fc2) : null, null)
  })
  find('.layer-row').addEventListener('keydown', event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    const next = step && tabs[tabs.indexOf(event.target) + step]
    if (!next) return
    event.preventDefault()
    next.focus()
    next.click()
  })
  find('.value').addEventListener('click', event => {
    const button = event.target.closest('.follow')
    if (!button) return
    const [name, k, at] = button.dataset.follow.split(',')
    choose(layerOf(name), Number(k), Number(at))
    find('.closer h3').scrollIntoView({ block: 'nearest' })
    ;(layer.size > 1 ? view : board).canvas.focus({ preventScroll: true })
  })
  new ResizeObserver(() => drawBoard()).observe(find('.layer-row'))
  find('#layer-panel').hidden = !opened
  find('.closed-hint').hidden = opened
  open()

  return {
    show(to) {
      shown = to
      values = shown && allValues(shown.pixels, shown.found, shown.weights)
      for (const tab of tabs) {
        const canvas = tab.querySelector('canvas')
        if (values) thumbnail(canvas, layerOf(tab.dataset.layer))
        else showImage(canvas, new Uint8Array(1), 1, 1)
      }
      drawBoard()
      drawValue()
    },
  }
}

export async function mount(place) { // On a page of its own: with a small canvas
  const network = loadNetwork()
  await Promise.all([network, styles(...SHEETS, 'layers.css', 'value.css')])
  const [drawing, layers] = [element('div'), element('div')]
  place.append(drawing, layers)
  const { show } = mountLayers(layers)
  mountDrawing(drawing, { small: true, onShow: shown => show(shown.found ? shown : null) })
}
