// The weights, read from the ONNX file that the runtime runs.
//
// An ONNX file is a message in the format of Protocol Buffers: a sequence of fields, each a number that says which field it is
// and how its value is stored, followed by the value. We need three kinds of value: an integer in groups of seven bits
// (a varint), a run of bytes that begins with its length, and numbers of a fixed size, which we skip. A message inside
// another one is a run of bytes. The numbers of the fields are those of onnx.proto: graph is 7 in a model; node 1 and
// initializer 5 in a graph; input 1, output 2 and op_type 4 in a node; dims 1, data_type 2, name 8 and raw_data 9 in a tensor.

function varint(bytes, at) {
  let value = 0
  for (let scale = 1; ; scale *= 128) {
    if (at >= bytes.length) throw new Error('it ends too early')
    const byte = bytes[at++]
    value += (byte & 127) * scale
    if (byte < 128) return [value, at]
  }
}

// All fields of a message: {number: [value, ...]}, values being integers or runs of bytes
function fields(bytes) {
  const all = {}
  for (let at = 0, key, value, size; at < bytes.length;) {
    [key, at] = varint(bytes, at)
    const kind = key & 7, values = all[key >> 3] ??= []
    if (kind === 0) [value, at] = varint(bytes, at)
    else if (kind === 2) {
      [size, at] = varint(bytes, at)
      value = bytes.subarray(at, at += size)
    } else if (kind === 1 || kind === 5) { // Eight bytes, four bytes
      at += kind === 1 ? 8 : 4
      continue
    } else throw new Error(`the ONNX file should hold fields of kind 0, 1, 2 or 5, but has one of kind ${kind}`)
    values.push(value)
  }
  return all
}

const text = bytes => new TextDecoder().decode(bytes)

// A number of 16 bits: one for the sign, five for the exponent, ten for the fraction
function fromHalf(h) {
  const [sign, exponent, fraction] = [h & 0x8000 ? -1 : 1, (h >> 10) & 31, h & 1023]
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction)
}

function tensor(field) {
  const raw = field[9]?.[0]?.slice() ?? new Uint8Array() // A copy, so that it begins at a whole number
  const dims = (field[1] ?? []).flatMap(d => {
    if (typeof d === 'number') return [d]
    const packed = []
    for (let at = 0, v; at < d.length;) { [v, at] = varint(d, at); packed.push(v) }
    return packed
  })
  if (field[2][0] === 1) return { dims, data: new Float32Array(raw.buffer) }
  if (field[2][0] !== 10) throw new Error(`the ONNX file should hold numbers of type 1 or 10, but has type ${field[2][0]}`)
  const halves = new Uint16Array(raw.buffer), data = new Float32Array(halves.length)
  for (let i = 0; i < data.length; i++) data[i] = fromHalf(halves[i])
  return { dims, data }
}

// Weights of the network: { mean, std, conv1: { dims, weight, bias }, ..., conv4, fc1, fc2 }. The names in the file depend on
// the exporter, so we start from the output `logits` and follow the nodes back to the pixels.
export function readWeights(buffer) {
  const graph = fields(fields(new Uint8Array(buffer))[7][0])
  const tensors = new Map(graph[5].map(fields).map(field => [text(field[8][0]), field]))
  const makers = new Map()
  for (const field of graph[1].map(fields)) {
    const node = { op: text(field[4][0]), inputs: (field[1] ?? []).map(text) }
    for (const name of field[2]) makers.set(text(name), node)
  }
  const stored = name => { // Weights stored in 16 bits pass through a node that widens them
    while (makers.has(name)) name = makers.get(name).inputs[0]
    return tensor(tensors.get(name))
  }
  const layers = ['fc2', 'fc1', 'conv4', 'conv3', 'conv2', 'conv1'], found = {}
  for (let node = makers.get('logits'); node; node = makers.get(node.inputs[0])) {
    if (node.op === 'Conv' || node.op === 'Gemm') {
      const { dims, data } = stored(node.inputs[1])
      found[layers.shift()] = { dims, weight: data, bias: stored(node.inputs[2]).data }
    } else if (node.op === 'Sub') found.mean = stored(node.inputs[1]).data[0]
    else if (node.op === 'Div') found.std = stored(node.inputs[1]).data[0]
  }
  if (layers.length) throw new Error(`the ONNX file has no ${layers.at(-1)} in the path to its logits`)
  return found
}
