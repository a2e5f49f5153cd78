"""One door for what is read, one for what is written, and one declaration for what a value may be."""
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sealing import ODD, changed, checkpoint_content, places, seal_checkpoint, seal_report
from systems import linux, posix
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from s5_mnist import checkpoints, runs
from s5_mnist.checkpoints import load_checkpoint
from s5_mnist.core import (InputError, Int, atomic_write, check, check_output, check_readable, locked, parse_json,
                           printable, shown, user_path, write_csv)
from s5_mnist.data import loaders
from s5_mnist.inference import export_network, predict
from s5_mnist.model import Net
from s5_mnist.preprocessing import preprocess
from s5_mnist.recipes import get_recipe, make_optimizer, parse_changes
from s5_mnist.runs import load_run, train
from s5_mnist.sweeps import read_sweep, sweep
from s5_mnist.training import evaluate, fit


def command(name, *args, **kwargs):
    "Run a command in a process of its own"
    code = f'from s5_mnist.cli import {name}; {name}.main()'
    return subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True, timeout=120,
                          **kwargs)


# --- writing ----------------------------------------------------------------------------------------------------

@pytest.fixture
def occupied(tmp_path):
    "Paths that must not be written to, and what must remain of them"
    (tmp_path/'text.txt').write_text('keep')
    (tmp_path/'link').symlink_to('text.txt')
    (tmp_path/'dangling').symlink_to('nowhere')
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'folder').mkdir()
    yield [tmp_path/n for n in ('text.txt', 'link', 'dangling', 'pipe', 'folder')] + [Path('/dev/null'), Path('/')]
    assert (tmp_path/'text.txt').read_text() == 'keep' and (tmp_path/'link').is_symlink()
    assert (tmp_path/'dangling').is_symlink() and (tmp_path/'pipe').is_fifo() and not (tmp_path/'nowhere').exists()


@posix('pipes, links and devices in the file system')
def test_what_is_there_is_not_replaced(occupied):
    for path in occupied:
        with pytest.raises(InputError, match='exists; name another|must be a file, found a'):
            check_output(path)
        with pytest.raises(InputError, match='exists; name another|must be a file, found a'):
            export_network('pretrained', 'safetensors', path)
        if path.name != 'text.txt':                               # With force, a file may be replaced, nothing else
            with pytest.raises(InputError, match='must be a file, found a'):
                with atomic_write(path):
                    pass
            with pytest.raises(InputError, match='must be a file, found a'):
                export_network('pretrained', 'safetensors', path, force=True)


def test_an_export_is_replaced_only_by_force(tmp_path):
    export_network('pretrained', 'safetensors', tmp_path/'a')
    with pytest.raises(InputError, match='exists; name another file, or use force'):
        export_network('pretrained', 'safetensors', tmp_path/'a')
    export_network('pretrained', 'safetensors', tmp_path/'a', force=True)


@linux('/proc, a folder that nobody can write to')
def test_a_folder_that_cannot_be_written_is_found_before_the_work(monkeypatch, small):
    monkeypatch.setattr('s5_mnist.sweeps.train', lambda *args, **kwargs: pytest.fail('it trained'))
    with pytest.raises(InputError, match='/proc cannot be written'):
        sweep('fast', 1, '/proc/x.csv', small)


def test_a_measurement_is_replaced_only_by_force(tmp_path):
    (tmp_path/'bench.json').write_text('{}')
    done = command('s5_bench', '--data', 'digits', '--out', tmp_path)
    assert done.returncode == 2 and 'bench.json exists; name another file, or use force' in done.stderr


@posix('a file that two threads replace at the same moment')
def test_threads_do_not_share_a_temporary_file(tmp_path):
    def write(text):
        for _ in range(30):
            with atomic_write(tmp_path/'f') as temp:
                temp.write_text(text)
    threads = [threading.Thread(target=write, args=(c*1000,)) for c in 'abc']
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(set((tmp_path/'f').read_text())) == 1 and [p.name for p in tmp_path.iterdir()] == ['f']


