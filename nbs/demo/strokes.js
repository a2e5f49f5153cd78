// Ten digits as a hand might write them, for the page to draw by itself: each a list of strokes, each stroke a list of points
// on 256 by 256 pixels. They are built from straight lines and arcs of ellipses.

const PI = Math.PI

// An arc around (x, y) with the radii a and b, from one angle to another; 0 is to the right and PI / 2 is down
function arc(x, y, a, b, from, to) {
  const n = Math.max(2, Math.round(Math.abs(to - from) * Math.max(a, b) / 9))
  return Array.from({ length: n + 1 }, (_, i) => {
    const t = from + (to - from) * i / n
    return [x + a * Math.cos(t), y + b * Math.sin(t)]
  })
}

// Points about every nine pixels along a line, so that the pen moves at an even speed
function line(...corners) {
  const out = [corners[0]]
  for (let i = 1; i < corners.length; i++) {
    const [[x, y], [u, v]] = [corners[i - 1], corners[i]]
    const n = Math.max(1, Math.round(Math.hypot(u - x, v - y) / 9))
    for (let j = 1; j <= n; j++) out.push([x + (u - x) * j / n, y + (v - y) * j / n])
  }
  return out
}

export const DIGITS = [
  [arc(128, 128, 58, 86, -1.9, 4.5)],
  [line([96, 82], [136, 44], [130, 214])],
  [[...arc(122, 92, 52, 48, -2.9, 0.5), ...line([160, 124], [74, 206], [190, 204])]],
  [[...arc(120, 86, 48, 42, -2.6, 1.5), ...arc(118, 170, 56, 46, -1.5, 2.5)]],
  [line([112, 44], [66, 148], [192, 144]), line([160, 96], [150, 218])],
  [[...line([92, 52], [86, 118]), ...arc(120, 162, 58, 52, -2.2, 2.6)], line([92, 52], [178, 48])],
  [[...line([156, 40], [104, 106]), ...arc(126, 162, 50, 50, 3.6, -2.6)]],
  [line([70, 54], [186, 50], [112, 214])],
  [[...arc(128, 84, 44, 40, -0.6, -1.5 * PI), ...arc(128, 172, 54, 48, -PI / 2, 1.5 * PI), ...arc(128, 84, 44, 40, PI / 2, -0.4)]],
  [[...arc(124, 94, 48, 48, -0.3, -2 * PI + 0.2), ...line([171, 84], [164, 150], [146, 216])]],
]
