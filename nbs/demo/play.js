// Time: a digit that is drawn point by point, and work of which only the newest piece matters.

const PACE = 28 // Milliseconds for each point of a stroke

// `set(strokes)` is called as the strokes grow, or once with all of them for readers who prefer no motion
export function play(set) {
  const calm = matchMedia('(prefers-reduced-motion: reduce)')
  let frame = 0
  function stop() {
    cancelAnimationFrame(frame)
    frame = 0
  }
  return {
    stop,
    get playing() { return frame },
    start(strokes) {
      stop()
      if (calm.matches) return set(strokes.map(stroke => [...stroke]))
      const points = strokes.flat().length
      let from = null
      function grow(now) {
        from ??= now
        let left = Math.min(1 + Math.floor((now - from) / PACE), points)
        frame = left < points ? requestAnimationFrame(grow) : 0
        set(strokes.map(stroke => {
          const some = stroke.slice(0, Math.max(left, 0))
          left -= stroke.length
          return some
        }).filter(stroke => stroke.length))
      }
      frame = requestAnimationFrame(grow)
    },
  }
}

// A function that does `work(piece)`, one piece at a time, and of those that come meanwhile only the newest. `onBusy` is told when
// it begins and when nothing is left.
export function newestOnly(work, onBusy = () => {}) {
  let newest = null, busy = false
  return async function take(piece) {
    newest = piece
    if (busy) return
    busy = true
    onBusy(true)
    while (newest) {
      const now = newest
      newest = null
      await work(now)
    }
    busy = false
    onBusy(false)
  }
}