def test_a_table_in_use_is_refused(tmp_path, small):
    with locked(tmp_path/'.t.csv.lock', 'the table'):
        with pytest.raises(InputError, match='t.csv is in use by another process'):
            sweep('fast', 1, tmp_path/'t.csv', small, **QUICK)
    assert len(sweep('fast', 1, tmp_path/'t.csv', small, **QUICK)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ['t.csv'] and len(read_sweep(tmp_path/'t.csv')) == 1


def test_two_runs_at_once_take_two_folders(tmp_path, small, monkeypatch):
    "The second starts between the moment at which the first looks for a folder and the moment at which it locks it"
    monkeypatch.chdir(tmp_path)
    found, run = [], runs._locked
    def locked_late(path):
        if not found:
            found.append(path)
            found.append(train('fast', small, **QUICK).path)
        return run(path)
    monkeypatch.setattr(runs, '_locked', locked_late)
    first = train('fast', small, **QUICK).path
    assert [first, found[1]] == [Path('runs/fast-0'), Path('runs/fast-0-2')]


# --- reading ----------------------------------------------------------------------------------------------------

@posix('pipes, links and devices in the file system')
def test_only_files_are_read(occupied):
    for path in occupied[2:]:
        for read in (check_readable, preprocess, load_run, read_sweep, lambda p: checkpoints.read_weights(p),
                     lambda p: load_checkpoint(p, Net(), None, None, None)):
            if read is read_sweep and path.name == 'dangling':
                continue                                          # A table that does not exist is a new one
            with pytest.raises(InputError, match='must be a file, found a|does not exist|must be a table'):
                read(path)


def test_permission_errors_are_named(tmp_path, monkeypatch):
    (tmp_path/'f').write_text('')
    def refuse(*args): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr('s5_mnist.core.open', refuse, raising=False)
    with pytest.raises(InputError, match='may not be read; check its permissions'):
        check_readable(tmp_path/'f')


def test_a_picture_runs_no_program(tmp_path, monkeypatch):
    "PostScript would make Pillow call gs"
    monkeypatch.setattr(subprocess, 'Popen', lambda *args, **kwargs: pytest.fail(f'ran {args}'))
    eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n'
    (tmp_path/'x.png').write_bytes(eps)
    for source in (tmp_path/'x.png', eps, Image.open(tmp_path/'x.png')):
        with pytest.raises(InputError, match='not a picture in a known format'):
            preprocess(source)


@pytest.mark.parametrize('path', ['', b'', 'a\0b', 3, None, pytest.param(
    '~nobody-of-this-name/x', marks=posix('a list of users to find a home in'))])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match='a path must name a file or folder, got'):
        user_path(path)


@posix('the variable HOME')
def test_home(monkeypatch):
    monkeypatch.setenv('HOME', '/home/somebody')
    assert user_path('~/x') == Path('/home/somebody/x')


# --- messages ---------------------------------------------------------------------------------------------------

@settings(max_examples=200, deadline=None)
@given(st.text())
def test_a_message_is_one_line_that_every_terminal_can_show(text):
    message = str(InputError(f'{text}.png does not exist'))
    assert message.isprintable() and len(message) <= 500
    assert printable(text) == text or not text.isprintable()


def test_values_are_shown_briefly():
    assert shown('a'*99) == f"'{'a'*56}..." and shown(10**5000) == 'a value of type int'
    assert shown([torch.zeros(9, 9)]*3) == 'a list' and shown([1, 2]) == '[1, 2]'


@posix('locales that are set by LC_ALL')
@pytest.mark.parametrize('environment', [dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0'),
                                         dict(PYTHONIOENCODING='ascii')])
def test_any_name_can_be_printed_in_any_locale(tmp_path, environment):
    Image.new('L', (40, 40)).save(tmp_path/'é€.png')
    done = command('s5_predict', 'é€.png', 'none\n\x1b[2J.png', cwd=tmp_path, env=os.environ | environment)
    assert done.returncode == 1 and 'Traceback' not in done.stderr and '\x1b' not in done.stderr
    assert len(done.stderr.splitlines()) == 2


@posix('SIGPIPE')
def test_a_reader_that_leaves_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    code = 'from s5_mnist.cli import s5_eval; s5_eval.main(["pretrained", "--data", "digits"])'
    done = subprocess.run([sys.executable, '-c', code], stdout=write, stderr=subprocess.PIPE, timeout=120, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, '')


@posix('preexec_fn, to start a program without stderr')
def test_errors_never_go_to_stdout(tmp_path):
    done = subprocess.run([sys.executable, '-c', 'from s5_mnist.cli import s5_predict; s5_predict.main(["none.png"])'],
                          stdout=subprocess.PIPE, timeout=120, preexec_fn=lambda: os.close(2))
    assert (done.returncode, done.stdout) == (1, b'')


def test_a_wrong_backend_for_plots_does_no_harm(tmp_path):
    done = command('s5_predict', 'none.png', cwd=tmp_path, env=os.environ | dict(MPLBACKEND='wrong'))
    assert done.returncode == 1 and 'none.png does not exist' in done.stderr


