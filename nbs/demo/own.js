// Your own network: the visitor's ONNX file takes the place of the built-in network for the drawing and its layers.
import { button, element } from './dom.js'
import { openNetwork } from './network.js'

const LARGEST = 50e6 // Bytes; a file that s5_export wrote has 1.2 or 2.4 million

// `onUse(network)` gets the network to use, or null for the built-in one
export function mountOwn(place, onUse) {
  place.classList.add('trial', 'own')
  const input = element('input', { type: 'file', accept: '.onnx', id: 'own-file', className: 'visually-hidden' })
  const status = element('p', { role: 'status', 'aria-live': 'polite' }, 'The built-in network reads your drawing.')
  const back = button('Back to the built-in network', () => {
    onUse(null)
    say('The built-in network reads your drawing.')
    back.hidden = true
    input.focus()
  }, { hidden: true })
  function say(text, failed = false) {
    status.textContent = text
    status.classList.toggle('failed', failed)
  }
  input.addEventListener('change', async () => {
    const [file] = input.files
    input.value = '' // So that the same file can be chosen again
    if (!file) return
    say(`Opening ${file.name} …`)
    try {
      if (file.size > LARGEST) throw new Error(`it has ${Math.round(file.size / 1e6)} million bytes, too many for this network`)
      onUse(await openNetwork(await file.arrayBuffer()))
      say(`${file.name} reads your drawing. The quiz, the sliders and the check keep the built-in network.`)
      back.hidden = false
    } catch (error) {
      say(`${file.name} cannot be used: ${error.message}. ${back.hidden ? 'The built-in network' : 'The network before it'} stays.`, true)
    }
  })
  place.replaceChildren(
    element('p', { className: 'buttons' }, input, element('label', { htmlFor: input.id }, 'Choose an ONNX file'), back), status)
}
