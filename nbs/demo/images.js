// Written by tests/new_weights.py from MNIST's test set and the package's weights; do not edit.

// What was measured about the weights: the number that the results page claims
export const CLAIM = {"recipe": "best", "seed": 0, "correct": 9976, "n": 10000}

// MNIST's test files, unpacked
export const FILES = {
  "images": {
    "name": "t10k-images-idx3-ubyte",
    "length": 7840016,
    "header": 16,
    "sha256": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
  },
  "labels": {
    "name": "t10k-labels-idx1-ubyte",
    "length": 10008,
    "header": 8,
    "sha256": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
  }
}

// The tiles of images.png in order: misread, read with the lowest probability, and the first image of each
// digit. Votes are those of five people: the other digit they were offered, then how many chose the label, the
// other digit, and neither.
export const MISREAD = [
  {"index": 193, "label": 9},
  {"index": 445, "label": 6, "votes": [0, 5, 0, 0]},
  {"index": 625, "label": 6},
  {"index": 1232, "label": 9, "votes": [4, 3, 2, 0]},
  {"index": 1878, "label": 8},
  {"index": 1901, "label": 9, "votes": [4, 2, 3, 0]},
  {"index": 2130, "label": 4, "votes": [9, 2, 2, 1]},
  {"index": 2462, "label": 2, "votes": [0, 0, 4, 1]},
  {"index": 2597, "label": 5, "votes": [3, 0, 4, 1]},
  {"index": 2654, "label": 6, "votes": [1, 0, 2, 3]},
  {"index": 3422, "label": 6, "votes": [0, 3, 2, 0]},
  {"index": 3762, "label": 6},
  {"index": 4201, "label": 1, "votes": [7, 3, 2, 0]},
  {"index": 4699, "label": 6},
  {"index": 4860, "label": 4, "votes": [9, 5, 0, 0]},
  {"index": 5654, "label": 7},
  {"index": 5937, "label": 5, "votes": [3, 1, 3, 1]},
  {"index": 6576, "label": 7, "votes": [1, 4, 1, 0]},
  {"index": 6625, "label": 8, "votes": [2, 5, 0, 0]},
  {"index": 8316, "label": 7},
  {"index": 8376, "label": 1},
  {"index": 8527, "label": 4, "votes": [9, 2, 2, 1]},
  {"index": 9505, "label": 7},
  {"index": 9729, "label": 5, "votes": [6, 2, 3, 0]},
]
export const READ = [
  {"index": 321, "label": 2, "votes": [7, 5, 0, 0]},
  {"index": 447, "label": 4},
  {"index": 468, "label": 7},
  {"index": 582, "label": 8, "votes": [2, 5, 0, 0]},
  {"index": 716, "label": 1},
  {"index": 938, "label": 3},
  {"index": 947, "label": 8, "votes": [9, 0, 5, 0]},
  {"index": 1393, "label": 5, "votes": [3, 3, 0, 2]},
  {"index": 2035, "label": 5, "votes": [3, 3, 2, 0]},
  {"index": 2040, "label": 5},
  {"index": 2182, "label": 1, "votes": [3, 5, 0, 0]},
  {"index": 2293, "label": 9, "votes": [0, 4, 1, 0]},
  {"index": 2343, "label": 1},
  {"index": 2720, "label": 9},
  {"index": 2771, "label": 4},
  {"index": 3821, "label": 9},
  {"index": 4571, "label": 6},
  {"index": 4740, "label": 3},
  {"index": 4761, "label": 9},
  {"index": 5955, "label": 3, "votes": [8, 4, 1, 0]},
  {"index": 6569, "label": 3},
  {"index": 6597, "label": 0, "votes": [7, 5, 0, 0]},
  {"index": 6883, "label": 1},
  {"index": 9669, "label": 4},
]
export const EXAMPLES = [
  {"index": 3, "label": 0},
  {"index": 2, "label": 1},
  {"index": 1, "label": 2},
  {"index": 18, "label": 3},
  {"index": 4, "label": 4},
  {"index": 8, "label": 5},
  {"index": 11, "label": 6},
  {"index": 0, "label": 7},
  {"index": 61, "label": 8},
  {"index": 7, "label": 9},
]
