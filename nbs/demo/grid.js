// A canvas that is a grid of cells: one is chosen by pointer, or by the arrow keys and Enter.

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }

// `onMove(cell, byKey)` says which cell is pointed at (null: none any more), `onChoose(cell)` which one is clicked or entered. Cells
// are numbered row by row. Returns { canvas, layout(rows, columns, count), mark(cell, span), label(text) }; a mark of span 3
// reaches to the cells around.
export function mountGrid(place, { onMove = () => {}, onChoose }) {
  place.classList.add('cells')
  place.innerHTML = '<canvas tabindex="0" role="application"></canvas><div class="cell-mark" hidden></div>'
  const [canvas, box] = place.children
  let rows = 1, columns = 1, count = 1, marked = null

  const cellAt = event => {
    const { left, top, width, height } = canvas.getBoundingClientRect()
    const x = Math.floor((event.clientX - left) / width * columns), y = Math.floor((event.clientY - top) / height * rows)
    const cell = y * columns + x
    return x >= 0 && y >= 0 && x < columns && y < rows && cell < count ? cell : null
  }
  canvas.addEventListener('pointermove', event => onMove(cellAt(event), false))
  canvas.addEventListener('pointerleave', () => onMove(null, false))
  canvas.addEventListener('click', event => {
    const cell = cellAt(event)
    if (cell !== null) onChoose(cell)
  })
  canvas.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return
    if (event.key === 'Enter' || event.key === ' ') onChoose(marked ?? 0)
    else if (MOVES[event.key]) {
      const [down, right] = MOVES[event.key]
      const y = Math.floor((marked ?? 0) / columns) + (marked === null ? 0 : down)
      const x = (marked ?? 0) % columns + (marked === null ? 0 : right)
      const cell = y * columns + x
      if (x >= 0 && y >= 0 && x < columns && y < rows && cell < count) onMove(cell, true)
    } else return
    event.preventDefault()
  })

  function mark(cell, span = 1) {
    marked = cell
    box.hidden = cell === null
    if (cell === null) return
    const [y, x] = [Math.floor(cell / columns), cell % columns].map(t => t - (span - 1) / 2)
    const percent = (t, of) => `${100 * t / of}%`
    Object.assign(box.style, { width: percent(span, columns), height: percent(span, rows), left: percent(x, columns), top: percent(y, rows) })
  }
  return {
    canvas, mark,
    layout(r, c, n = r * c) { [rows, columns, count] = [r, c, n] },
    label(text) { canvas.setAttribute('aria-label', text) },
  }
}
