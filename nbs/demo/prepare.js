// From a drawing to an image like MNIST's: the steps of preprocess in s5_mnist/preprocessing.py, in the same order. A picture
// is {h, w, v}: height, width, and a Float32Array of h*w values, row by row. The paper of a drawing has a single grey level,
// and everything on it was drawn, so the steps for uneven paper and for a table beside the paper are left out.

export const SCALE = 8
export const WIDTHS = [1.8, 3.2]

const picture = (h, w, f = () => 0) => {
  const v = new Float32Array(h * w)
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) v[y * w + x] = f(y, x)
  return { h, w, v }
}
const map = (p, f) => ({ ...p, v: p.v.map(f) })
const sum = v => v.reduce((a, b) => a + b, 0)
const largest = v => v.reduce((a, b) => Math.max(a, b), -Infinity)
const median = v => Float32Array.from(v).sort()[(v.length - 1) >> 1]
const clamped = t => Math.min(Math.max(t, 0), 1)

// Paper and ink

function paperOf(p) {
  const count = new Float64Array(53)
  const grey = p.v.map(t => Math.round(50 * t))
  const at = n => i => n > 1 ? 2 * i / (n - 1) - 1 : -1
  const [row, column] = [at(p.h), at(p.w)]
  for (let y = 0; y < p.h; y++) for (let x = 0; x < p.w; x++)
    count[grey[y * p.w + x] + 1] += 1 + 20 * (row(y) * column(x)) ** 4
  let best = 0
  const near = i => 0.99 * count[i] + count[i + 1] + 0.99 * count[i + 2] // In a tie, the middle
  for (let i = 1; i <= 50; i++) if (near(i) > near(best)) best = i
  return median(p.v.filter((_, i) => Math.abs(grey[i] - best) <= 1))
}

function inkOf(p) {
  const paper = paperOf(p)
  const [dark, light] = [map(p, t => Math.max(paper - t, 0)), map(p, t => Math.max(t - paper, 0))]
  const energy = q => sum(q.v.map(t => t * t))
  return energy(dark) > energy(light) ? dark : light
}

function smooth(p) {
  const at = (y, x) => p.v[Math.min(Math.max(y, 0), p.h - 1) * p.w + Math.min(Math.max(x, 0), p.w - 1)]
  return picture(p.h, p.w, (y, x) => {
    let t = 0
    for (let i = -1; i <= 1; i++) for (let j = -1; j <= 1; j++) t += at(y + i, x + j)
    return t / 9
  })
}

function threshold(values) {
  const n = new Float64Array(64)
  for (const t of values) n[Math.min(Math.floor(64 * t), 63)]++
  const total = values.length
  const mean = n.reduce((a, c, i) => a + c * (i + 0.5) / 64, 0)
  let [below, sums, best, most] = [0, 0, 0, -1]
  for (let i = 0; i < 64; i++) {
    below += n[i]
    sums += n[i] * (i + 0.5) / 64
    const between = (mean * below / total - sums) ** 2 / Math.max(below * (total - below), 1e-6)
    if (between > most) [most, best] = [between, i]
  }
  return (best + 0.5) / 64
}

function levels(ink) {
  const calm = smooth(ink)
  const top = largest(calm.v)
  if (top < 0.04) return null
  const part = threshold(calm.v.map(t => t / top)) * top
  const [full, rest] = [calm.v.filter(t => t > part), calm.v.filter(t => t <= part)]
  if (!rest.length) return null
  const [low, high] = [median(rest), sum(full) / full.length]
  return map(ink, t => clamped((t - low) / (high - low)))
}

// Connected parts, corners included: a number for each pixel, 0 outside
function parts(mask, h, w) {
  const n = new Int32Array(h * w)
  let found = 0
  for (let start = 0; start < h * w; start++) {
    if (!mask[start] || n[start]) continue
    const todo = [start]
    n[start] = ++found
    while (todo.length) {
      const i = todo.pop()
      const [y, x] = [Math.floor(i / w), i % w]
      for (let a = Math.max(y - 1, 0); a <= Math.min(y + 1, h - 1); a++)
        for (let b = Math.max(x - 1, 0); b <= Math.min(x + 1, w - 1); b++)
          if (mask[a * w + b] && !n[a * w + b]) { n[a * w + b] = found; todo.push(a * w + b) }
    }
  }
  return [n, found]
}

function withoutSpecks(ink) {
  const { h, w } = ink
  const [n, found] = parts(smooth(ink).v.map(t => t > 0.25), h, w)
  const mass = new Float64Array(found + 1)
  n.forEach((k, i) => { if (k) mass[k] += ink.v[i] })
  const most = largest(mass)
  const keep = mass.map((m, k) => k > 0 && m >= 0.1 * most ? 1 : 0)
  const kept = picture(h, w, (y, x) => {
    for (let a = Math.max(y - 1, 0); a <= Math.min(y + 1, h - 1); a++)
      for (let b = Math.max(x - 1, 0); b <= Math.min(x + 1, w - 1); b++)
        if (keep[n[a * w + b]]) return ink.v[y * w + x]
    return 0
  })
  const top = Math.max(largest(kept.v), 1e-6)
  return map(kept, t => t / top)
}

