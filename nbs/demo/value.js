// How one value is computed, as numbers that one can check: the patch, the filter, their products, the sum, ReLU.
import { layerOf } from './explain.js'
import { number } from './pictures.js'

const SHOWN = 4 // Terms that are shown one by one; the others are added up

// Numbers k by k, tinted by their sign and size
export function block(values, k, caption) {
  const top = values.reduce((a, v) => Math.max(a, Math.abs(v)), 1e-6)
  const text = v => v && top < 0.3 ? number(v, 3).replace('0.', '.') : number(v) // Small numbers with one more digit
  const cells = Array.from(values, v =>
    `<span style="--t: ${(0.45 * Math.abs(v) / top).toFixed(2)}" class="${v < 0 ? 'minus' : 'plus'}">${text(v)}</span>`)
  return `<figure class="block k${k}"><div>${cells.join('')}</div><figcaption>${caption}</figcaption></figure>`
}

// Numbers as a sum, each with a remark or without
const added = parts => parts.map(([t, remark], i) =>
  (i ? t < 0 ? ' − ' : ' + ' : '') + number(i ? Math.abs(t) : t) + (remark ? ` <small>(${remark})</small>` : '')).join('')

export const join = (...parts) => parts.join('<span class="sign" aria-hidden="true">×</span>')

// The button that follows a term to the layer before; `data-follow` holds the map and the value in it
const follow = (layer, map, at, text) =>
  `<button type="button" class="follow" data-follow="${layer},${map},${at}">${text}</button>`

function strongest(values) { // Index of the largest size
  let best = 0
  values.forEach((v, i) => { if (Math.abs(v) > Math.abs(values[best])) best = i })
  return best
}

// The value in the layer before that contributes most to a term: its index in its map
function cellBehind(layer, before, term, y, x) {
  const at = strongest(term.products)
  return layer.kind === 'conv' ? (y + Math.floor(at / 3)) * before.size + x + at % 3 : at
}

const nameOf = (layer, map) => layer === 'image' ? 'the image' : layer === 'fc1' ? `value ${map} of fc1` : `map ${map} of ${layer}`

function sumOf(layer, { terms, bias, total, value, k }, y, x) {
  const before = layerOf(layer.from)
  const rest = terms.slice(SHOWN)
  const rows = terms.slice(0, SHOWN).map(term => `<li>
    <p>${follow(layer.from, term.from, cellBehind(layer, before, term, y, x), nameOf(layer.from, term.from))}</p>
    <div class="product">${join(block(term.patch, k, 'values'), block(term.kernel, k, layer.kind === 'conv' ? 'filter' : 'weights'))}
    <span class="sign" aria-hidden="true">=</span>${block(term.products, k, `products, sum ${number(term.sum)}`)}</div></li>`)
  const parts = terms.slice(0, SHOWN).map(term => [term.sum])
  if (rest.length) parts.push([rest.reduce((t, term) => t + term.sum, 0), `the other ${rest.length}`])
  const strongestFew = before.maps === 1 ? '' : `<p>The ${SHOWN} of the ${before.maps} maps of ${layer.from} that matter most here:</p>`
  return `${strongestFew}<ol class="terms">${rows.join('')}</ol>
    <p class="sum">${added([...parts, [bias, 'bias']])} = <strong>${number(total)}</strong></p>
    <p>${relu(total, value)}</p>`
}

function relu(total, value) {
  return total < 0 ? `ReLU replaces a negative sum by 0, so the value shown is <strong>${number(value)}</strong>.`
    : `ReLU leaves a positive sum as it is, so the value shown is <strong>${number(value)}</strong>.`
}

function poolOf(layer, { patch, value }, map, y, x) {
  const at = strongest(patch), { size } = layerOf(layer.from)
  const cell = (2 * y + Math.floor(at / 2)) * size + 2 * x + at % 2
  return `<p>Four neighbouring values of ${follow(layer.from, map, cell, nameOf(layer.from, map))}:</p>${block(patch, 2, '')}
    <p>The largest of them is <strong>${number(value)}</strong>.</p>`
}

// The fifty terms of a digit's logit, the largest first
function logitOf(map, { terms, bias, total }, probability) {
  const sorted = [...terms].sort((a, b) => b.sum - a.sum)
  const top = Math.max(...sorted.map(term => Math.abs(term.sum)), 1e-6)
  const silent = sorted.filter(term => term.patch[0] === 0).length
  const rows = sorted.map(({ from, patch, kernel, sum }) => `<li>${follow('fc1', from, 0, `value ${from}`)}
    <span>${number(patch[0])} × ${number(kernel[0])}</span>
    <span class="bar"><i class="${sum < 0 ? 'minus' : 'plus'}" style="width: ${50 * Math.abs(sum) / top}%"></i></span>
    <strong>${number(sum)}</strong></li>`)
  return `<p>Each of the fifty terms is a value of fc1 times a weight. ${silent} of the values are 0 after ReLU and add nothing.</p>
    <ol class="logit" aria-label="The fifty terms of the logit of ${map}, largest first">${rows.join('')}</ol>
    <p class="sum">${added([[total - bias, 'the fifty terms'], [bias, 'bias']])} = <strong>${number(total)}</strong></p>
    <p>The softmax turns the ten logits into probabilities: the exponential of each, divided by the sum of all ten. For ${map} it
      gives <strong>${number(100 * probability, 1)} %</strong>.</p>`
}

// The explanation of value (y, x) of a map, as explain() found it, as HTML
export function explanation(layer, map, y, x, found, context) {
  const { kind, name } = layer
  if (kind === 'image') {
    return `<p>This pixel is <strong>${number(context.pixel)}</strong> (0 is black, 1 is white). The network is given
      (${number(context.pixel)} − ${context.mean.toFixed(4)}) / ${context.std.toFixed(4)} = <strong>${number(found.value)}</strong>.</p>`
  }
  if (kind === 'pool') return poolOf(layer, found, map, y, x)
  if (name === 'fc2') return logitOf(map, found, context.probability)
  return sumOf(layer, found, y, x)
}
