// Check it yourself: the visitor's own copy of MNIST's test files, verified and scored in the browser, with the confusion
// table, compared with the number that the results page claims.
import { CLAIM, FILES } from './images.js'
import { readTestFile } from './mnist-files.js'
import { button, count, element } from './dom.js'

const BATCH = 50   // Images at a time: often enough for the progress bar, and for stopping
const HALF = 5000  // The halves of the test set come from different writers

export function mountCheck(place, network) {
  place.classList.add('trial', 'check')
  network.catch(() => {}) // Said when there is something to score
  const view = build(place)
  const files = {} // What has been read so far
  let run = 0      // Counts the runs; an older one than this stops

  async function take(chosen) {
    const problems = []
    for (const file of chosen) {
      try {
        const { kind, data } = await readTestFile(file)
        files[kind] = data
      } catch (error) {
        problems.push(error.message)
      }
    }
    view.problems(problems)
    view.have(files)
    if (problems.length < chosen.length && files.images && files.labels) check(files, ++run)
  }

  function stop() {
    run++
    view.stop()
  }

  async function check({ images, labels }, mine) {
    view.begin(labels.length)
    try {
      const ready = await network
      const begun = performance.now()
      const report = progress => { if (mine === run) view.progress(progress); return mine === run }
      const table = await score(ready, images, labels, report)
      if (table) view.result(table, (performance.now() - begun) / 1000)
    } catch (error) {
      if (mine === run) view.failed(error)
    }
  }

  view.on({ take, stop, again: () => check(files, ++run) })
}

// Counts by half, label and answer; null if `report`, called with the number of images so far, returns false
async function score(network, images, labels, report) {
  const square = () => Array.from({ length: 10 }, () => Array(10).fill(0))
  const halves = [square(), square()]
  for (let start = 0; start < labels.length; start += BATCH) {
    if (!report(start)) return null
    const pixels = Float32Array.from(images.subarray(784 * start, 784 * (start + BATCH)), t => t / 255)
    const { n, logits } = await network.run(pixels)
    for (let i = 0; i < n; i++) {
      const ten = logits.subarray(10 * i, 10 * i + 10)
      halves[start + i < HALF ? 0 : 1][labels[start + i]][ten.indexOf(Math.max(...ten))]++
    }
  }
  return report(labels.length) ? halves : null
}

// --- what is said

const total = table => table.flat().reduce((a, b) => a + b, 0)
const correct = table => table.reduce((sum, row, i) => sum + row[i], 0)
const sum = ([first, second]) => first.map((row, i) => row.map((n, j) => n + second[i][j]))

function summary(halves, seconds) {
  const table = sum(halves)
  const [right, n] = [correct(table), total(table)]
  return `${count(right)} of ${count(n)} images are read as labelled: ${(100 * right / n).toFixed(2)} %, in ` +
    `${seconds.toFixed(1)} seconds.`
}

function byHalf(halves) {
  const [first, second] = halves.map(half => `${count(correct(half))} of ${count(total(half))}`)
  return ` Its two halves, which come from different writers: ${first} and ${second}.`
}

function comparison(halves) {
  const found = correct(sum(halves))
  const link = element('a', { href: 'results.html#what-it-misreads' }, 'the results page')
  const claimed = `${count(CLAIM.correct)} of ${count(CLAIM.n)}`
  return found === CLAIM.correct ? ['This is the number that ', link, ` claims for the test set: ${claimed}.`, byHalf(halves)]
    : ['This is not the number that ', link, ` claims for the test set, which is ${claimed}.`, byHalf(halves)]
}

function standing({ images, labels }) {
  const verified = kind => `The test ${kind} are MNIST’s own: their checksum is right.`
  if (images && labels) return `${verified('images and labels').replace('their checksum is', 'both checksums are')}`
  if (images || labels) {
    const [have, miss] = images ? ['images', 'labels'] : ['labels', 'images']
    return `${verified(have)} Now choose the ${miss} too: ${FILES[miss].name}, compressed (.gz) or not.`
  }
  return ''
}

