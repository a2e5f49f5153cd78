// Pictures of grey levels, and what can be done with them. A picture is {h, w, v}: height, width, and a Float32Array of h*w
// values, row by row.

export const picture = (h, w, f = () => 0) => {
  const v = new Float32Array(h * w)
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) v[y * w + x] = f(y, x)
  return { h, w, v }
}
export const map = ({ h, w, v }, f) => {
  const out = new Float32Array(v.length)
  for (let i = 0; i < v.length; i++) out[i] = f(v[i])
  return { h, w, v: out }
}
export function sum(v) {
  let t = 0
  for (let i = 0; i < v.length; i++) t += v[i]
  return t
}
export function largest(v) {
  let t = -Infinity
  for (let i = 0; i < v.length; i++) if (v[i] > t) t = v[i]
  return t
}
export function pick(v, f) { // Values for which f(value, index) is true
  const out = new Float32Array(v.length)
  let n = 0
  for (let i = 0; i < v.length; i++) if (f(v[i], i)) out[n++] = v[i]
  return out.subarray(0, n)
}
export function median(values) { // Of the two in the middle, the smaller one; by quickselect
  const v = values.slice(), middle = (v.length - 1) >> 1
  for (let from = 0, to = v.length - 1; from < to;) {
    const pivot = v[(from + to) >> 1]
    let i = from, j = to
    while (i <= j) {
      while (v[i] < pivot) i++
      while (v[j] > pivot) j--
      if (i <= j) { const t = v[i]; v[i++] = v[j]; v[j--] = t }
    }
    if (middle <= j) to = j
    else if (middle >= i) from = i
    else break
  }
  return v[middle]
}
export const clamped = t => Math.min(Math.max(t, 0), 1)

export function smooth(p) { // Mean of 3 by 3 pixels
  const { h, w, v } = p, out = new Float32Array(h * w)
  for (let y = 0; y < h; y++) {
    const rows = [Math.max(y - 1, 0) * w, y * w, Math.min(y + 1, h - 1) * w]
    for (let x = 0; x < w; x++) {
      const left = Math.max(x - 1, 0), right = Math.min(x + 1, w - 1)
      let t = 0
      for (const row of rows) t += v[row + left] + v[row + x] + v[row + right]
      out[y * w + x] = t / 9
    }
  }
  return { h, w, v: out }
}

// Connected parts, corners included: a number for each pixel, 0 outside
export function parts(mask, h, w) {
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
export const resize = (p, h, w) => turned(resizedRows(turned(resizedRows(p, Math.max(1, h))), Math.max(1, w)))

export function padded(p, n) {
  return picture(p.h + 2 * n, p.w + 2 * n, (y, x) =>
    y >= n && x >= n && y < p.h + n && x < p.w + n ? p.v[(y - n) * p.w + x - n] : 0)
}

// Maximum over a disc around each pixel. A disc is a stack of rows, and the maximum over a row is that over two overlapping
// spans whose lengths are powers of two, which are computed once for each row of the picture.
export function grown({ h, w, v }, radius) {
  const out = new Float32Array(h * w), r = Math.trunc(radius)
  const reach = Array.from({ length: r + 1 }, (_, i) => Math.floor(Math.sqrt(radius * radius - i * i)))
  for (let y = 0; y < h; y++) {
    const spans = [v.subarray(y * w, (y + 1) * w)] // spans[k][x]: maximum of the 2**k values from x on
    for (let n = 1; 2 * n <= w; n *= 2) {
      const last = spans.at(-1)
      spans.push(last.map((t, x) => x + n < w ? Math.max(t, last[x + n]) : t))
    }
    reach.forEach((half, i) => {
      const rows = [y - i, y + i].filter(row => row >= 0 && row < h)
      for (let x = 0; x < w; x++) {
        const from = Math.max(x - half, 0), to = Math.min(x + half, w - 1)
        const k = 31 - Math.clz32(to - from + 1), span = spans[k]
        const most = Math.max(span[from], span[to + 1 - (1 << k)])
        for (const row of rows) if (most > out[row * w + x]) out[row * w + x] = most
      }
    })
  }
  return { h, w, v: out }
}
