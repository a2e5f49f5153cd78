"""Pictures of every kind, generated from MNIST's test images, and how many are read

python tests/pictures.py SEED COLUMN [KIND ...] writes the counts into a column of
nbs/runs/pictures.csv: 'now', or a version's number if that version is installed. It
takes about an hour on one core, most of it for the 600 plain pictures."""
import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import uniform_filter

class Draw:
    "Everything random of one picture, and what is drawn with it"
    def __init__(self, seed, images, labels):
        self.g, self.images, self.labels = np.random.default_rng(seed), images, labels
    def u(self, low, high): return self.g.uniform(low, high)
    def digit(self, height, label=None):
        "Ink [h,w] of a digit, and which"
        while True:
            i = self.g.integers(len(self.images))
            if label is None or self.labels[i] == label: break
        x = self.images[i].numpy()
        rows, columns = ((x > 60).any(d).nonzero()[0] for d in (1, 0))
        cut = Image.fromarray(x[rows[0]:rows[-1]+1,columns[0]:columns[-1]+1])
        k = height/cut.height
        return np.asarray(cut.resize((max(3, round(cut.width*k)), round(height)), Image.Resampling.BICUBIC))/255, str(int(self.labels[i]))
    def number(self, text, height, gap=(.12, .4), glyph=None):
        "Ink of a text; digits are written, None for any digit"
        parts = [self.digit(height*self.u(.9, 1.1), None if t == '#' else int(t)) for t in text]
        return self.row(parts, height, gap)
    def row(self, parts, height, gap):
        ink, x = np.zeros((int(1.4*height), int(sum(p.shape[1]+2+height*max(gap[1], 0) for p,_ in parts))+4)), 1
        for p,_ in parts:
            y = int(ink.shape[0]/2-p.shape[0]/2+height*self.u(-.05, .05))
            here = ink[y:y+p.shape[0],x:x+p.shape[1]]
            np.maximum(here, p, out=here)
            end = x+p.shape[1]
            x = end+round(height*self.u(*gap))
        return ink[:,:end+1], ''.join(t for _,t in parts)
    def light(self, h, w, amount=1.):
        y, x = np.linspace(-1, 1, h)[:,None], np.linspace(-1, 1, w)
        a, b, c = (self.u(-.15, .15)*amount for _ in range(3))
        edge = (y+self.u(-1, 1)*x-self.u(-.5, .8))*self.u(4, 40)
        return (.9+a*x+b*y+c*x*x)*(1-amount*self.u(0, .35)/(1+np.exp(-edge)))
    def finish(self, sheet, light=True, noise=(0, .02), blur=(0, 1.2)):
        "Light, blur and noise"
        h, w = sheet.shape
        x = sheet*(self.light(h, w) if light else 1)
        im = Image.fromarray((255*x.clip(0, 1)).astype(np.uint8)).filter(ImageFilter.GaussianBlur(self.u(*blur)*min(1, min(h, w)/150)))
        return (np.asarray(im)+255*self.u(*noise)*self.g.standard_normal((h, w))).clip(0, 255).round().astype(np.uint8)
    def sheet(self, ink, polarity=None, contrast=(.4, .9)):
        "Paper with ink [H,W]"
        c = self.u(*contrast)
        light = self.g.random() < .4 if polarity is None else polarity
        return .12+(1-.12)*c*ink if light else 1-c*ink

def place(ink, part, top, left):
    h, w = part.shape
    here = ink[top:top+h,left:left+w]
    np.maximum(here, part[:here.shape[0],:here.shape[1]], out=here)

def lines(shape, strokes, width):
    "Ink of straight lines [(x,y),...] "
    im = Image.new('L', (2*shape[1], 2*shape[0]))
    d = ImageDraw.Draw(im)
    for s in strokes: d.line([(2*x, 2*y) for x,y in s], 255, max(1, round(2*width)), joint='curve')
    return np.asarray(im.reduce(2))/255

def on_table(d, many):
    "A sheet on a darker table, a little turned"
    h = d.u(50, 110)
    ink, text = d.number('#'*int(d.g.integers(3, 6)) if many else '#', h)
    m = [round(h*d.u(.4, 1.2)) for _ in range(4)]
    ink = np.pad(ink, (m[:2], m[2:]))
    sheet = d.sheet(ink, polarity=False, contrast=(.5, .9))
    t = [round(min(ink.shape)*d.u(.12, .5)) for _ in range(4)]
    angle, table = d.u(-6, 6), d.u(.25, .7)
    im = Image.fromarray((255*np.pad(sheet, (t[:2], t[2:]), constant_values=-1).clip(0, 1)).astype(np.uint8))
    mask = np.pad(np.full(sheet.shape, 255, np.uint8), (t[:2], t[2:]))
    size = im.size
    im, mask = (x.rotate(angle, Image.Resampling.BICUBIC, expand=False) for x in (im, Image.fromarray(mask)))
    a, k = np.asarray(im)/255, np.asarray(mask)/255
    grain = d.u(0, .05)*uniform_filter(d.g.standard_normal(size[::-1]), 4)*4
    return d.finish(a*k+(table+grain)*(1-k)), text

