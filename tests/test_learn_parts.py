"""Two parts of the page that learn: "Watch it learn" and "One neuron's slope", in a real browser, compared with torch."""
import re

import numpy as np
import pages
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sprite import COLUMNS, HELD_OUT, LABELS, ROOT, SPRITE, TRAINING, levels

WAIT = 120_000 # Milliseconds; the machine may be busy


@pytest.fixture(scope='module')
def digits():
    "The sprite as the page reads it: images [1100,28,28] from 0 to 255, and labels"
    board = np.asarray(Image.open(ROOT/SPRITE).convert('L'))
    labels = [int(c) for c in ''.join(re.findall(r"'(\d+)'", (ROOT/LABELS).read_text()))]
    tiles = board.reshape(-1, 28, COLUMNS, 28).swapaxes(1, 2).reshape(-1, 28, 28)
    return tiles[:len(labels)], np.array(labels)


def test_the_digits_are_training_images_of_mnist(digits, mnist):
    x, y = digits
    assert np.bincount(y[:10*TRAINING]).tolist() == [TRAINING]*10 and np.bincount(y[10*TRAINING:]).tolist() == [HELD_OUT]*10
    known = {image.tobytes()+bytes([label]) for image, label in zip(levels(mnist.train_x.numpy()), mnist.train_y.tolist())}
    tiles = [(image//17).tobytes()+bytes([label]) for image, label in zip(x, y.tolist())]
    assert set(tiles) <= known and len(set(tiles)) == len(tiles)


# --- in a browser -----------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def address(tmp_path_factory, serve):
    folder = tmp_path_factory.mktemp('parts')
    pages.build(folder)
    return serve(folder)


@pytest.fixture
def opened(browser, address):
    "A function that opens the page of a part and waits until it is live"
    made = []

    def open_(name, **options):
        page = browser.new_page(reduced_motion='reduce', **options)
        page.errors = []
        page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: page.errors.append(str(e)))
        page.goto(f'{address}/{name}.html')
        page.wait_for_selector('[data-live]', timeout=WAIT)
        made.append(page)
        return page
    yield open_
    for page in made:
        assert page.errors == []
        page.close()


@pytest.mark.parametrize('sizes', [(784, 10), (784, 32, 10), (20, 12, 8, 5)])
def test_gradients_and_a_step_equal_those_of_torch(opened, digits, sizes):
    g = torch.Generator().manual_seed(3)
    weights = [torch.randn(n, m, generator=g)*(2/m)**.5 for m, n in zip(sizes, sizes[1:])]
    biases = [torch.randn(n, generator=g)*.1 for n in sizes[1:]]
    x = torch.tensor(digits[0][:50]/255, dtype=torch.float32).flatten(1)[:, :sizes[0]]
    x = x if sizes[0] == 784 else torch.rand(50, sizes[0], generator=g)
    y = torch.tensor(digits[1][:50]) % sizes[-1]
    params = [p.requires_grad_() for pair in zip(weights, biases) for p in pair]
    values = x
    for i in range(len(weights)):
        values = F.linear(values if i == 0 else values.relu(), weights[i], biases[i])
    loss = F.cross_entropy(values, y)
    loss.backward()
    layers = [dict(inputs=w.shape[1], outputs=w.shape[0], weight=w.t().flatten().tolist(), bias=b.tolist())
              for w, b in zip(weights, biases)]
    found = opened('slope').evaluate("""async ({ layers, x, y }) => {
        const { gradients, step } = await import('./demo/sgd.js')
        for (const layer of layers) for (const name of ['weight', 'bias']) layer[name] = Float32Array.from(layer[name])
        const { loss, slopes } = gradients(layers, Float32Array.from(x), y)
        step(layers, slopes, 0.5)
        const flat = list => list.flatMap(({ weight, bias }) => [[...weight], [...bias]])
        return { loss, slopes: flat(slopes), after: flat(layers) }
    }""", dict(layers=layers, x=x.flatten().tolist(), y=y.tolist()))
    assert abs(found['loss']-loss.item()) < 1e-5 < loss.item()
    for p, slope, after in zip(params, found['slopes'], found['after'], strict=True):
        ours = lambda values: torch.tensor(values).view(p.shape[::-1]).t()
        assert (ours(slope)-p.grad).abs().max() < 1e-5 and (ours(after)-(p-.5*p.grad)).abs().max() < 1e-5
        assert p.grad.abs().max() > 1e-3


def test_batches_take_every_digit_once_an_epoch_and_repeat_by_seed(opened):
    first, again, other = opened('slope').evaluate("""async () => {
        const { batches, generator } = await import('./demo/sgd.js')
        return [1, 1, 2].map(seed => {
            const order = batches(800, 50, generator(seed))
            return Array.from({ length: 32 }, () => order.next().value)
        })
    }""")
    assert first == again != other
    for epoch in (first[:16], first[16:]):
        assert sorted(sum(epoch, [])) == list(range(800))
    assert first[:16] != first[16:]


def now(page):
    "Step, training loss, held-out loss and digits read correctly, as shown"
    step, correct = page.inner_text('.steps'), page.inner_text('.correct')
    return (int(re.sub(r'\D', '', step)), *(float(page.inner_text(f'output.{name}')) for name in ('training', 'held')),
            int(correct.split()[0]))


def learn_until(page, step):
    page.wait_for_function('k => document.querySelector(".steps").innerText.replace(/\\D/g, "") >= k', arg=step, timeout=WAIT)


def test_ten_pictures_learn_by_keyboard_and_reset(opened):
    page = opened('learn', viewport=dict(width=390, height=800))
    picture = lambda: page.evaluate('document.querySelector(".weights canvas").toDataURL()')
    blank = picture()
    assert now(page)[:3] == (0, 2.303, 2.303) # The loss of ten equal probabilities
    page.focus('.go')
    page.keyboard.press('Enter')
    assert page.inner_text('.go') == 'Stop'
    learn_until(page, 200)
    page.keyboard.press('Enter')
    step, training, held, correct = now(page)
    assert page.inner_text('.go') == 'Learn' and training < .4 and training < held < .6 and correct >= 245
    assert page.inner_text('.says') == f'Stopped after {step} steps: it reads {correct} of 300 held-out digits correctly.'
    assert page.locator('.mistakes li:visible').count() == 12 and f'{300-correct} held-out' in page.inner_text('.mistakes')
    page.keyboard.press('Tab')
    page.keyboard.press('Space') # One step
    assert now(page)[0] == step+1 and picture() != blank
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    page.keyboard.press('Tab')
    page.keyboard.press('Enter')
    assert now(page)[:3] == (0, 2.303, 2.303) and picture() == blank


@pytest.mark.slow
def test_hidden_neurons_learn_and_the_same_steps_give_the_same_numbers(opened):
    page, seen = opened('learn'), []
    page.check('[value=hidden]')
    assert page.locator('.weights canvas').count() == 32
    for _ in range(2):
        page.click('text=Reset')
        for _ in range(3):
            page.click('text=One step')
        seen.append(now(page))
    assert seen[0] == seen[1] and seen[0][0] == 3
    page.click('.go')
    learn_until(page, 300)
    page.click('.go')
    _, training, held, correct = now(page)
    assert training < .25 < held < .6 and correct >= 245


def test_too_large_a_learning_rate_is_reported(opened):
    page = opened('learn')
    page.check('[value=hidden]')
    page.focus('#learn-rate')
    page.keyboard.press('End')
    page.click('.go')
    page.wait_for_function('document.querySelector(".says").innerText.includes("no longer a number")', timeout=WAIT)
    assert page.is_disabled('.go') and page.inner_text('output.training') == 'not a number'
    page.click('text=Reset')
    page.fill('#learn-rate', '5') # The rate 10
    page.click('.go')
    page.wait_for_function('document.querySelector(".says").innerText.includes("neurons give 0")', timeout=WAIT)
    page.check('[value=ten]')
    assert page.is_enabled('.go') and now(page)[:2] == (0, 2.303)
    page.click('text=One step')
    assert 'above 2.30' in page.inner_text('.says') and now(page)[1] > 10


# --- one neuron's slope

def number(page, selector):
    return float(page.inner_text(selector).replace('−', '-'))


def neuron(digits, w):
    "Loss and slope of the neuron by torch, on the first six 0s and 1s"
    x, y = digits
    chosen = [*np.flatnonzero(y == 0)[:6], *np.flatnonzero(y == 1)[:6]]
    ink, label = torch.tensor(x[chosen].sum((1, 2))/255/28), torch.tensor(y[chosen] == 0).double()
    w = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(w*ink-3, label)
    loss.backward()
    return loss.item(), w.grad.item()


def agrees(page, digits, w):
    loss, slope = neuron(digits, w)
    assert abs(number(page, '.loss')-loss) < 6e-4 and abs(number(page, 'output.slope')-slope) < 1e-4
    wiggled = (neuron(digits, w+.001)[0]-loss)/.001
    assert abs(number(page, '.wiggled')-wiggled) < 1e-4 and abs(wiggled-slope) < 2e-3
    return loss, slope


def test_the_slope_is_that_of_torch_and_steps_follow_it(opened, digits):
    page = opened('slope', viewport=dict(width=390, height=800))
    take = lambda: page.click('.take')
    page.focus('#slope-weight')
    for _ in range(4):
        page.keyboard.press('ArrowRight')
    w = .2
    _, slope = agrees(page, digits, w)
    assert slope < -1
    for _ in range(5): # The rate 0.2: downhill all the way
        loss, slope = agrees(page, digits, w)
        w -= .2*slope
        take()
        assert number(page, '.loss') < loss and 'fell' in page.inner_text('.says')
    assert page.locator('.dot.past').count() == 5
    agrees(page, digits, w)
    page.click('text=Reset')
    assert page.locator('.dot.past').count() == 0 and number(page, '[for=slope-weight] + output') == 0
    page.focus('#slope-rate')
    page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowRight') # The rate 2: beyond the valley, and up
    loss, slope = agrees(page, digits, 0.)
    page.focus('.take')
    page.keyboard.press('Enter')
    assert 'the step was too long' in page.inner_text('.says') and agrees(page, digits, -2*slope)[0] > loss
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
