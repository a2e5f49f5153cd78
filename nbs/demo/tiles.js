// The images in a picture such as images.png, as the network takes them: 784 values from 0 to 1 each, row by row.

const SIDE = 28
const loading = {} // By the picture's name

export function loadTiles(name = 'images.png') { // Promise of a list of Float32Array, in the order of the lists in images.js
  loading[name] ??= decode(new URL(name, import.meta.url).href)
  return loading[name]
}

async function decode(url) {
  const answer = await fetch(url).catch(() => null)
  if (!answer?.ok) throw new Error(`${url} could not be loaded`)
  const options = { colorSpaceConversion: 'none', premultiplyAlpha: 'none' } // Exactly the values in the file
  const sprite = await createImageBitmap(await answer.blob(), options)
  const canvas = document.createElement('canvas')
  Object.assign(canvas, { width: sprite.width, height: sprite.height })
  const pen = canvas.getContext('2d', { willReadFrequently: true })
  pen.drawImage(sprite, 0, 0)
  const tiles = []
  for (let y = 0; y < sprite.height; y += SIDE)
    for (let x = 0; x < sprite.width; x += SIDE) {
      const { data } = pen.getImageData(x, y, SIDE, SIDE)
      tiles.push(Float32Array.from({ length: SIDE * SIDE }, (_, i) => data[4 * i] / 255))
    }
  return tiles
}
