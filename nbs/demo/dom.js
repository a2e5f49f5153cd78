// Small things that the sections of the page share: elements, percentages, and pictures of 28×28 values.

export function element(tag, properties = {}, ...children) { // A property such as onclick, or an attribute such as aria-label
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value
    else made.setAttribute(name, value)
  }
  made.append(...children)
  return made
}

// Load style sheets of this folder, each once a page; the promise waits for them, and a missing one is no reason to stop
const sheets = new Map()
export const styles = (...names) => Promise.all(names.map(name => {
  if (!sheets.has(name)) sheets.set(name, new Promise(done => {
    document.head.append(element('link', { rel: 'stylesheet', href: new URL(name, import.meta.url).href, onload: done, onerror: done }))
  }))
  return sheets.get(name)
}))

export const button = (label, onclick, more = {}) => element('button', { type: 'button', onclick, ...more }, label)

export const percent = p => `${(100 * p).toFixed(1)} %`

export const count = n => n.toLocaleString('en-GB')

export function tileCanvas(pixels, label) { // 784 values from 0 (black) to 1 (white)
  const canvas = element('canvas', { width: 28, height: 28, className: 'tile', role: 'img', 'aria-label': label })
  paint(canvas, pixels)
  return canvas
}

export function paint(canvas, pixels) {
  const image = new ImageData(28, 28)
  pixels.forEach((t, i) => image.data.set([255 * t, 255 * t, 255 * t, 255], 4 * i))
  canvas.getContext('2d').putImageData(image, 0, 0)
}