def tight(d, many):
    "Cropped to the ink, 0 to 2 pixels around it, in uneven light"
    h = d.u(16, 120)
    ink, text = d.number('#'*int(d.g.integers(3, 6)), h) if many else d.digit(h)
    while not many and text == '1': ink, text = d.digit(h)
    rows, columns = ((ink > .3).any(k).nonzero()[0] for k in (1, 0))
    ink = ink[rows[0]:rows[-1]+1,columns[0]:columns[-1]+1]
    m = int(d.g.integers(3))
    return d.finish(d.sheet(np.pad(ink, m)), blur=(0, .8)), text

def boxed(d, many):
    "A printed box around a digit; a row of them"
    h = d.u(40, 110)
    parts = [d.digit(h*d.u(.9, 1.1)) for _ in range(int(d.g.integers(3, 7)) if many else 1)]
    w, tall = h*d.u(1.15, 1.7), h*d.u(1.3, 1.9)
    w = max(w, 1.15*max(p.shape[1] for p,_ in parts))
    m, pen = d.u(.1, .6)*h, d.u(.015, .06)*h
    apart = d.u(.15, .5)*h*(d.g.random() < .5) if many else 0
    shape = int(tall+2*m)+1, int(len(parts)*(w+apart)+2*m)+1
    ink, strokes = np.zeros(shape), []
    for i,(p,_) in enumerate(parts):
        x, y = m+i*(w+apart), m
        strokes.append([(x, y), (x+w, y), (x+w, y+tall), (x, y+tall), (x, y), (x+w, y)])
        place(ink, p, int(y+(tall-p.shape[0])/2+d.u(-.5, .5)*(tall-p.shape[0]-4*pen)*.8),
              int(x+(w-p.shape[1])/2+d.u(-.5, .5)*max(0, w-p.shape[1]-4*pen)*.8))
    ink = np.maximum(ink, d.u(.5, 1)*lines(shape, strokes, pen))
    return d.finish(turn(d, d.sheet(ink))), ''.join(t for _,t in parts)

def turn(d, sheet, most=1.5):
    fill = int(255*np.median(sheet))
    im = Image.fromarray((255*sheet.clip(0, 1)).astype(np.uint8))
    return np.asarray(im.rotate(d.u(-most, most), Image.Resampling.BICUBIC, fillcolor=fill))/255

def ruled(d, many):
    "A rule that touches the digits"
    h = d.u(40, 110)
    ink, text = d.number('#'*int(d.g.integers(3, 7)) if many else '#', h)
    m = round(d.u(.3, .9)*h), round(d.u(.3, .9)*h)
    side = round(d.u(.6, 1.5)*h)
    ink = np.pad(ink, (m, (side, side)))
    rows = (ink > .3).any(1).nonzero()[0]
    y = rows[-1]-d.u(-.02, .12)*h
    left = d.u(0, .3)*side if d.g.random() < .5 else -5
    rule = lines(ink.shape, [[(left, y), (ink.shape[1]-left, y)]], d.u(.015, .06)*h)
    return d.finish(turn(d, d.sheet(np.maximum(ink, d.u(.5, 1)*rule)))), text

def flat(d, many=False):
    "A dash, or the rule of an empty field"
    w, h = d.u(100, 400), d.u(30, 160)
    ink = lines((int(h), int(w)), [[(w*.06, h/2), (w*.94, h/2+d.u(-2, 2))]], d.u(1, 6))
    return d.finish(d.sheet(ink)), ''

def four(d, many=False):
    "A closed four with a long stem"
    k = d.u(.5, 1.5)
    h, x, top, pen = 200*k, d.u(70, 90)*k, d.u(15, 25)*k, d.u(4, 14)*k
    out, low, foot = d.u(30, 50)*k, d.u(60, 85)*k, d.u(160, 185)*k
    lean = d.u(-8, 8)*k
    ink = lines((int(h), int(120*k)), [[(x+lean, top), (x, foot)], [(x+lean, top+2), (x-out, low), (x, low+d.u(-6, 6)*k)]], pen)
    return d.finish(d.sheet(ink)), '4'

