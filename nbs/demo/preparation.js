// What the preparation does to a drawing: a picture after each stage, a switch that leaves the stage out, the reason for it,
// and a drawing that is misread without it.
import { SHEETS, mountDrawing } from './drawing.js'
import { element, styles } from './dom.js'
import { showImage } from './pictures.js'
import { DIGITS } from './strokes.js'

const moved = (strokes, scale, right = 0, down = 0) =>
  strokes.map(stroke => stroke.map(([x, y]) => [(x - 128) * scale + 128 + right, (y - 128) * scale + 128 + down]))

// `example` is drawn with a pen of `pen` pixels
export const PARTS = [
  { name: 'ink', title: 'White on black', example: 'a 3', digit: 3, strokes: DIGITS[3],
    why: `MNIST’s digits are white on black. A network that has seen only those takes white paper for ink.` },
  { name: 'specks', title: 'No specks', example: 'a 4 and two specks', digit: 4, pen: 14,
    strokes: [...moved(DIGITS[4], 0.4, 70, 60), [[16, 16]], [[30, 40]]],
    why: `If a stray dot stays, the box around the ink includes it, and the digit in the box is too small and out of place.` },
  { name: 'size', title: '20×20 pixels', example: 'a small 8', digit: 8, strokes: moved(DIGITS[8], 0.4), pen: 14,
    why: `MNIST’s digits fill a box of 20×20 pixels, and the network has learned loops and bends of that size. The loops of a
      small digit close up.` },
  { name: 'stroke', title: 'Stroke width', example: 'a thin 0', digit: 0, strokes: DIGITS[0], pen: 4,
    why: `MNIST’s strokes are two or three pixels wide. A thinner line fades to grey when the drawing is reduced to 28×28
      pixels, and the network hardly responds to it.` },
  { name: 'centre', title: 'Centre', example: 'a 7 in the corner', digit: 7, strokes: moved(DIGITS[7], 0.45, -65, -60),
    why: `MNIST’s digits have their centre of mass in the middle. The network forgives a small shift, but its last layers have a weight
      of their own for each place: what it knows of strokes on the right does not help on the left.` },
]

// `onSwitch(off)` gets the names of the stages that are off; `onExample(strokes, pen)` is asked to draw an example.
// Returns { show(pictures, answer) }.
export function mountPreparation(place, { onSwitch, onExample }) {
  place.innerHTML = `<ol class="stages">${PARTS.map(({ name, title, why, example }) => `
    <li data-stage="${name}"><canvas role="img" aria-label="After this step: ${title}"></canvas>
      <div><label><input type="checkbox" role="switch" checked> <strong>${title}</strong></label>
      <p>${why}</p><button type="button" class="example">Draw ${example}</button></div></li>`).join('')}</ol>
    <p class="stages-answer"></p>`
  const items = [...place.querySelectorAll('li')]
  const note = place.querySelector('.stages-answer')
  const off = () => items.filter(item => !item.querySelector('input').checked).map(item => item.dataset.stage)

  place.addEventListener('change', () => {
    const names = off()
    for (const item of items) item.classList.toggle('off', names.includes(item.dataset.stage))
    onSwitch(names)
  })
  place.addEventListener('click', event => {
    if (!event.target.matches('.example')) return
    const { strokes, pen } = PARTS[items.indexOf(event.target.closest('li'))]
    onExample(strokes.map(stroke => [...stroke]), pen)
  })
  return {
    show(pictures, answer) { // What stages() returns; the answer as a sentence
      for (const item of items) {
        const p = framed(item.dataset.stage, pictures?.[item.dataset.stage])
        showImage(item.querySelector('canvas'), p.v, p.h, p.w, 255)
      }
      const names = off()
      const left = PARTS.filter(({ name }) => names.includes(name)).map(({ title }) => `“${title}”`)
      const text = (left.length ? `Without ${left.join(' and ')}: ` : 'With all five steps: ') + answer
      if (note.textContent !== text) note.textContent = text
    },
  }
}

const FRAME = 224 // Eight times 28 pixels: the scale of the enlarged digit
function framed(name, p = { h: 1, w: 1, v: [0] }) {
  if (!['size', 'stroke'].includes(name) || p.h === 1) return p
  const v = new Uint8Array(FRAME * FRAME).fill(p.v[0]) // A corner, which is paper
  const [top, left] = [Math.max((FRAME - p.h) >> 1, 0), Math.max((FRAME - p.w) >> 1, 0)]
  for (let y = 0; y < Math.min(p.h, FRAME); y++) for (let x = 0; x < Math.min(p.w, FRAME); x++)
    v[(y + top) * FRAME + x + left] = p.v[y * p.w + x]
  return { h: FRAME, w: FRAME, v }
}

export async function mount(place) { // On a page of its own: with a small canvas
  await styles(...SHEETS, 'preparation.css')
  const [canvas, steps] = [element('div'), element('div')]
  place.append(canvas, steps)
  const preparation = mountPreparation(steps, { onSwitch: names => drawing.leaveOut(names), onExample: (...example) => drawing.draw(...example) })
  const drawing = mountDrawing(canvas, { small: true, onShow: ({ pictures, text }) => preparation.show(pictures, text) })
}
