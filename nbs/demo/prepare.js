// From a drawing to an image like MNIST's: the steps of preprocess in s5_mnist/preprocessing.py, in the same order. The
// paper of a drawing has a single grey level, and everything on it was drawn, so the steps for uneven paper and for a table
// beside the paper are left out.
import { clamped, grown, largest, map, median, padded, parts, pick, picture, resize, smooth, sum } from './raster.js'

export const SCALE = 8
export const WIDTHS = [1.8, 3.2]

// Paper and ink

function paperOf({ h, w, v }) {
  const count = new Float64Array(53), grey = new Uint8Array(h * w)
  const at = (i, n) => n > 1 ? 2 * i / (n - 1) - 1 : -1
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const i = y * w + x, corner = (at(y, h) * at(x, w)) ** 2
    grey[i] = Math.round(50 * v[i])
    count[grey[i] + 1] += 1 + 20 * corner * corner
  }
  let best = 0
  const near = i => 0.99 * count[i] + count[i + 1] + 0.99 * count[i + 2] // In a tie, the middle
  for (let i = 1; i <= 50; i++) if (near(i) > near(best)) best = i
  return median(pick(v, (_, i) => Math.abs(grey[i] - best) <= 1))
}

function inkOf(p) {
  const paper = paperOf(p)
  const [dark, light] = [map(p, t => Math.max(paper - t, 0)), map(p, t => Math.max(t - paper, 0))]
  const energy = q => sum(map(q, t => t * t).v)
  return energy(dark) > energy(light) ? dark : light
}

function threshold(values, top) { // Of values from 0 to `top`
  const n = new Float64Array(64)
  for (let i = 0; i < values.length; i++) n[Math.min(Math.floor(64 * Math.fround(values[i] / top)), 63)]++
  const total = values.length
  const mean = n.reduce((a, c, i) => a + c * (i + 0.5) / 64, 0)
  let [below, sums, best, most] = [0, 0, 0, -1]
  for (let i = 0; i < 64; i++) {
    below += n[i]
    sums += n[i] * (i + 0.5) / 64
    const between = (mean * below / total - sums) ** 2 / Math.max(below * (total - below), 1e-6)
    if (between > most) [most, best] = [between, i]
  }
  return (best + 0.5) / 64 * top
}

function levels(ink) {
  const calm = smooth(ink).v
  const top = largest(calm)
  if (top < 0.04) return null
  const part = threshold(calm, top)
  const [full, rest] = [pick(calm, t => t > part), pick(calm, t => t <= part)]
  if (!rest.length) return null
  const [low, high] = [median(rest), sum(full) / full.length]
  return map(ink, t => clamped((t - low) / (high - low)))
}

const mask = ink => map(smooth(ink), t => t > 0.25 ? 1 : 0).v

function withoutSpecks(ink) {
  const { h, w } = ink
  const [n, found] = parts(mask(ink), h, w)
  const mass = new Float64Array(found + 1)
  for (let i = 0; i < n.length; i++) if (n[i]) mass[n[i]] += ink.v[i]
  const most = largest(mass)
  const kept = new Float32Array(h * w)
  for (let i = 0; i < n.length; i++) { // A part that stays keeps its blurred edge, one pixel wide
    if (!n[i] || mass[n[i]] < 0.1 * most) continue
    const [y, x] = [Math.floor(i / w), i % w]
    for (let a = Math.max(y - 1, 0); a <= Math.min(y + 1, h - 1); a++)
      for (let b = Math.max(x - 1, 0); b <= Math.min(x + 1, w - 1); b++) kept[a * w + b] = ink.v[a * w + b]
  }
  const top = Math.max(largest(kept), 1e-6)
  return map({ h, w, v: kept }, t => t / top)
}

