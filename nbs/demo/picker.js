// A row of pictures to choose from: MNIST's first test image of each digit, and others that are offered.
import { EXAMPLES, MISREAD, READ } from './images.js'
import { element, tileCanvas } from './dom.js'
import { loadTiles } from './tiles.js'

// `onChoose(image, title)`. Returns { row, offer(image, title), pick(title), load() }; `load` brings the ten digits.
export function makePicker(onChoose) {
  const row = element('div', { className: 'digits', role: 'group', 'aria-label': 'Digit' })
  const named = title => [...row.children].find(other => other.title === title)
  function choose(chosen, image) {
    for (const other of row.children) other.setAttribute('aria-pressed', other === chosen)
    onChoose(image, chosen.title)
  }
  function offer(image, title) { // A button with the picture; the same title again replaces it
    const old = named(title)
    const made = element('button', { type: 'button', title, 'aria-pressed': 'false' }, tileCanvas(image, title))
    made.addEventListener('click', () => choose(made, image))
    if (old) old.replaceWith(made)
    else row.append(made)
    if (old?.getAttribute('aria-pressed') === 'true') choose(made, image)
  }
  return {
    row, offer,
    pick: title => named(title).click(),
    async load() {
      const tiles = await loadTiles()
      EXAMPLES.forEach(({ label }, i) => offer(tiles[MISREAD.length + READ.length + i], `${label}`))
    },
  }
}