@pytest.mark.slow
@posix('SIGTERM')
def test_a_benchmark_that_is_stopped_leaves_nothing(tmp_path):
    code = 'from s5_mnist.cli import s5_bench; s5_bench.main(["--data", "digits", "--out", "out"])'
    process = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
                               env=os.environ | dict(TMPDIR=str(tmp_path)))
    process.stdout.readline()                                     # The first rung has been measured
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128+signal.SIGTERM
    time.sleep(1)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith('pymp-')] == []


# --- declared values --------------------------------------------------------------------------------------------

@settings(max_examples=100, deadline=None)
@given(st.integers(-3, 5))
def test_bounds_are_kept(value):
    if 0 <= value <= 2:
        assert check(value, Int(0, 2), 'x') == value
    else:
        with pytest.raises(InputError, match=f'x must be an integer between 0 and 2, got {value}'):
            check(value, Int(0, 2), 'x')


def test_numbers_of_numpy_are_numbers():
    assert get_recipe('s5', lr=np.float64(.1)).lr == .1


@pytest.mark.parametrize('text', ['['*9999, '{"a":'*9999, '{"a": '+'9'*9999+'}', '{', '"x"', '[1]', '\ud800'])
def test_hostile_json_is_refused(text):
    with pytest.raises(InputError, match='^file (is damaged: |must be an object, got )'):
        parse_json(text.encode('utf-8', 'surrogatepass').decode('utf-8', 'replace'), dict, 'file')


def test_a_changed_report_that_was_sealed_again_is_refused_or_harmless(run_copy):
    run = load_run(run_copy, 'cpu')
    good, refused = dict(run.report), 0
    for path in places(good):
        for new in (*ODD, ...):
            seal_report(run_copy, run.net, changed(good, path, new))
            try: load_run(run_copy, 'cpu')
            except InputError: refused += 1
    assert refused > 500
    seal_report(run_copy, run.net, good)
    assert load_run(run_copy, 'cpu').report == good


@pytest.fixture(scope='module')
def partway(small, tmp_path_factory):
    "A checkpoint in the middle of the second epoch, and what it belongs to"
    recipe, path = get_recipe('fast', epochs=2, bs=16), tmp_path_factory.mktemp('partway')/'last.ckpt'
    def parts():
        g = torch.Generator().manual_seed(0)
        net, dls = Net(), loaders(small, 16, generator=g)
        return net, *make_optimizer(net, recipe, len(dls.train)), g, dls
    net, opt, sched, g, dls = parts()
    class Enough(Exception): pass
    def stop(hist):
        if hist.rows and hist.state and hist.state.step == 3:
            checkpoints.save_checkpoint(path, net, opt, sched, g, hist, dls.train)
            raise Enough
    with pytest.raises(Enough):
        fit(net, dls.train, dls.test, opt, sched, 2, True, stop)
    return path, parts


def test_a_changed_position_that_was_sealed_again_is_refused(partway, tmp_path):
    path, parts = partway
    net, opt, sched, g, dls = parts()
    content = checkpoint_content(path)
    load_checkpoint(path, net, opt, sched, g, dls.train)
    plain = {k: v for k, v in content.items() if k in ('history', 'held_out', 'state')}
    for at in places(plain):
        for new in (*ODD, ...):
            value = plain
            for k in at: value = value[k]
            if type(new) is type(value) and new == value or at[-1] in ('started', 'seconds', 'lr') or at[0] == 'history':
                continue                                          # The same, or a record that changes no result
            if at == ('state',) and new is None:
                continue                                          # At the end of an epoch: another true state
            rest = {k: v for k, v in content.items() if k not in plain}
            seal_checkpoint(tmp_path/'bad', rest | changed(plain, at, new))
            with pytest.raises(InputError, match='bad'):
                load_checkpoint(tmp_path/'bad', net, opt, sched, g, dls.train)
    for order in (content['state']['order'][:-1], content['state']['order']*0):
        seal_checkpoint(tmp_path/'bad', content | {'state': content['state'] | {'order': order}})
        with pytest.raises(InputError, match='its position in the epoch is impossible'):
            load_checkpoint(tmp_path/'bad', net, opt, sched, g, dls.train)