// --- what is shown

function tableOf(counts) {
  const head = element('tr', {}, element('th', { scope: 'col' }, 'label'),
    ...counts.map((_, digit) => element('th', { scope: 'col' }, digit)))
  const cell = (n, label, digit) => element('td', {
    className: label === digit ? 'right' : n ? 'wrong' : 'none', title: `${n} × ${label} read as ${digit}` }, n)
  const rows = counts.map((row, label) => element('tr', {}, element('th', { scope: 'row' }, label),
    ...row.map((n, digit) => cell(n, label, digit))))
  return element('div', { className: 'scroll', tabIndex: 0, role: 'region', 'aria-label': 'Confusion matrix' },
    element('table', { className: 'confusion' },
      element('caption', {}, 'Images by label (rows) and by the digit that the network reads (columns). Mistakes are tinted.'),
      element('thead', {}, head), element('tbody', {}, ...rows)))
}

function build(place) {
  let act
  const input = element('input', { type: 'file', multiple: true, id: 'check-files', className: 'visually-hidden',
    'aria-describedby': 'check-names' })
  const drop = element('div', { className: 'drop' }, input, element('label', { htmlFor: input.id }, 'Choose files'),
    element('span', { id: 'check-names' }, 'or drop them here: ', element('code', {}, FILES.images.name), ' and ',
      element('code', {}, FILES.labels.name)))
  const [state, faults] = [element('p'), element('ul', { className: 'failed' })]
  const outcome = element('div', { className: 'outcome' })
  const said = element('div', { role: 'status', 'aria-live': 'polite' }, state, faults, outcome)
  const bar = element('progress', { max: 1, value: 0, 'aria-label': 'Images scored' })
  const done = element('span', { className: 'small' })
  const stop = button('Stop', () => act.stop())
  const again = button('Score again', () => act.again(), { hidden: true })
  const working = element('p', { className: 'working', hidden: true }, bar, done, stop)
  const confusion = element('div')
  place.replaceChildren(
    element('p', {}, 'You need the file of the test images and the file of their labels, compressed or not, under any name. Both ' +
      'are compared with the published files by their checksums before the network on this page scores them.'),
    drop, said, working, confusion, element('p', {}, again))

  input.addEventListener('change', () => {
    act.take([...input.files])
    input.value = '' // So that the same file can be chosen again
  })
  drop.addEventListener('dragover', event => { event.preventDefault(); drop.classList.add('over') })
  drop.addEventListener('dragleave', () => drop.classList.remove('over'))
  drop.addEventListener('drop', event => {
    event.preventDefault()
    drop.classList.remove('over')
    act.take([...event.dataTransfer.files])
  })

  const clear = () => { outcome.replaceChildren(); confusion.replaceChildren(); again.hidden = true }
  return {
    on(actions) { act = actions },
    have(files) { state.textContent = standing(files) },
    problems(list) { faults.replaceChildren(...list.map(text => element('li', {}, text))) },
    begin(n) {
      clear()
      outcome.append(element('p', {}, 'Scoring …'))
      bar.max = n
      working.hidden = false
    },
    progress(n) {
      bar.value = n
      done.textContent = `${count(n)} of ${count(bar.max)}`
    },
    stop() {
      if (working.hidden) return
      clear()
      outcome.append(element('p', {}, 'Stopped.'))
      working.hidden = true
      again.hidden = false
    },
    result(halves, seconds) {
      working.hidden = true
      again.hidden = false
      outcome.replaceChildren(
        element('p', { className: 'sum' }, summary(halves, seconds)), element('p', {}, ...comparison(halves)))
      confusion.replaceChildren(tableOf(sum(halves)))
    },
    failed(error) {
      working.hidden = true
      outcome.replaceChildren(element('p', { className: 'failed' }, `The images could not be scored: ${error.message}.`))
    },
  }
}
