// The live parts of the site. Each <div class="s5-part" data-part="NAME"> holds a still picture; when the reader comes near, the
// module NAME.js takes its place. If it cannot, the picture stays, and a line below it says why.
//
// A part is a module beside this one with `export function mount(element)`: it fills an empty element of class `part`, which is
// in the page and has its width but is not seen yet, and returns a promise if it needs time. `styles` of dom.js loads its style
// sheet; part.css, for what all parts share, is loaded here.
import { styles } from './dom.js'

const NEAR = '400px'

async function come(place) {
  const live = document.createElement('div')
  live.className = 'part'
  Object.assign(live.style, { height: 0, overflow: 'hidden' })
  place.append(live)
  try {
    const [{ mount }] = await Promise.all([import(`./${place.dataset.part}.js`), styles('part.css')])
    await mount(live)
    live.removeAttribute('style')
    place.replaceChildren(live)
    place.dataset.live = 'yes'
  } catch (error) {
    const note = document.createElement('p')
    note.className = 'failed'
    note.style.overflowWrap = 'anywhere' // The message may hold an address
    note.textContent = `This picture could not be brought to life: ${error.message}`
    live.replaceWith(note)
  }
}

const sight = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue
    sight.unobserve(target)
    come(target)
  }
}, { rootMargin: NEAR })
for (const place of document.querySelectorAll('.s5-part')) sight.observe(place)
