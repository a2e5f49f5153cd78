// A small chart of lines and dots, as SVG: sharp on every screen, and in the colours of the page's theme by way of CSS. The
// drawing stretches to the size that CSS gives it; line widths and the numbers at the axes do not.
import { element } from './dom.js'

const SVG = 'http://www.w3.org/2000/svg'
const FAR = 1e4 // Percent of the chart, beyond which a point may as well be here

function path(className, d) {
  const made = document.createElementNS(SVG, 'path')
  made.setAttribute('class', className)
  made.setAttribute('d', d)
  return made
}

// Round numbers between two others: 0, 0.5, 1, ...
function ticks([low, high]) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough))
  const size = power * [1, 2, 5, 10].find(k => k * power >= rough)
  const first = Math.ceil(low / size)
  return Array.from({ length: Math.floor(high / size + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * size).toPrecision(6)))
}

// `draw` takes the ranges [low, high] of x and y, lines as { name, points: [[x, y], ...] } and dots as { name, at: [x, y] };
// the names are classes for the style sheet
export function makeChart(label, xName, yName) {
  const svg = document.createElementNS(SVG, 'svg')
  for (const [name, value] of Object.entries({ viewBox: '0 0 100 100', preserveAspectRatio: 'none', role: 'img', 'aria-label': label }))
    svg.setAttribute(name, value)
  const numbers = element('div', { 'aria-hidden': 'true' })
  const plot = element('div', { className: 'plot' }, svg, numbers)
  return {
    element: element('div', { className: 'chart' }, element('div', { className: 'small' }, yName), plot,
      element('div', { className: 'small across' }, xName)),
    describe(text) { svg.setAttribute('aria-label', text) },
    draw({ x, y, lines, dots = [] }) {
      const near = t => Math.max(-FAR, Math.min(FAR, t)).toFixed(2)
      const across = v => 100 * (v - x[0]) / (x[1] - x[0]), down = v => 100 - 100 * (v - y[0]) / (y[1] - y[0])
      const at = ([a, b]) => `${near(across(a))} ${near(down(b))}`
      svg.replaceChildren(
        ...ticks(y).map(v => path('rule', `M 0 ${down(v)} H 100`)),
        ...lines.map(({ name, points }) => path(`line ${name}`, points.length ? `M ${points.map(at).join(' L ')}` : '')),
        ...dots.map(({ name, at: point }) => path(`dot ${name}`, `M ${at(point)} h 0`))) // A line of no length with round ends
      const tick = (name, side, part, v) => {
        const made = element('span', { className: name }, `${v}`.replace('-', '−'))
        made.style[side] = `${part}%`
        return made
      }
      numbers.replaceChildren(...ticks(x).map(v => tick('x', 'left', across(v), v)), ...ticks(y).map(v => tick('y', 'top', down(v), v)))
    },
  }
}
