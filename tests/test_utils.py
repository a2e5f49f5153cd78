"""Seeds, pictures and calibration."""
import random

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ROOT

from s5_mnist.utils import (calibration_bins, calibration_error, plot_accuracy_by, plot_accuracy_metrics, plot_confusion,
                            plot_mistakes, plot_reliability, plot_samples, set_seed, wilson_interval)


def test_one_seed_for_python_numpy_and_torch():
    def draw():
        g = set_seed(5)
        return random.random(), np.random.rand(), torch.rand(1).item(), torch.rand(1, generator=g).item()
    assert draw() == draw() and len(set(draw())) == 3             # torch's two generators have the same seed


# --- pictures ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('shape', [(12, 28, 28), (20, 1, 28, 28)])
def test_samples_are_the_first_twelve_images(shape, small):
    x = small.train_x[:shape[0]].view(shape).float()
    fig = plot_samples(x, small.train_y[:shape[0]])
    assert [a.get_title() for a in fig.axes] == [str(y) for y in small.train_y[:12].tolist()]
    assert all(a.images[0].get_array().data.tolist() == i.view(28, 28).tolist() for a, i in zip(fig.axes, x))


def test_fewer_images_leave_gaps(small):
    fig = plot_samples(small.train_x[:5], small.train_y[:5])
    assert [bool(a.images) for a in fig.axes] == [True]*5+[False]*7 and not any(a.axison for a in fig.axes)


def test_what_is_compared_stands_in_one_panel():
    fig = plot_accuracy_metrics([2, 1.], [50, 90.], [1.5, .5], [60, 95.])
    assert [a.get_ylabel() for a in fig.axes] == ['loss (nats)', 'accuracy (%)']
    assert all(a.get_xlabel() == 'epoch' for a in fig.axes)
    assert [[line.get_ydata().tolist() for line in a.lines] for a in fig.axes] == [[[2, 1], [1.5, .5]], [[50, 90], [60, 95]]]
    assert [[t.get_text() for t in a.get_legend().get_texts()] for a in fig.axes] == [
        ['training: 1.0000', 'test: 0.5000'], ['training: 90.00 %', 'test: 95.00 %']]


def relative_luminance(colour):
    "As the Web Content Accessibility Guidelines define it"
    rgb = [c/12.92 if c <= .03928 else ((c+.055)/1.055)**2.4 for c in matplotlib.colors.to_rgb(colour)]
    return .2126*rgb[0]+.7152*rgb[1]+.0722*rgb[2]


@pytest.mark.parametrize('style', [{}, str(ROOT/'nbs'/'site'/'figures.mplstyle')], ids=['default', 'site'])
def test_words_can_be_read_on_a_white_page_and_with_the_site_s_style_on_a_dark_one(style, small):
    counts, labels = torch.full((10, 10), 3), small.train_y[:20]
    probs = torch.eye(10)[(labels+1) % 10]
    with plt.style.context(style):
        figures = [plot_samples(small.train_x[:12], labels), plot_accuracy_metrics([1], [50], [2], [60]), plot_confusion(counts),
                   plot_mistakes(small.train_x[:20], labels, probs), plot_reliability(probs, labels), plot_accuracy_by(dict(a=(1, 2)))]
        for fig in figures:
            fig.canvas.draw()
            for t in fig.findobj(matplotlib.text.Text):
                on_image = any(t.axes is a and a.images and t in a.texts for a in fig.axes)
                if t.get_text() and t.get_visible() and not (on_image and t.get_color() == 'black'):
                    shade = relative_luminance(t.get_color())
                    assert 1.05/(shade+.05) > 4 and (not style or (shade+.05)/.06 > 3.5), (t.get_text(), t.get_color())


def test_figures_go_where_they_are_told(small):
    left, right = plt.figure().subfigures(1, 2)
    assert plot_samples(small.train_x[:12], small.train_y[:12], left) is left and len(left.axes) == 12
    assert plot_confusion(torch.eye(10), right) is right and len(right.axes) == 1


def test_the_confusion_matrix_shows_every_count():
    counts = torch.eye(10, dtype=torch.int64)*5
    counts[2, 7] = 3
    ax, = plot_confusion(counts).axes
    assert {(t.get_position(), t.get_text()) for t in ax.texts} == {((i, i), '5') for i in range(10)} | {((7, 2), '3')}
    assert ax.get_title() == '50 of 53 correct, 3 wrong'


def probabilities(labels, predicted, top):
    "Probabilities with the given maximum at the given digits"
    probs = torch.full((len(labels), 10), 0.)
    probs[range(len(labels)), predicted] = torch.tensor(top)
    return probs + (1-probs.sum(1, keepdim=True))/10


def test_the_most_confident_mistakes_come_first(small):
    labels = torch.tensor([1, 2, 3, 4])
    probs = probabilities(labels, [1, 7, 8, 9], [.9, .5, .9, .7])
    fig = plot_mistakes(small.train_x[:4], labels, probs, max_images=2)
    titles = [a.get_title() for a in fig.axes if a.get_title()]
    assert titles == ['3 read as 8\n91.0 %, no. 2', '4 read as 9\n73.0 %, no. 3']
    assert fig._suptitle.get_text() == '3 of 4 images misread: the 2 most confident'
    assert plot_mistakes(small.train_x[:1], labels[:1], probs[:1])._suptitle.get_text() == '0 of 1 images misread'


# --- calibration ------------------------------------------------------------------------------------------------

def test_calibration_bins_count_every_prediction():
    g = torch.Generator().manual_seed(0)
    probs, labels = torch.rand(500, 10, generator=g).softmax(1), torch.randint(10, (500,), generator=g)
    found, top = calibration_bins(probs, labels, 12), probs.max(1)
    assert sum(b.n for b in found) == 500 and all(b.low < b.confidence <= b.high for b in found)
    assert sum(b.n*b.accuracy for b in found) == pytest.approx((top.indices == labels).sum().item())
    assert sum(b.n*b.confidence for b in found) == pytest.approx(top.values.sum().item(), rel=1e-5)


def test_calibration_error_of_known_predictions():
    labels = torch.zeros(100, dtype=torch.int64)
    certain = torch.eye(10)[torch.tensor([0]*80+[1]*20)]          # Always certain, right in 80 of 100 cases
    assert calibration_error(certain, labels) == pytest.approx(.2)
    assert calibration_error(torch.eye(10)[labels], labels) == 0


def test_the_reliability_diagram_shows_the_bins():
    labels = torch.tensor([1, 2, 3, 4])
    probs = probabilities(labels, [1, 2, 3, 9], [.9, .9, .5, .3])
    top, low = plot_reliability(probs, labels, bins=10).axes
    assert sorted(round(b.get_height()) for b in low.patches) == [1, 1, 2]
    assert top.get_ylabel() == 'accuracy' and low.get_xlabel() == 'probability of the prediction'
    assert top.get_title() == f'expected calibration error {calibration_error(probs, labels, 10):.4f}'


def test_accuracy_of_groups():
    ax, = plot_accuracy_by(dict(a=(9, 10), b=(50, 100))).axes
    assert [t.get_text() for t in ax.texts] == ['1 of\n10', '50 of\n100'] and ax.get_ylabel() == 'accuracy (%)'
    assert [t.get_text() for t in ax.get_xticklabels()] == ['a', 'b']
