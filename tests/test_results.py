"""What is claimed: the weights in the package, the rows behind each number, and where both are told."""
import csv
import json
import re
import statistics

import pytest
import torch
from conftest import ROOT

from s5_mnist import training
from s5_mnist.benchmark import mean_interval, read_sweep, recipe_settings, sweep_scores, sweep_table
from s5_mnist.data import InputError, loaders, shifted_views
from s5_mnist.model import Net
from s5_mnist.training import (PRETRAINED, RECIPES, evaluate, get_recipe, load_pretrained, pretrained_report, s5_eval,
                               save_pretrained, sharpen, train)
from s5_mnist.utils import calibration_error

QUICK = dict(device='cpu', precision='float32')
RUNS = ROOT/'nbs/runs'
LEAST = dict(s5=3, fast=10, best=5)


# --- the weights in the package -----------------------------------------------------------------------------------

def test_pretrained_is_a_network_of_best_and_says_so():
    net, report = load_pretrained(), pretrained_report()
    assert isinstance(net, Net) and not net.training
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert sum(p.numel() for p in net.parameters()) == 593_200
    assert report['recipe'] == 'best' and report['changes'] == {} and report['n'] == 10_000
    assert report['held_out'] == 'MNIST, test images' and report['versions'].keys() == {'s5_mnist', 'torch', 'python'}
    settings = {k: v for k, v in report['settings'].items() if k not in ('name', 'seed')}
    assert settings == json.loads(recipe_settings(RECIPES['best']))
    assert PRETRAINED.stat().st_size < 1.3e6


def test_pretrained_is_a_run_of_the_sweep():
    "The seed that it names stands in best.csv, with the count that it had in training"
    report = pretrained_report()
    row, = (r for r in read_sweep(RUNS/'best.csv') if int(r['seed']) == report['seed'])
    assert int(row['test_correct']) == report['correct_in_training']


@pytest.mark.mnist
def test_pretrained_scores_what_it_says(mnist):
    report, score = pretrained_report(), evaluate(load_pretrained(), loaders(mnist).test)
    assert (score.correct, score.n, score.halves) == (report['correct'], report['n'], report['halves'])
    assert score.loss == pytest.approx(report['loss'], rel=1e-4)
    assert calibration_error(score.probs, mnist.test_y) <= .01


@pytest.mark.mnist
def test_the_command_scores_the_weights_in_the_package(mnist, capsys):
    s5_eval('pretrained', device='cpu')
    said, report = capsys.readouterr().out, pretrained_report()
    assert said.startswith(f'{report["correct"]}/10000 = ') and 'MNIST, test images; recipe best, seed=' in said


def test_save_pretrained_tells_what_the_file_scores(small, tmp_path):
    run = train('fast', small, tmp_path/'run', epochs=2, **QUICK)
    test_dl = loaders(small).test
    report = save_pretrained(run, tmp_path/'w.safetensors', test_dl)
    net = load_pretrained(tmp_path/'w.safetensors')
    assert evaluate(net, test_dl).correct == report['correct'] == pretrained_report(tmp_path/'w.safetensors')['correct']
    assert report['correct_in_training'] == run.report['correct'] and report['settings']['epochs'] == 2
    for p, q in zip(net.parameters(), run.net.parameters()):
        assert p.equal(q.half().float())


# --- views and sharpness ------------------------------------------------------------------------------------------

def test_views_are_averaged_by_probability(small):
    torch.manual_seed(0)
    net, dl = Net(), loaders(small, test_bs=50).test
    score = evaluate(net, dl, tta=lambda x: [x, x.flip(3)])
    x = torch.cat([x for x, _ in dl])
    with torch.no_grad():
        mean = (net(x).softmax(1)+net(x.flip(3)).softmax(1))/2
    assert torch.allclose(score.probs, mean, atol=1e-6)
    assert score.correct == (mean.argmax(1) == small.test_y).sum()
    assert score.loss == pytest.approx(-mean[range(130), small.test_y].log().mean().item(), rel=1e-4)
    assert evaluate(net, dl, tta=shifted_views).n == 130


