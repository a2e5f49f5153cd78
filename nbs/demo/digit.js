// The front page's part: a canvas that is alive at once, the answer as a sentence, and the layers that it comes from.
import { SHEETS, mountDrawing } from './drawing.js'
import { element, styles } from './dom.js'
import { mountLayers } from './layers.js'

const a = digit => `${digit === 8 ? 'an' : 'a'} ${digit}`

function tell({ digit, sure, unsure, own }) {
  if (unsure) return `This may not be a digit. If it is, it is ${a(digit)} (${sure} sure).`
  return `${own ? 'This is' : 'You drew'} ${a(digit)} (${sure} sure). Here is how the network knows.`
}

export async function mount(place) {
  await styles(...SHEETS, 'layers.css', 'value.css')
  const [drawing, layers] = [element('div', { className: 'told' }), element('div')]
  place.append(drawing, layers)
  const { show } = mountLayers(layers, { open: false })
  mountDrawing(drawing, { tell, onShow: shown => show(shown.found ? shown : null) })
}