def table(d, rows=24, columns=46):
    "A ruled table, a digit or two in each cell"
    cw, ch = d.u(38, 60), d.u(38, 60)
    m, pen = d.u(10, 60), d.u(1, 3)
    shape = int(rows*ch+2*m), int(columns*cw+2*m)
    grid = [[(m, m+i*ch), (m+columns*cw, m+i*ch)] for i in range(rows+1)]
    grid += [[(m+i*cw, m), (m+i*cw, m+rows*ch)] for i in range(columns+1)]
    ink, text = d.u(.4, 1)*lines(shape, grid, pen), []
    for i in range(rows):
        cells = []
        for j in range(columns):
            p, t = d.digit(ch*d.u(.45, .7))
            place(ink, p, int(m+i*ch+(ch-p.shape[0])*d.u(.25, .75)), int(m+j*cw+(cw-p.shape[1])*d.u(.25, .75)))
            cells.append(t)
        text.append(' '.join(cells))
    return d.finish(turn(d, d.sheet(ink, polarity=False), .6)), '\n'.join(text)

def page(d, many=True):
    "A form with boxes, a ledger with rules and columns, or a grid"
    kind, W, H = d.g.integers(3), int(d.u(900, 1500)), int(d.u(700, 1100))
    ink, text, grid, pen = np.zeros((H, W)), [], [], d.u(1.2, 3)
    h = d.u(34, 50)
    if kind == 0: # Fields: combs and rules under empty and filled fields
        y = 60
        while y < H-150:
            x, row = 60, []
            while x < W-300:
                n, w, tall = int(d.g.integers(3, 7)), h*1.25, h*1.5
                if x+n*w > W-60: break
                t = ''
                comb = d.g.random() < .7
                if comb:
                    grid += [[(x, y), (x+n*w, y)], [(x, y+tall), (x+n*w, y+tall)]]
                    grid += [[(x+i*w, y), (x+i*w, y+tall)] for i in range(n+1)]
                else: grid += [[(x, y+tall), (x+n*w, y+tall)]]
                if d.g.random() < .85:
                    for i in range(n):
                        p, c = d.digit(h*d.u(.85, 1.05))
                        place(ink, p, int(y+(tall-p.shape[0])*d.u(.2, .8 if comb else 1)), int(x+i*w+(w-p.shape[1])*d.u(.3, .7)))
                        t += c
                    row.append(t)
                x += n*w+h*d.u(1.5, 3)
            if row: text.append(' '.join(row))
            y += int(h*d.u(2.2, 3))
    else:
        ch, cw = h*d.u(1.4, 1.9), h*d.u(2.5, 5) if kind == 1 else h*d.u(1.4, 1.8)
        rows, columns, m = int((H-80)/ch), int((W-80)/cw), 40
        grid += [[(m, m+i*ch), (m+columns*cw, m+i*ch)] for i in range(rows+1)]
        grid += [[(m+i*cw, m), (m+i*cw, m+rows*ch)] for i in range(columns+1)]
        for i in range(rows):
            row = []
            for j in range(columns):
                if d.g.random() < .25: continue
                n = int(d.g.integers(1, max(2, int(cw/h/.9)))) if kind == 1 else 1
                p, t = d.number('#'*n, h*d.u(.8, 1), gap=(.08, .2))
                while p.shape[1] > .95*cw: p, t = d.number('#'*n, h*d.u(.8, 1), gap=(.08, .2))
                place(ink, p, int(m+i*ch+(ch-p.shape[0])*d.u(.3, .7)), int(m+j*cw+(cw-p.shape[1])*d.u(.2, .8)))
                row.append(t)
            if row: text.append(' '.join(row))
    ink = np.maximum(ink, d.u(.4, 1)*lines((H, W), grid, pen))
    return d.finish(turn(d, d.sheet(ink, polarity=False), 1)), '\n'.join(text)

SIGNS = '-42', '3.14', '24/12/2025', '(030)'
def signs(d, many=True):
    "Digits with a minus, a point, slashes or brackets"
    h, parts = d.u(50, 100), []
    pen, text = d.u(.08, .13)*h, SIGNS[d.g.integers(4)]
    if text[0] == '-': text = '-'+''.join(str(d.g.integers(10)) for _ in range(2))
    for c in text:
        if c == '-': parts.append((lines((int(.3*h), int(.5*h)), [[(pen/2, .15*h), (d.u(.35, .48)*h, (.15+d.u(-.04, .04))*h)]], pen), '?'))
        elif c == '.': # On the line
            low = int(.95*h)
            p = np.zeros((low, int(1.6*pen)+2)); r = pen*d.u(.55, .8)
            yy, xx = np.mgrid[:p.shape[0],:p.shape[1]]
            p[(yy-(low-r-1))**2+(xx-p.shape[1]/2)**2 <= r*r] = 1
            parts.append((p, '?'))
        elif c == '/':
            w, t = d.u(.3, .55)*h, d.u(1, 1.3)*h
            parts.append((lines((int(t), int(w+pen)), [[(pen/2, t-pen/2), (w, pen/2)]], pen), '?'))
        elif c in '()':
            w, t = d.u(.2, .32)*h, d.u(1.1, 1.35)*h
            a = np.linspace(-1, 1, 30)
            pts = [(pen/2+w*v*v, pen/2+(t-pen)*(v+1)/2) for v in a]
            p = lines((int(t), int(w+pen)), [pts], pen)
            parts.append((p if c == '(' else p[:,::-1], '?'))
        else: parts.append(d.digit(h*d.u(.9, 1.1), int(c)))
    ink, _ = d.row(parts, h, (.1, .3))
    m = [round(d.u(.3, .8)*h) for _ in range(4)]
    ink = np.pad(ink, (m[:2], m[2:]))
    return d.finish(d.sheet(ink)), ''.join(t for _,t in parts)