def test_sharpening_changes_probabilities_and_no_answer(small, tmp_path):
    kw = dict(bs=20, epochs=2, **QUICK)
    soft, hard = (train('fast', small, tmp_path/str(f), sharpen=f, **kw) for f in (1., 2.))
    test_dl = loaders(small).test
    a, b = (evaluate(r.net, test_dl) for r in (soft, hard))
    assert a.probs.argmax(1).equal(b.probs.argmax(1)) and b.probs.max(1).values.mean() > a.probs.max(1).values.mean()
    assert torch.allclose((a.probs.log()*2).softmax(1), b.probs, atol=1e-5)
    assert hard.report['loss'] == pytest.approx(b.loss) and hard.report['correct'] == soft.report['correct']
    assert hard.history.rows[-1]['test_loss'] == pytest.approx(soft.history.rows[-1]['test_loss'])
    with pytest.raises(InputError, match='factor=0'):
        sharpen(Net(), 0)


def test_dropout_is_decided_by_the_seed(small, tmp_path):
    "And by nothing else: the global generator has no part in it"
    def weights(name, **kw):
        torch.manual_seed(ord(name))
        run = train('fast', small, tmp_path/name, **QUICK, **kw)
        return torch.cat([p.detach().flatten() for p in run.net.parameters()])
    a, b, c, without = weights('a', drop=.4), weights('b', drop=.4), weights('c', drop=.4, seed=1), weights('d')
    assert a.equal(b) and not a.equal(c) and not a.equal(without)


def test_the_command_says_that_it_looked_nine_times(small, tmp_path, monkeypatch, capsys):
    run = train('fast', small, tmp_path/'run', **QUICK)
    monkeypatch.setattr(training, 'load_data', lambda *args: small)
    score = evaluate(run.net, loaders(small).test, tta=shifted_views)
    capsys.readouterr()
    s5_eval(str(tmp_path/'run'), data='digits', device='cpu', tta=True)
    assert capsys.readouterr().out.startswith(f'{score} of {small.name}, test images in nine positions each; recipe')


# --- rows ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', LEAST)
def test_sweeps_are_of_the_recipe_as_it_is_on_all_test_images(name):
    rows = read_sweep(RUNS/f'{name}.csv')
    assert [r['seed'] for r in rows] == [str(i) for i in range(len(rows))] and len(rows) >= LEAST[name]
    for r in rows:
        assert get_recipe(RECIPES[name], **json.loads(r['settings'])) == RECIPES[name]
        assert (r['recipe'], r['data'], r['test_n'], r['validation_n']) == (name, 'MNIST', '10000', '')
        assert int(r['first_half'])+int(r['second_half']) == int(r['test_correct'])


def test_the_table_holds_what_the_rows_hold():
    rows = read_sweep(RUNS/'fast.csv')
    right = [int(r['test_correct'])/100 for r in rows]
    head, line = sweep_table(rows).splitlines()
    low, high = mean_interval(right)
    assert line.split() == ['fast', '10', f'{statistics.mean(right):.3f}', f'{low:.3f}', 'to', f'{high:.3f}',
                            f'{statistics.stdev(right):.3f}', f'{min(right):.2f}', 'to', f'{max(right):.2f}',
                            *(f'{statistics.mean(int(r[k]) for r in rows)/50:.2f}' for k in ('first_half', 'second_half')),
                            f'{statistics.median(float(r["seconds"]) for r in rows):.1f}']
    assert low < statistics.mean(right) < high and sweep_scores(rows) == ('test', pytest.approx(right))


def test_published_figures_have_a_source():
    with open(RUNS/'published.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    assert len(rows) >= 5
    for r in rows:
        assert re.fullmatch(r'99\.\d{2,3}', r['accuracy']) and r['source'].startswith('https://') and r['differently']