def test_a_checkpoint_of_a_validated_run_is_not_continued_on_the_test_set(small, tmp_path):
    train('fast', small, tmp_path/'run', epochs=2, **QUICK)
    (tmp_path/'run/report.json').unlink()
    content = checkpoint_content(tmp_path/'run/last.ckpt')
    seal_checkpoint(tmp_path/'run/last.ckpt', content | dict(held_out='validation'))
    with pytest.raises(InputError, match="row 1 must be about the validation set"):
        runs.resume(tmp_path/'run', small)


# --- networks, optimisers, schedules ----------------------------------------------------------------------------

def test_what_does_not_belong_together_is_refused(small):
    net, other, dls = Net(), Net(), loaders(small)
    opt = SGD(net.parameters(), .01)
    frozen = Net().requires_grad_(False)
    for args, message in (
            ((net, SGD(other.parameters(), .01), None), 'opt must hold trainable parameters of net'),
            ((frozen, SGD(frozen.parameters(), .01), None), 'opt must hold trainable parameters of net'),
            ((net, opt, StepLR(SGD(other.parameters(), .01), 1)), 'sched must be a scheduler of opt'),
            ((net, opt, ReduceLROnPlateau(opt)), 'sched must be a learning rate scheduler without a metric')):
        with pytest.raises(InputError, match=message):
            fit(args[0], dls.train, None, *args[1:], epochs=1)


@pytest.mark.parametrize('outputs', [1, 5, 11])
def test_a_network_for_other_than_ten_classes_is_refused(small, outputs):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, outputs))
    for call in (lambda: evaluate(net, loaders(small).test), lambda: predict(small.test_x[0], net),
                 lambda: fit(net, loaders(small).train, None, SGD(net.parameters(), .01), epochs=1)):
        with pytest.raises(InputError, match=rf'net must return logits \[\d+, 10\], found \[\d+, {outputs}\]'):
            call()


def test_networks_without_numbers_are_refused(small):
    with pytest.raises(InputError, match='net must have parameters, found none'):
        evaluate(torch.nn.Flatten(), loaders(small).test)
    bad = Net().eval()
    torch.nn.init.constant_(bad.fc2.bias, float('nan'))
    with pytest.raises(InputError, match='net must return finite logits'):
        predict(small.test_x[0], bad)


def test_a_network_in_half_precision_predicts(small):
    net = Net().eval()
    assert predict(small.test_x[0], net.bfloat16()).digit == predict(small.test_x[0], net.float()).digit


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_images_of_another_precision_are_refused(dtype):
    net, batch = Net(), (torch.zeros(2, 1, 28, 28, dtype=dtype), torch.tensor([1, 2]))
    for call in (lambda: fit(net, [batch], None, SGD(net.parameters(), .01), epochs=1), lambda: evaluate(net, [batch])):
        with pytest.raises(InputError, match=r'images must be float32 .* use x.to\(torch.float32\)'):
            call()


def test_data_that_are_none_are_named_briefly(small):
    with pytest.raises(InputError, match='^data must be one of auto, mnist, digits, got a tuple$'):
        train('fast', tuple(small))


# --- kept sweeps, files edited by hand, long names --------------------------------------------------------------

def test_a_kept_sweep_continues_its_runs(small, tmp_path, monkeypatch):
    "One finished, one stopped in its first epoch, and a table that was lost"
    rows = sweep('fast', 2, tmp_path/'t.csv', small, keep=tmp_path/'kept', **QUICK)
    (tmp_path/'t.csv').unlink()
    stopped = tmp_path/'kept'/'fast-1'
    for name in ('report.json', 'model.safetensors', 'history.csv', 'last.ckpt'):
        (stopped/name).unlink()
    again = sweep('fast', 2, tmp_path/'t.csv', small, keep=tmp_path/'kept', **QUICK)
    same = [k for k in rows[0] if k != 'seconds']
    assert [[r[k] for k in same] for r in again] == [[r[k] for k in same] for r in rows]
    (tmp_path/'t.csv').unlink()
    with pytest.raises(InputError, match='holds a run of another recipe or other data'):
        sweep('fast', 1, tmp_path/'t.csv', small, keep=tmp_path/'kept', bs=32, **QUICK)


def test_a_seed_is_not_a_change(small, tmp_path):
    with pytest.raises(InputError, match='seed cannot be changed'):
        sweep('fast', 1, tmp_path/'t.csv', small, seed=7)
    with pytest.raises(InputError, match='bs is changed twice'):
        parse_changes('bs=1,bs=2')


@pytest.mark.parametrize('change', [dict(test_correct='0', test_n='0', first_half='0', second_half='0'), dict(seed='0.0'),
                                    dict(test_n='100.0'), dict(validation_n='100', validation_correct='5'),
                                    dict(recipe='a b')])
