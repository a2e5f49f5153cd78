// The probabilities of the ten digits, as a list of bars.
import { element, percent } from './dom.js'

export function chances() {
  const rows = Array.from({ length: 10 }, (_, digit) => {
    const meter = element('meter', { min: 0, max: 1, 'aria-label': `Probability of ${digit}` })
    const text = element('span', { className: 'percent' })
    return { meter, text, row: element('li', {}, element('span', {}, `${digit}`), meter, text) }
  })
  return {
    list: element('ul', { className: 'probs', 'aria-label': 'Probability of each digit' }, ...rows.map(({ row }) => row)),
    show(probs, best) {
      rows.forEach(({ meter, text, row }, digit) => {
        meter.value = probs?.[digit] ?? 0
        text.textContent = probs ? percent(probs[digit]) : ''
        row.classList.toggle('best', digit === best)
      })
    },
  }
}