// Are two tall parts side by side, or one above the other?
function two(ink) {
  const [n, found] = parts(smooth(ink).v.map(t => t > 0.25), ink.h, ink.w)
  const all = Array.from({ length: found + 1 }, () => ({ size: 0, top: ink.h, bottom: 0, left: ink.w, right: 0 }))
  n.forEach((k, i) => {
    const [y, x, part] = [Math.floor(i / ink.w), i % ink.w, all[k]]
    part.size++;
    [part.top, part.bottom] = [Math.min(part.top, y), Math.max(part.bottom, y)];
    [part.left, part.right] = [Math.min(part.left, x), Math.max(part.right, x)]
  })
  const shapes = all.slice(1)
  const most = key => Math.max(...shapes.map(p => p[key])), least = key => Math.min(...shapes.map(p => p[key]))
  const height = most('bottom') - least('top')
  const tall = part => shapes.filter(p => p.bottom - p.top >= part * height && 4 * p.size >= most('size'))
  const apart = (shapes, from, to) => Math.max(...shapes.map(p => p[from])) > Math.min(...shapes.map(p => p[to]))
  return apart(tall(0.6), 'left', 'right') || apart(tall(0.35), 'top', 'bottom')
}

// The size and weight of MNIST

function resizedRows(p, h) { // Triangle filter, as wide as the step where the picture shrinks
  const step = p.h / h
  const reach = Math.max(step, 1)
  const out = picture(h, p.w)
  for (let y = 0; y < h; y++) {
    const centre = step * (y + 0.5)
    const [from, to] = [Math.max(Math.trunc(centre - reach + 0.5), 0), Math.min(Math.trunc(centre + reach + 0.5), p.h)]
    const weights = []
    for (let i = from; i < to; i++) weights.push(Math.max(1 - Math.abs(i + 0.5 - centre) / reach, 0))
    const total = sum(weights)
    for (let x = 0; x < p.w; x++)
      out.v[y * p.w + x] = weights.reduce((t, k, i) => t + k * p.v[(from + i) * p.w + x], 0) / total
  }
  return out
}
const turned = p => picture(p.w, p.h, (y, x) => p.v[x * p.w + y])
const resize = (p, h, w) => turned(resizedRows(turned(resizedRows(p, Math.max(1, h))), Math.max(1, w)))

function padded(p, n) {
  return picture(p.h + 2 * n, p.w + 2 * n, (y, x) =>
    y >= n && x >= n && y < p.h + n && x < p.w + n ? p.v[(y - n) * p.w + x - n] : 0)
}

function boxed(p, side, margin = 0) {
  let [top, bottom, left, right] = [p.h, 0, p.w, 0]
  p.v.forEach((t, i) => {
    if (t <= 0.5) return
    const [y, x] = [Math.floor(i / p.w), i % p.w];
    [top, bottom, left, right] = [Math.min(top, y), Math.max(bottom, y), Math.min(left, x), Math.max(right, x)]
  })
  const around = padded(p, margin)
  const cut = picture(bottom - top + 1 + 2 * margin, right - left + 1 + 2 * margin,
    (y, x) => around.v[(y + top) * around.w + x + left])
  const scale = side / (Math.max(cut.h, cut.w) - 2 * margin)
  return resize(cut, Math.round(cut.h * scale), Math.round(cut.w * scale))
}

const contour = p => map(p, t => clamped((t - 0.5) * 4 + 0.5))

function width(p) {
  const at = (y, x) => y < p.h && x < p.w ? p.v[y * p.w + x] : 0
  let edge = 0
  for (let y = 0; y < p.h; y++) for (let x = 0; x < p.w; x++)
    edge += Math.hypot(at(y + 1, x) - at(y, x), at(y, x + 1) - at(y, x))
  return 2 * sum(p.v) / Math.max(edge, 1e-6) / SCALE
}

function grown(p, radius) {
  const r = Math.trunc(radius)
  const at = (y, x) => y >= 0 && x >= 0 && y < p.h && x < p.w ? p.v[y * p.w + x] : 0
  return picture(p.h, p.w, (y, x) => {
    let t = 0
    for (let i = -r; i <= r; i++) for (let j = -r; j <= r; j++)
      if (i * i + j * j <= radius * radius) t = Math.max(t, at(y + i, x + j))
    return t
  })
}

function weighted(p) {
  const w = width(p)
  const wide = padded(p, 2 * SCALE)
  if (w < WIDTHS[0]) return grown(wide, (WIDTHS[0] - w) / 2 * SCALE)
  const inverse = q => map(q, t => 1 - t)
  return w > WIDTHS[1] ? inverse(grown(inverse(wide), (w - WIDTHS[1]) / 2 * SCALE)) : wide
}

function placed(p) {
  let box = boxed(p, 20 * SCALE)
  box = resize(box, Math.round(box.h / SCALE), Math.round(box.w / SCALE))
  const total = sum(box.v)
  const centre = (f, n) => Math.min(Math.max(Math.trunc(14.51 - box.v.reduce((a, t, i) => a + t * f(i), 0) / total), 0), 28 - n)
  const top = centre(i => Math.floor(i / box.w), box.h)
  const left = centre(i => i % box.w, box.w)
  return picture(28, 28, (y, x) =>
    y >= top && x >= left && y < top + box.h && x < left + box.w ? box.v[(y - top) * box.w + x - left] : 0)
}

// 28 by 28 grey levels, 0 to 255, of a drawing {h, w, v} with values from 0 to 1; null if it isn't one digit
export function preprocess(drawing) {
  const ink = levels(inkOf(drawing))
  const digit = ink && withoutSpecks(ink)
  if (!digit || !(largest(digit.v) > 0.5) || two(digit)) return null
  const large = contour(boxed(digit, 20 * SCALE, 2))
  const weight = weighted(large)
  return Uint8Array.from(placed(largest(weight.v) > 0.5 ? weight : large).v, t => Math.round(255 * t))
}
