"""Sweeps: one row per run, saved, continued and read back; folds; what means and differences are worth."""
import json
import random
import statistics
import subprocess
import sys
from collections import Counter

import pytest
import torch
from conftest import QUICK
from torch.nn import functional as F

from s5_mnist import sweeps
from s5_mnist.data import Batches, generated_data
from s5_mnist.recipes import RECIPES, Recipe, get_recipe
from s5_mnist.runs import train
from s5_mnist.sweeps import (best_logit_scale, fold_data, fold_positions, fold_table, mean_interval, misread_images,
                             paired_difference, read_sweep, recipe_settings, sweep, sweep_line)
from s5_mnist.training import evaluate


@pytest.fixture(scope='module')
def tiny():
    "Very few digits"
    return generated_data(60, 30)


@pytest.fixture(scope='module')
def one_row(tiny, tmp_path_factory):
    "The text of a table with one run, and its row"
    path = tmp_path_factory.mktemp('sweep')/'fast.csv'
    row, = sweep('fast', 1, path, tiny, **QUICK)
    return path.read_text(), row


@pytest.fixture
def table(one_row, tmp_path):
    "A table with one run, to be continued or damaged"
    (tmp_path/'fast.csv').write_text(one_row[0])
    return tmp_path/'fast.csv'


@pytest.fixture
def trained(monkeypatch):
    "What a sweep trains: the recipe, the data and the run of each"
    runs = []

    def note(recipe, data, *args, **kwargs):
        runs.append((recipe, data, run := train(recipe, data, *args, **kwargs)))
        return run
    monkeypatch.setattr(sweeps, 'train', note)
    return runs


# --- training ---------------------------------------------------------------------------------------------------

def test_a_sweep_keeps_a_row_per_seed_and_continues(tiny, table, one_row, trained):
    text, row = one_row
    table.write_text(text.replace(f'{tiny.name}",0,', f'{tiny.name}",2,'))     # As if seed 2 had come first
    rows = sweep('fast', 3, table, tiny, **QUICK)
    assert [recipe.seed for recipe, *_ in trained] == [0, 1] and [r['seed'] for r in rows] == ['2', '0', '1']
    assert read_sweep(table) == rows
    same = ('settings', 'misread', 'loss', 'test_correct', 'first_half')
    assert [rows[1][k] for k in same] == [row[k] for k in same]
    for r in rows:
        assert int(r['first_half'])+int(r['second_half']) == int(r['test_correct']) == 30-len(misread_images(r))
        assert r['validation_n'] == '' and r['precision'] == 'float32' and r['torch'] == torch.__version__
    assert get_recipe(Recipe('fast'), **json.loads(row['settings'])) == RECIPES['fast']