def test_rows_edited_by_hand_are_refused(small, tmp_path, change):
    row, = sweep('fast', 1, tmp_path/'t.csv', small, **QUICK)
    write_csv(tmp_path/'t.csv', [row | change])
    with pytest.raises(InputError, match='t.csv: row 1'):
        read_sweep(tmp_path/'t.csv')
    write_csv(tmp_path/'t.csv', [row, row])
    with pytest.raises(InputError, match='must hold each seed once'):
        read_sweep(tmp_path/'t.csv')


@posix('names of up to 255 characters in any folder')
def test_names_that_are_too_long_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (lambda n: export_network('pretrained', 'safetensors', n), runs.resume, read_sweep, load_run,
                 lambda n: train('fast', 'digits', out=n)):
        with pytest.raises(InputError, match='cannot be a path'):
            call('b'*300)
    with pytest.raises(InputError, match='name must be a single word of at most 60'):
        get_recipe('fast', name='a'*3000)
    export_network('pretrained', 'safetensors', 'b'*250)
    assert [p.name for p in tmp_path.iterdir()] == ['b'*250]


def test_a_resealed_training_is_refused_whatever_was_changed(partway, tmp_path):
    path, parts = partway
    net, opt, sched, g, dls = parts()
    good = checkpoint_content(path)
    def other(**changes): return good | changes
    weights, row = good['net'], good['history'][0]
    state = good['opt']['state']
    first = next(iter(state))
    bad = [other(net=weights | {'conv1.weight': v}) for v in (
               5, weights['conv1.weight'].to_sparse(), weights['conv1.weight'].to('meta'),
               weights['conv1.weight'].to(torch.complex64))]
    bad += [other(net=weights | {3: torch.zeros(1)}),
            other(history=[row | {'train_n': 0}]), other(history=[row | {'test_correct': 10**6}]),
            other(history=[{k: v for k, v in row.items() if k != 'test_n'}]), other(history=[row, row]),
            other(held_out='validation'),
            other(opt=good['opt'] | {'state': state | {first: {'momentum': torch.zeros(3)}}}),
            other(opt=good['opt'] | {'state': state | {first: {'momentum': state[first]['momentum']*float('nan')}}}),
            other(opt=good['opt'] | {'param_groups': [h | {'lr': -5} for h in good['opt']['param_groups']]}),
            other(sched={'step': 5, 'get_lr': 5})]
    for content in bad:
        seal_checkpoint(tmp_path/'bad', content)
        with pytest.raises(InputError, match='bad'):
            load_checkpoint(tmp_path/'bad', net, opt, sched, g, dls.train)


def test_a_run_whose_files_were_edited_is_refused(run_copy):
    config = (run_copy/'config.json').read_text()
    (run_copy/'config.json').write_text(config.replace('"recipe": {', '"recipe": {"recipe": "fast",'))
    with pytest.raises(InputError, match="config.json: a field must be one of .*, got 'recipe'"):
        load_run(run_copy)
    (run_copy/'config.json').write_text(config)
    lines = (run_copy/'history.csv').read_text().splitlines()
    head = lines[0].split(',')
    for column, value in (('test_correct', '1'), ('test_n', '0'), ('epoch', '7')):
        cells = lines[-1].split(',')
        cells[head.index(column)] = value
        (run_copy/'history.csv').write_text('\n'.join([*lines[:-1], ','.join(cells)]))
        with pytest.raises(InputError, match='history.csv'):
            load_run(run_copy)
    (run_copy/'history.csv').write_text('\n'.join([*lines[:-1], lines[-1].rpartition(',')[0]]))
    with pytest.raises(InputError, match='must have as many cells as the first line'):
        load_run(run_copy)


def test_arguments_of_other_types_are_refused(tmp_path):
    entry = next(os.scandir(os.fsencode(tmp_path.parent)))             # Its path is of type bytes
    for call in (lambda: train('fast', device=None), lambda: train('fast', disable=None),
                 lambda: train('fast', deterministic='no'), lambda: parse_changes(None),
                 lambda: get_recipe('best', epochs=10**400), lambda: preprocess(entry)):
        with pytest.raises(InputError, match='must'):
            call()
    net = torch.nn.BatchNorm1d(3)
    checkpoints.save_weights(net, tmp_path/'x', {'a': 1})             # It holds a tensor without dimensions
    assert checkpoints.read_weights(tmp_path/'x')[1] == {'a': 1}
