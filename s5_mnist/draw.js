// A canvas to draw a digit on, by pointer or by keyboard. It needs nothing but its style sheet, draw.css.
//
//   const drawing = mountCanvas(place, { onChange(strokes, imageData) { ... } })
//
// `onChange` is called at most once a frame, while a stroke grows and whenever one is taken back. `strokes` are lists of
// [x, y] points on 256 by 256 pixels; `imageData` holds them in black on white, without the keyboard's cursor.

export const SIZE = 256
const PEN = 22, STEP = 8 // Pixels: width of a stroke, move of an arrow key
const SHARP = 2          // Pixels of the visible canvas for each one of the drawing

const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }
const HTML = `
  <canvas class="drawing" width="${SHARP * SIZE}" height="${SHARP * SIZE}" tabindex="0" role="application"
    aria-label="Drawing area. Arrow keys move the pen, the space bar lowers and lifts it."></canvas>
  <p class="drawing-buttons">
    <button type="button" class="undo">Undo</button>
    <button type="button" class="clear">Clear</button>
  </p>
  <p class="drawing-hint">By keyboard: the arrow keys move the pen, the space bar lowers and lifts it.</p>
  <p class="drawing-pen" role="status" aria-live="polite"></p>`

function paint(context, strokes, pen) {
  context.fillStyle = '#fff'
  context.fillRect(0, 0, SIZE, SIZE)
  Object.assign(context, { strokeStyle: '#000', lineWidth: pen, lineCap: 'round', lineJoin: 'round' })
  for (const points of strokes) {
    context.beginPath()
    context.moveTo(...points[0])
    for (const p of points.slice(1)) context.lineTo(...p)
    if (points.length === 1) context.lineTo(points[0][0] + 0.1, points[0][1]) // A dot; a line of no length is not drawn
    context.stroke()
  }
}

// Strokes as an image of 256 by 256 pixels
const small = Object.assign(document.createElement('canvas'), { width: SIZE, height: SIZE })
  .getContext('2d', { willReadFrequently: true })
export function pictureOf(strokes, pen = PEN) {
  paint(small, strokes, pen)
  return small.getImageData(0, 0, SIZE, SIZE)
}

// Returns { canvas, strokes, image(), set(strokes, pen), clear(), undo(), busy }; `onStart` is called before the reader's
// first stroke and before each use of a button, `onLift` at the end of a stroke.
export function mountCanvas(element, { onChange = () => {}, onStart = () => {}, onLift = () => {} } = {}) {
  element.innerHTML = HTML
  const find = name => element.querySelector(`.${name}`)
  const [canvas, spoken] = [find('drawing'), find('drawing-pen')]
  const context = canvas.getContext('2d')
  context.scale(SHARP, SHARP)
  let strokes = [], pen = PEN
  let stroke = null  // The one being drawn
  let pointer = null // Id of the pointer that draws it; null for the keyboard
  const cursor = { at: [SIZE / 2, SIZE / 4], down: false }

  let frame = 0
  function changed() { frame ||= requestAnimationFrame(update) }
  function update() {
    frame = 0
    show()
    onChange(strokes, pictureOf(strokes, pen))
  }
  function show() {
    paint(context, strokes, pen)
    if (document.activeElement !== canvas || !canvas.matches(':focus-visible')) return
    Object.assign(context, { strokeStyle: '#c22', lineWidth: 2 })
    context.strokeRect(cursor.at[0] - 5, cursor.at[1] - 5, 10, 10)
  }
  function lift() {
    const drawn = stroke !== null;
    [stroke, pointer, cursor.down] = [null, null, false]
    if (drawn) onLift()
  }

  // Pointers: a second finger or the palm is ignored
  const pointOf = event => {
    const box = canvas.getBoundingClientRect()
    return [(event.clientX - box.left) * SIZE / box.width, (event.clientY - box.top) * SIZE / box.height]
  }
  canvas.addEventListener('pointerdown', event => {
    if (event.button > 0 || pointer !== null) return
    event.preventDefault()
    lift()
    onStart()
    canvas.focus({ preventScroll: true, focusVisible: false })
    pointer = event.pointerId
    canvas.setPointerCapture(pointer)
    strokes.push(stroke = [pointOf(event)])
    changed()
  })
  canvas.addEventListener('pointermove', event => {
    if (event.pointerId !== pointer) return
    const all = event.getCoalescedEvents?.() ?? []
    for (const e of all.length ? all : [event]) stroke.push(pointOf(e))
    changed()
  })
  for (const end of ['pointerup', 'pointercancel', 'lostpointercapture'])
    canvas.addEventListener(end, event => { if (event.pointerId === pointer) lift() })

  // Keyboard: the arrows move a cursor, the space bar lowers and lifts the pen
  canvas.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey || pointer !== null) return
    if (event.key !== ' ' && !MOVES[event.key]) return
    event.preventDefault()
    if (event.key === ' ') {
      if (event.repeat) return
      const down = !cursor.down
      lift()
      if (down) {
        onStart()
        strokes.push(stroke = [[...cursor.at]])
      }
      cursor.down = down
    } else {
      cursor.at = cursor.at.map((v, i) => Math.min(Math.max(v + MOVES[event.key][i], 0), SIZE))
      if (cursor.down) stroke.push([...cursor.at])
    }
    const [x, y] = cursor.at.map(v => Math.round(100 * v / SIZE))
    spoken.textContent = `Pen ${cursor.down ? 'down' : 'up'}, ${x} percent from the left, ${y} percent from the top.`
    changed()
  })
  canvas.addEventListener('focus', show)
  canvas.addEventListener('blur', () => { lift(); show() })

  const set = (to, width = PEN) => {
    lift();
    [strokes, pen] = [to, width]
    changed()
  }
  const clear = () => set([])
  const undo = () => { lift(); strokes.pop(); changed() }
  find('undo').addEventListener('click', () => { onStart(); undo() })
  find('clear').addEventListener('click', () => { onStart(); clear() })
  paint(context, strokes, pen)
  return {
    canvas, set, clear, undo,
    get strokes() { return strokes },
    get busy() { return stroke !== null },
    image: () => pictureOf(strokes, pen),
  }
}
