// The page to draw on: one drawing, and the parts below it, which show what is made of it. If one of them cannot be loaded, the
// others work.
import { mountDrawing } from './drawing.js'
import { loadNetwork } from './network.js'

const find = id => document.getElementById(id)
const parts = {}          // Those that show the drawing, once loaded
const visible = new Set() // Parts that are out of sight are not drawn until one scrolls to them
const drawn = {}          // What each part shows; it is not drawn twice, because that would take the focus from its buttons
let current = { text: '' }

export const drawing = mountDrawing(find('digit'), { onShow(shown) { current = shown; showParts() } })

function showParts() {
  const isNew = id => visible.has(id) && parts[id] && drawn[id] !== current && (drawn[id] = current)
  if (isNew('inside')) parts.inside.show(current.found ? current : null)
  if (isNew('preparation')) parts.preparation.show(current.pictures, current.text)
  if (current.image && !drawing.own && isNew('augment')) parts.augment.offer(Float32Array.from(current.image, v => v / 255))
}

const sight = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) visible[isIntersecting ? 'add' : 'delete'](target.id)
  showParts()
}, { rootMargin: '200px' })
for (const id of ['inside', 'preparation', 'augment']) sight.observe(find(id))

async function part(id, file, mount) {
  try {
    parts[id] = await mount(find(id), await import(file))
    drawing.again()
  } catch (error) {
    find(id).innerHTML = '<p class="failed"></p>'
    find(id).firstChild.textContent = `This part of the page could not be loaded: ${error.message}`
  }
}

const loading = loadNetwork()
part('inside', './layers.js', (place, { mountLayers }) => mountLayers(place))
part('preparation', './preparation.js', (place, { mountPreparation }) => mountPreparation(place, {
  onSwitch: drawing.leaveOut, onExample: drawing.draw,
}))
part('own', './own.js', (place, { mountOwn }) => mountOwn(place, async network => drawing.use(network ?? await loading)))
part('quiz', './quiz.js', (place, { mountQuiz }) => mountQuiz(place, loading))
part('augment', './augment.js', (place, { mountAugment }) => mountAugment(place, loading))
part('check', './check.js', (place, { mountCheck }) => mountCheck(place, loading))
