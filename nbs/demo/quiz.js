// You against the network: the hardest test images, one after the other. The visitor guesses first, then sees the label, the
// network's answer, and how five other people labelled the image, where that is known.
import { MISREAD, READ, CLAIM } from './images.js'
import { loadTiles } from './tiles.js'
import { loadNetwork, probabilities } from './network.js'
import { button, count, element, paint, percent, styles, tileCanvas } from './dom.js'

const SOURCE = 'https://github.com/cleanlab/label-errors/tree/main/mturk'
const PAPER = 'https://arxiv.org/abs/2103.14749'

export async function mountQuiz(place, network) {
  place.classList.add('trial', 'quiz')
  network.catch(() => {}) // Each answer says so
  try {
    const tiles = await loadTiles()
    const questions = [...MISREAD, ...READ].map((image, i) => ({ ...image, pixels: tiles[i] }))
    start(place, questions, network)
  } catch (error) {
    place.replaceChildren(element('p', { className: 'failed' }, `The test images could not be shown: ${error.message}.`))
  }
}

function start(place, questions, network) {
  const view = build(place, questions.length)
  let rest, asked, answered

  function again() {
    rest = shuffled(questions)
    answered = []
    ask()
  }

  function ask() {
    asked = rest.pop()
    const label = `Test image ${answered.length + 1} of ${questions.length}`
    view.ask(label, asked.pixels)
    view.score(answered)
  }

  async function guess(digit) {
    if (view.closed()) return
    view.close()
    const answer = { ...asked, guess: digit, network: await read(network, asked.pixels) }
    answered.push(answer)
    view.tell(answer, rest.length)
    view.score(answered)
  }

  view.on({ guess, next: () => { rest.length ? ask() : view.end(answered) }, end: () => view.end(answered), again })
  again()
}

async function read(network, pixels) { // Null if the network could not be loaded
  try {
    const { logits } = await (await network).run(pixels)
    const probs = probabilities(logits, 0)
    return { digit: probs.indexOf(Math.max(...probs)), probs }
  } catch {
    return null
  }
}

function shuffled(list) {
  const all = [...list]
  for (let i = all.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [all[i], all[j]] = [all[j], all[i]]
  }
  return all
}

// --- what is said

function verdict({ label, guess, network }) {
  const you = guess === label ? `You said so too.` : `You said ${guess}.`
  if (!network) return `The label is ${label}. ${you} The network could not be loaded, so it has no answer.`
  const { digit, probs } = network
  const doubt = digit === label ? '' : `, and gives the label ${percent(probs[label])}`
  return `The label is ${label}. ${you} The network says ${digit} (${percent(probs[digit])} sure)${doubt}.`
}

function opinions({ label, votes }) {
  if (!votes) return ''
  const [other, forLabel, forOther, neither] = votes
  return `Five people were asked whether this is ${a(label)} or ${a(other)}: ${forLabel} chose ${label}, ` +
    `${forOther} chose ${other}, ${neither} neither.`
}

const a = digit => `${digit === 8 ? 'an' : 'a'} ${digit}`

function totals(answered) {
  const n = answered.length
  const right = answered.filter(q => q.guess === q.label).length
  const theirs = answered.filter(q => q.network?.digit === q.label).length
  const loaded = answered.every(q => q.network)
  return `You ${right} of ${n}, ${loaded ? `the network ${theirs} of ${n}` : 'the network not loaded'}.`
}

// --- what is shown

function introduction(n) {
  const link = (href, text) => element('a', { href }, text)
  return [
    element('p', {}, `The network misreads ${MISREAD.length} of the ${count(CLAIM.n)} test images. Another ${READ.length} are ` +
      `those that it reads correctly with the lowest probability, so it reads half of these ${n} images correctly. Answer with the ` +
      'buttons, or with the digits on your keyboard.'),
    element('p', { className: 'small' }, 'Some of the labels are doubtful. For many of these images, ',
      link(PAPER, 'Northcutt, Athalye and Mueller (2021)'), ' asked five people whether they see the label or another digit; the ' +
      'counts are from ', link(SOURCE, 'their tables'), '.'),
  ]
}

function build(place, n) {
  const picture = tileCanvas(new Float32Array(784), '')
  const progress = element('p', { className: 'small' })
  const verdictLine = element('p', { className: 'verdict' })
  const votesLine = element('p', { className: 'votes' })
  const result = element('div', { role: 'status', 'aria-live': 'polite' }, verdictLine, votesLine)
  const score = element('p', { className: 'score' })
  const digits = Array.from({ length: 10 }, (_, d) => button(d, () => act.guess(d), { 'aria-label': `It is ${a(d)}` }))
  const pad = element('div', { className: 'pad', role: 'group', 'aria-label': 'Your guess' }, ...digits)
  const next = button('Next image', () => act.next(), { className: 'next' })
  const finish = button('Stop here', () => act.end(), { className: 'finish' })
  const restart = button('Again', () => act.again(), { className: 'again' })
  const summary = element('div', { className: 'summary', tabIndex: -1 })
  const card = element('div', { className: 'card-quiz', tabIndex: -1, role: 'group', 'aria-label': 'Question' }, picture,
    element('div', { className: 'side' }, progress, pad, result, element('p', { className: 'buttons' }, next, finish)))
  let act, mounted = false
  place.replaceChildren(...introduction(n), card, score, summary, restart)
  place.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey || !/^\d$/.test(event.key) || card.hidden) return
    event.preventDefault()
    act.guess(Number(event.key))
  })
  const visible = (...shown) => {
    for (const part of [card, next, finish, summary, restart]) part.hidden = !shown.includes(part)
  }
  return {
    on(actions) { act = actions },
    closed: () => digits[0].disabled,
    close() { for (const digit of digits) digit.disabled = true },
    ask(label, pixels) {
      visible(card)
      progress.textContent = `${label}.`
      picture.setAttribute('aria-label', label)
      paint(picture, pixels)
      verdictLine.textContent = votesLine.textContent = ''
      for (const digit of digits) Object.assign(digit, { disabled: false, className: '' })
      if (mounted) card.focus()
      mounted = true
    },
    tell(answer, left) {
      verdictLine.textContent = verdict(answer)
      votesLine.textContent = opinions(answer)
      digits[answer.label].className = 'label'
      if (answer.guess !== answer.label) digits[answer.guess].className = 'other'
      next.textContent = left ? 'Next image' : 'See the score'
      if (left) visible(card, next, finish)
      else visible(card, next)
      next.focus()
    },
    score(answered) { score.textContent = answered.length ? totals(answered) : '' },
    end(answered) {
      const apart = answered.filter(q => q.guess !== q.label)
      summary.replaceChildren(
        element('p', {}, apart.length ? 'You differ from the label here:' : 'You agree with every label.'),
        element('ul', { className: 'tiles' }, ...apart.map(q => element('li', {},
          tileCanvas(q.pixels, `Test image number ${q.index}`),
          element('span', {}, `label ${q.label}, you ${q.guess}${q.network ? `, network ${q.network.digit}` : ''}`)))))
      visible(summary, restart)
      score.textContent = `Score: ${totals(answered)}`
      summary.focus()
    },
  }
}

export async function mount(place) { // On a page of its own
  await Promise.all([loadTiles(), styles('quiz.css')])
  await mountQuiz(place, loadNetwork())
}