// Are two tall parts side by side, or one above the other?
function two(ink) {
  const [n, found] = parts(mask(ink), ink.h, ink.w)
  const all = Array.from({ length: found + 1 }, () => ({ size: 0, top: ink.h, bottom: 0, left: ink.w, right: 0 }))
  n.forEach((k, i) => {
    if (!k) return
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

function bounds(p) { // Of what is more than half ink
  let [top, bottom, left, right] = [p.h, 0, p.w, 0]
  p.v.forEach((t, i) => {
    if (t <= 0.5) return
    const [y, x] = [Math.floor(i / p.w), i % p.w];
    [top, bottom, left, right] = [Math.min(top, y), Math.max(bottom, y), Math.min(left, x), Math.max(right, x)]
  })
  return { top, left, h: bottom - top + 1, w: right - left + 1 }
}

function boxed(p, side, margin = 0) {
  const { top, left, h, w } = bounds(p)
  const around = padded(p, margin)
  const cut = picture(h + 2 * margin, w + 2 * margin, (y, x) => around.v[(y + top) * around.w + x + left])
  const scale = side / Math.max(h, w)
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

function weighted(p) {
  const w = width(p)
  const wide = padded(p, 2 * SCALE)
  if (w < WIDTHS[0]) return grown(wide, (WIDTHS[0] - w) / 2 * SCALE)
  const inverse = q => map(q, t => 1 - t)
  return w > WIDTHS[1] ? inverse(grown(inverse(wide), (w - WIDTHS[1]) / 2 * SCALE)) : wide
}

// The digit in 28 by 28 pixels, its longer side of `side`/SCALE; its centre of mass in the middle, or its box around `at`
function placed(p, side, at) {
  let box = boxed(p, side)
  box = resize(box, Math.round(box.h / SCALE), Math.round(box.w / SCALE))
  const total = sum(box.v)
  const within = (t, n) => Math.min(Math.max(Math.trunc(t), 0), 28 - n)
  const centre = f => 14.51 - box.v.reduce((a, t, i) => a + t * f(i), 0) / total
  const top = within(at ? at[0] - box.h / 2 + 0.5 : centre(i => Math.floor(i / box.w)), box.h)
  const left = within(at ? at[1] - box.w / 2 + 0.5 : centre(i => i % box.w), box.w)
  return picture(28, 28, (y, x) =>
    y >= top && x >= left && y < top + box.h && x < left + box.w ? box.v[(y - top) * box.w + x - left] : 0)
}

// The stages that can be left out, in their order
export const STAGES = ['ink', 'specks', 'size', 'stroke', 'centre']

// A drawing {h, w, v} with values from 0 to 1 after each stage: { image, why, pictures: { ink, ..., centre } }. `image` holds
// 28 by 28 grey levels, 0 to 255, or is null if the drawing isn't one digit; then `why` is 'blank' or 'two'. The stages
// named in `off` are left out: what they would change stays as it is in the drawing.
export function stages(drawing, off = []) {
  const on = name => !off.includes(name)
  const pictures = {}
  const show = (name, p) => { pictures[name] = on('ink') ? p : map(p, t => 1 - t); return p }
  const ink = levels(inkOf(drawing))
  if (!ink) return { image: null, why: 'blank', pictures }
  show('ink', ink)
  const digit = show('specks', on('specks') ? withoutSpecks(ink) : ink)
  if (!(largest(digit.v) > 0.5)) return { image: null, why: 'blank', pictures }
  if (two(digit)) return { image: null, why: 'two', pictures }
  const drawn = bounds(digit), shrink = 28 / Math.max(drawing.h, drawing.w)
  const size = on('size') ? 20 * SCALE : Math.max(drawn.h, drawn.w) * shrink * SCALE
  const large = show('size', contour(boxed(digit, size, 2)))
  const thick = on('stroke') ? weighted(large) : large
  const weight = show('stroke', largest(thick.v) > 0.5 ? thick : large)
  const box = bounds(weight)
  const side = on('size') ? 20 * SCALE : Math.min(Math.max(box.h, box.w), 28 * SCALE)
  const at = on('centre') ? null : [(drawn.top + drawn.h / 2) * shrink, (drawn.left + drawn.w / 2) * shrink]
  show('centre', placed(weight, side, at))
  return { image: Uint8Array.from(pictures.centre.v, t => Math.round(255 * t)), why: null, pictures }
}

// 28 by 28 grey levels, 0 to 255, of a drawing; null if it isn't one digit
export const preprocess = drawing => stages(drawing).image
