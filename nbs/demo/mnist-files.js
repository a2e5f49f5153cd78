// Reads MNIST's test files, compressed or not, and refuses every file that isn't the published one to the last bit.
import { FILES } from './images.js'
import { count } from './dom.js'

const LIMIT = 50_000_000 // Bytes; the largest of MNIST's files has 47 million

// 'images' or 'labels' with its bytes, one a pixel or label; an Error that says what is wrong with the file
export async function readTestFile(file) {
  const raw = await unpacked(await content(file), file.name)
  const kind = kindOf(raw, file.name)
  const { length, header, sha256 } = FILES[kind]
  if (raw.length !== length)
    throw new Error(`${file.name} should have ${count(length)} bytes when unpacked, but has ${count(raw.length)}. ` +
      'It is incomplete or has been changed; download it again.')
  const found = await checksum(raw)
  if (found !== sha256)
    throw new Error(`${file.name} has the length of MNIST’s test ${kind}, but not their checksum: SHA-256 should be ` +
      `${sha256.slice(0, 12)}…, but is ${found.slice(0, 12)}…. It is damaged, or belongs to another data set of the ` +
      'same format, such as Fashion-MNIST.')
  return { kind, data: raw.subarray(header) }
}

async function content(file) {
  if (file.size > LIMIT) throw new Error(`${file.name} has ${count(file.size)} bytes, more than any of MNIST’s files.`)
  if (!file.size) throw new Error(`${file.name} is empty.`)
  try {
    return new Uint8Array(await file.arrayBuffer())
  } catch {
    throw new Error(`${file.name} cannot be read. If it is a folder, choose the two files in it.`)
  }
}

async function unpacked(bytes, name) {
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) throw new Error(`${name} is a ZIP archive. Unpack it and choose the files in it.`)
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes
  const parts = []
  let length = 0
  try {
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip')).getReader()
    for (let part = await reader.read(); !part.done && length < LIMIT; part = await reader.read()) {
      parts.push(part.value)
      length += part.value.length
    }
  } catch {
    throw new Error(`${name} cannot be unpacked: it is damaged or incomplete. Download it again.`)
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer())
}

// MNIST's files begin with 00 00 08, the number of sizes, and the sizes, four bytes each
function kindOf(raw, name) {
  const kind = { 3: 'images', 1: 'labels' }[raw[3]]
  if (raw.length < 8 || raw[0] || raw[1] || raw[2] !== 8 || !kind)
    throw new Error(`${name} is not one of MNIST’s files. Choose ${FILES.images.name} and ${FILES.labels.name}, ` +
      'compressed (.gz) or not.')
  const n = new DataView(raw.buffer, raw.byteOffset).getUint32(4)
  if (n === 60_000) throw new Error(`${name} holds the 60,000 training ${kind}. Choose the test ${kind}, ${FILES[kind].name}.`)
  return kind
}

async function checksum(bytes) {
  if (!globalThis.crypto?.subtle)
    throw new Error('Your browser computes checksums only on pages loaded by https or from your own computer.')
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  return [...hash].map(t => t.toString(16).padStart(2, '0')).join('')
}
