// The browser's half of DrawDigit: the page's canvas, and the answer below it. `model`
// holds what both halves share: `strokes`, as in draw.js, and `answer`, an object
// { text, short, pixels } that Python writes.
import { mountCanvas } from './draw.js' // The class DrawDigit joins the two files

const BELOW = `
  <div style="padding: 5px 5px 0"></div>
  <p style="display: flex; align-items: center; gap: 1.5rem; margin: .5rem 5px">
    <span aria-hidden="true" style="font: 600 4rem/1 sans-serif; min-width: 1ch"></span>
    <canvas width="28" height="28" role="img" aria-label="Image that the network sees"
      style="width: 5.25rem; image-rendering: pixelated; border: 1px solid"></canvas>
  </p>
  <p class="drawing-answer" style="margin: 5px" role="status" aria-live="polite"></p>`
const WAIT = 100 // Milliseconds between two messages to Python, at least

function render({ model, el }) {
  el.innerHTML = BELOW
  el.dataset.lmSuppressShortcuts = 'true' // JupyterLab 4.0 would take the arrow keys
  const [place, digit, seen, status] = ['div', 'span', 'canvas', '.drawing-answer']
    .map(name => el.querySelector(name))
  const onChange = () => { timer ??= setTimeout(send, WAIT) }
  const drawing = mountCanvas(place, { onChange, onLift: say })
  let sent = null, timer = null

  function send() {
    const rounded = v => Math.round(10 * v) / 10
    timer = null
    sent = drawing.strokes.map(stroke => stroke.map(point => point.map(rounded)))
    model.set('strokes', sent)
    model.save_changes()
  }
  function take() { // Strokes from Python, or from another view of the widget
    const strokes = model.get('strokes')
    if (strokes !== sent && !drawing.busy) drawing.set(structuredClone(strokes))
  }
  function say() { // Once the pen is up, so that a screen reader is not interrupted
    const { text } = model.get('answer')
    if (!drawing.busy && status.textContent !== text) status.textContent = text
  }
  function show() {
    const { short, pixels } = model.get('answer'), image = new ImageData(28, 28)
    pixels.forEach((v, i) => image.data.set([v, v, v, 255], 4 * i))
    seen.getContext('2d').putImageData(image, 0, 0)
    digit.textContent = short
    say()
  }

  model.on('change:strokes', take)
  model.on('change:answer', show)
  take()
  show()
  return () => { // When the view is closed
    model.off('change:strokes', take)
    model.off('change:answer', show)
  }
}

export default { render }
