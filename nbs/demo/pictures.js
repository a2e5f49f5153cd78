// Values as pictures: one image, or the maps of a layer side by side on a board.

function largest(values) {
  let top = 1e-6
  for (const v of values) if (v > top) top = v
  return top
}

function paint(canvas, h, w, fill) { // `fill` writes pixels as 0xAABBGGRR
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h })
  const data = new ImageData(w, h)
  fill(new Uint32Array(data.data.buffer))
  canvas.getContext('2d').putImageData(data, 0, 0)
}

const grey = t => 0xff000000 | (t > 0 ? Math.min(255, t) : 0) * 0x010101

// Values h by w, from black (0 and less) to white (`top`, or the largest value)
export function showImage(canvas, values, h, w, top = largest(values)) {
  paint(canvas, h, w, pixels => {
    for (let i = 0; i < pixels.length; i++) pixels[i] = grey(255 * values[i] / top | 0)
  })
}

// All maps of a layer, `columns` in a row, with one shade for the whole layer. A map takes size*zoom + 1 pixels: single values
// become blocks, and a transparent line separates the maps.
export function showBoard(canvas, values, maps, size, columns) {
  const zoom = size === 1 ? 8 : 1, step = size * zoom + 1
  const top = largest(values), width = columns * step, rows = Math.ceil(maps / columns)
  paint(canvas, rows * step, width, pixels => {
    for (let k = 0, i = 0; k < maps; k++) {
      const start = Math.floor(k / columns) * step * width + k % columns * step
      for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) {
        const shade = grey(255 * values[i++] / top | 0)
        if (zoom === 1) pixels[start + y * width + x] = shade
        else for (let a = 0; a < zoom; a++) pixels.fill(shade, start + a * width, start + a * width + zoom)
      }
    }
  })
}

// 1.234 as '1.23', -1.234 as '−1.23', -0.001 as '0.00'
export const number = (t, digits = 2) => {
  const text = Math.abs(t).toFixed(digits)
  return (t < 0 && Number(text) ? '−' : '') + text
}