def plain(d, many):
    "With paper around, evenly or unevenly lit"
    h = d.u(30, 110)
    ink, text = d.number('#'*int(d.g.integers(3, 7)), h) if many else d.digit(h)
    m = [round(d.u(.25, 1)*h) for _ in range(4)]
    return d.finish(d.sheet(np.pad(ink, (m[:2], m[2:])))), text

KINDS = dict( # Name: what is drawn, with its arguments; how many
    table_one=(on_table, (0,), 20), table_many=(on_table, (1,), 20),
    tight_one=(tight, (0,), 30), tight_many=(tight, (1,), 40),
    box_one=(boxed, (0,), 20), box_many=(boxed, (1,), 20),
    rule_one=(ruled, (0,), 20), rule_many=(ruled, (1,), 20),
    flat=(flat, (), 20), fours=(four, (), 80), signs=(signs, (), 40),
    plain_one=(plain, (0,), 500), plain_many=(plain, (1,), 100),
    pages=(page, (), 9), cells=(table, (), 1))

FILE = Path(__file__).parents[1]/'nbs/runs/pictures.csv'

def draw(kind, seed, i, mnist):
    "Picture `i` of a kind [H,W] uint8, and its text; '?' stands for a sign"
    d = Draw([seed, sorted(KINDS).index(kind), i], mnist.test_x, mnist.test_y.numpy())
    what, arguments, _ = KINDS[kind]
    return what(d, *arguments)

def edits(a, b):
    "Least number of insertions, omissions and changes that make `b` of `a`"
    row = list(range(len(b)+1))
    for i,x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j,y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j]+1, row[j-1]+1, corner+(x != y))
    return row[-1]

def read(picture, many):
    "Text and whether it is sure; '' if the picture is refused, 'died' after another error"
    from s5_mnist import predict, read_numbers
    try:
        if many:
            numbers = read_numbers(picture)
            return numbers.text, not numbers.unsure
        digit = predict(picture)
        return str(digit.digit), digit.is_digit
    except ValueError: return '', False
    except Exception: return 'died', False

def count(kind, seed, mnist):
    "How many pictures of a kind are read, of how many; of whole pages, the digits"
    right = total = 0
    for i in range(KINDS[kind][2]):
        picture, text = draw(kind, seed, i, mnist)
        many = kind.endswith('many') or kind in ('signs', 'pages', 'cells')
        found, sure = read(picture, many)
        if kind == 'flat': # No digit that is sure, and none on a page
            other = read(picture, True)[0]
            ok = not sure and not any(c.isdigit() for c in other) and 'died' not in (found, other)
        else: ok = found == text if kind in ('signs', 'plain_many') else found.replace(' ', '') == text
        if kind in ('pages', 'cells'):
            text, found = (''.join(t.split()) for t in (text, found))
            right, total = right+max(0, len(text)-edits(found, text)), total+len(text)
        else: right, total = right+ok, total+1
    return right, total

def store(kind, seed, column, right, total):
    "Write a count into the file"
    rows = list(csv.DictReader(FILE.open())) if FILE.exists() else []
    row = next((r for r in rows if (r['kind'], r['seed']) == (kind, str(seed))), None)
    if row is None: rows.append(row := dict(kind=kind, seed=seed, n=total))
    row[column] = right
    names = list(dict.fromkeys(name for r in rows for name in r))
    with FILE.open('w', newline='') as f:
        writer = csv.DictWriter(f, names, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)

if __name__ == '__main__':
    from s5_mnist.data import load_mnist
    seed, column, *chosen = sys.argv[1:]
    mnist = load_mnist()
    for kind in chosen or KINDS:
        result = count(kind, int(seed), mnist)
        store(kind, int(seed), column, *result)
        print(kind, *result, flush=True)