def test_a_sweep_stopped_in_a_run_has_the_rows_before(tiny, table, one_row, monkeypatch):
    def stop(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr(sweeps, 'train', stop)
    with pytest.raises(KeyboardInterrupt):
        sweep('fast', 2, table, tiny, **QUICK)
    assert table.read_text() == one_row[0]


def test_a_sweep_by_validation_never_meets_the_test_set(tiny, tmp_path):
    rows = sweep('fast', 1, tmp_path/'v.csv', tiny, n_valid=20, **QUICK)
    assert rows[0]['validation_n'] == '20' and rows[0]['test_n'] == rows[0]['test_correct'] == ''
    assert sweep_line(rows).startswith('validation mean ') and ' sd ' not in sweep_line(rows)


@pytest.mark.parametrize('kw', [dict(bs=32), dict(n_valid=20), dict(data='mine'), dict(folds=2)], ids=str)
def test_a_sweep_refuses_rows_of_another(tiny, table, one_row, kw):
    data = tiny._replace(name=kw.pop('data', tiny.name))
    with pytest.raises(ValueError, match='other'):
        sweep('fast', 2, table, data, **QUICK, **kw)
    assert table.read_text() == one_row[0]


@pytest.mark.parametrize('damage', [
    lambda t: 'a,b\n1,2\n', lambda t: '', lambda t: t+'1,2\n', lambda t: t.replace('seed', 'sead'), lambda t: '\x00'],
    ids=['another', 'empty', 'short row', 'column', 'null'])
def test_a_sweep_refuses_what_is_no_table(tiny, table, damage):
    table.write_text(text := damage(table.read_text()))
    with pytest.raises(ValueError, match='fast.csv'):
        sweep('fast', 2, table, tiny, **QUICK)
    assert table.read_text() == text


def test_rows_that_two_processes_wrote_count_once(table, one_row):
    header, line = one_row[0].splitlines(True)
    table.write_text(header+line+header+line)
    assert read_sweep(table) == [one_row[1]]


@pytest.mark.slow
def test_two_processes_at_one_table_lose_no_row(tmp_path):
    "They start together, so both train the same seeds, and each row arrives whole"
    code = 'from s5_mnist.cli import s5_sweep; s5_sweep.main()'
    options = '--seeds 3 --data digits --change subset_frac=0.01 --device cpu --out'.split()
    both = [subprocess.Popen([sys.executable, '-c', code, *options, tmp_path/'x.csv']) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    assert Counter(r['seed'] for r in read_sweep(tmp_path/'x.csv')) == {'0': 1, '1': 1, '2': 1}
    assert 4 <= len((tmp_path/'x.csv').read_text().splitlines()) <= 8


# --- folds ------------------------------------------------------------------------------------------------------

def test_folds_hold_each_image_once(tiny):
    parts = fold_positions(100, 7)
    assert len(parts) == 7 and max(map(len, parts))-min(map(len, parts)) <= 1
    assert torch.cat(parts).sort().values.equal(torch.arange(100))
    assert all(map(torch.equal, parts, fold_positions(100, 7)))                # Always the same
    for fold in range(3):
        data, held = fold_data(tiny, 3, fold)
        assert held.equal(fold_positions(60, 3)[fold]) and data.test_x is tiny.test_x
        assert data.train_x[-len(held):].equal(tiny.train_x[held]) and data.train_y[-len(held):].equal(tiny.train_y[held])
        assert sorted(map(bytes, data.train_x.numpy())) == sorted(map(bytes, tiny.train_x.numpy()))


def test_a_fold_is_scored_by_a_network_that_has_not_seen_it(tiny, tmp_path, trained):
    rows = sweep('fast', 1, tmp_path/'f.csv', tiny, folds=2, keep=tmp_path/'kept', **QUICK)
    assert [r['fold'] for r in rows] == ['1/2', '2/2'] and sum(int(r['validation_n']) for r in rows) == 60
    for (recipe, data, run), row, held in zip(trained, rows, fold_positions(60, 2)):
        assert recipe.n_valid == len(held) and data.train_x[-len(held):].equal(tiny.train_x[held])
        score = evaluate(run.net, Batches(tiny.train_x[held], tiny.train_y[held]))
        assert misread_images(row) == set(held[score.wrong].tolist()) and row['test_n'] == ''
        assert float(row['loss']) == pytest.approx(best_logit_scale(score.probs, tiny.train_y[held])[1], abs=1e-5)
        assert json.loads(row['settings'])['n_valid'] == 0 and row['data'] == tiny.name
    trained.clear()                                                           # The runs that were kept are not repeated
    assert sweep('fast', 1, tmp_path/'again.csv', tiny, folds=2, keep=tmp_path/'kept', **QUICK) == rows and not trained
    lines = (tmp_path/'f.csv').read_text().splitlines(True)
    (tmp_path/'f.csv').write_text(''.join(lines[:2]))
    sweep('fast', 1, tmp_path/'f.csv', tiny, folds=2, **QUICK)
    assert [data.name for _, data, _ in trained] == [f'{tiny.name}, fold 2 of 2']
    perfect = [r | dict(misread='', validation_correct=r['validation_n'], loss='0.5') for r in rows[:1]]
    line = str(fold_table({'as it is': rows, 'perfect': perfect})).splitlines()[2]
    assert line.split()[1:4] == ['0', '30', f'{-100*len(misread_images(rows[0]))/30:+.3f}']
    with pytest.raises(ValueError, match='same folds'):
        fold_table({'a': rows, 'b': [r | dict(seed='7') for r in rows]})


@pytest.mark.parametrize('kw', [dict(folds=2, n_valid=20), dict(folds=1)], ids=str)
def test_folds_that_make_no_sense_are_refused(tiny, tmp_path, kw):
    with pytest.raises(ValueError, match='folds'):
        sweep('fast', 1, tmp_path/'g.csv', tiny, **QUICK, **kw)
    assert not list(tmp_path.iterdir())


# --- statistics -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n, t', [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)])
def test_the_interval_is_students(n, t):
    "Against the printed tables of the t distribution"
    values = [random.Random(n).gauss(0, 1) for _ in range(n)]
    mean, half = statistics.mean(values), t*statistics.stdev(values)/n**.5
    assert mean_interval(values) == pytest.approx((mean-half, mean+half), abs=1e-3*half)


def test_a_paired_difference_counts_what_only_one_misreads():
    d = paired_difference({1, 2, 3, 4}, {3, 4, 5, 6, 7, 8}, 100)
    assert (d.n, d.first_only, d.second_only) == (100, 2, 4)
    one_by_one = torch.tensor([-1.]*2+[1.]*4+[0.]*94)                          # The same as values of 100 images
    half = 100*1.96*one_by_one.std(correction=0).item()/10
    assert (d.difference, d.low, d.high) == pytest.approx((2, 2-half, 2+half))


@pytest.mark.parametrize('factor', [.5, 1., 2.])
def test_the_best_scale_is_the_one_that_was_divided_out(factor):
    g = torch.Generator().manual_seed(0)
    logits = 3*torch.randn(20_000, 10, generator=g)
    y = torch.multinomial(logits.softmax(1), 1, generator=g)[:,0]              # Labels as likely as the logits say
    scale, loss = best_logit_scale((logits/factor).softmax(1), y)
    assert scale == pytest.approx(factor, rel=.05)
    assert loss == pytest.approx(F.cross_entropy(logits, y).item(), abs=1e-3)


def test_certain_mistakes_do_not_make_the_loss_infinite():
    scale, loss = best_logit_scale(torch.eye(10), (torch.arange(10)+1) % 10)
    assert 0 < loss < 100 and scale == pytest.approx(.25)
