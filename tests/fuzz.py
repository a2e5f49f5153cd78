"""Hostile input in bulk: python tests/fuzz.py --cases 100000

Damages valid files and command lines at random, and passes them to everything that parses. Each case must end in a
result or in an ValueError (for command lines, a message and a status), within a second and within a gigabyte of memory.
Prints one line per parser, and each failure with the name that repeats it; exits with status 1 if there was one."""
import argparse
import collections
import contextlib
import hashlib
import io
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image, ImageDraw
from pydantic import TypeAdapter
from safetensors.torch import save_file
from sealing import ODD, changed, checkpoint_content, places, seal_checkpoint, seal_report

from s5_mnist import checkpoints, cli, core, data, inference, runs, sweeps

from s5_mnist.model import Net
from s5_mnist.preprocessing import preprocess
from s5_mnist.recipes import Recipe, get_recipe, make_optimizer, parse_changes

SECONDS, BYTES = 1., 1e9
WORDS = [b'\0', b'\xff', b'nan', b'-1', b'1e999', b'{', b'}', b'"', b',', b'\n', b'NaN', b'Infinity', b'null', b'[]',
         b'0x', b'9'*30, b'\xf0\x9f\x98\x80', b'../', b'PK\x03\x04', b'\x80\x04', b'cos\nsystem\n', b'true',
         b'\0\0\x08\x03', b'-0']


def damaged(raw, chance):
    "Bytes with one or more faults"
    raw = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        n = len(raw)
        i, j = sorted(chance.randint(0, n) for _ in range(2))
        how = chance.randrange(8)
        if how == 0 and n: raw[min(i, n-1)] ^= 1 << chance.randrange(8)
        elif how == 1: del raw[i:]
        elif how == 2: del raw[i:min(j, i+chance.choice((1, 8, 1000)))]
        elif how == 3: raw[i:i] = chance.choice(WORDS)
        elif how == 4: raw[i:i+4] = chance.randbytes(4)
        elif how == 5: raw[i:i] = raw[i:min(j, i+500)]
        elif how == 6 and n: raw[i:min(i+8, n)] = chance.choice((b'\0', b'\xff'))*8
        else: raw[i:i+chance.randrange(1, 30)] = chance.choice(WORDS)
    return bytes(raw)


class Parsers:
    "Each method makes one case from a source of randomness, and tries it"
    def __init__(self, folder):
        self.folder, self.quiet = Path(folder), io.StringIO()
        self.small = data.generated_data(60, 20)
        with contextlib.redirect_stdout(self.quiet):
            with mock.patch.object(runs, '_save_run', lambda run: run):
                runs.train('fast', self.small, self.folder/'stopped', device='cpu', precision='float32', bs=20)
            self.run = runs.train('fast', self.small, self.folder/'run', device='cpu', precision='float32', bs=20)
        self.files = {p.name: p.read_bytes() for p in self.run.path.iterdir() if p.suffix in ('.json', '.csv')}
        self.weights = (self.run.path/'model.safetensors').read_bytes()
        self.partway = self._partway()
        self.checkpoint = (self.folder/'stopped'/'last.ckpt').read_bytes()
        save_file({k: v[:1].clone() for k, v in Net().state_dict().items()}, self.folder/'short')
        self.short = (self.folder/'short').read_bytes()
        self.net = Net().eval()
        self.idx = bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5])+bytes(60)
        self.pictures = self._pictures()
        core.write_csv(self.folder/'rows.csv', [sweeps._sweep_row(self.run, self.small, None)])
        self.rows = (self.folder/'rows.csv').read_bytes()

    def _partway(self):
        "The content of a checkpoint in the middle of an epoch"
        saved, path = runs._SavingHook.save, self.folder/'partway'
        def save_and_keep(hook, hist):
            saved(hook, hist)
            if hist.state and hist.rows: shutil.copy(hook.path/'last.ckpt', path)
        with contextlib.redirect_stdout(self.quiet), mock.patch.object(runs._SavingHook, 'save', save_and_keep):
            runs.train('fast', self.small, self.folder/'two', device='cpu', precision='float32', bs=20, epochs=2,
                       save_interval_s=0)
        return checkpoint_content(path)

    def _pictures(self):
        im = Image.new('RGB', (40, 32), 'white')
        ImageDraw.Draw(im).line([(10, 5), (28, 5), (14, 28)], fill='navy', width=4)
        files = []
        for kind in ('png', 'jpeg', 'bmp', 'gif', 'tiff', 'webp', 'ppm'):
            f = io.BytesIO()
            im.save(f, kind)
            files.append(f.getvalue())
        return files

    def idx_file(self, chance):
        data.parse_idx(damaged(self.idx, chance))

    def picture(self, chance):
        preprocess(damaged(chance.choice(self.pictures), chance))

    def array(self, chance):
        n = chance.choice((0, 1, 2, 2, 2, 3, 4))
        side = (0, 1, 3, 4, 5, 28) if n > 2 or chance.random() < .3 else (28, 40, 100)
        shape = [chance.choice(side) for _ in range(n)]
        if len(shape) == 3 and chance.random() < .7: shape[chance.choice((0, 2))] = chance.choice((1, 3, 4))
        kind = chance.choice((bool, np.uint8, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64,
                              complex, 'U1', object))
        rng = np.random.default_rng(chance.randrange(2**32))
        values = rng.normal(chance.choice((0, .5, 128)), chance.choice((0, 1, 60)), shape)
        if values.ndim > 1 and chance.random() < .5: values[..., 2:-2, 3:5] *= 3 # Like a stroke
        with warnings.catch_warnings(), np.errstate(all='ignore'):
            warnings.simplefilter('ignore')
            values = np.asarray(values).astype(kind)
            if chance.random() < .1 and values.size and values.dtype.kind == 'f':
                values.flat[0] = chance.choice((np.nan, np.inf, -np.inf, 1e30))
            if chance.random() < .3 and values.dtype.kind in 'buif': values = torch.from_numpy(values.copy())
            preprocess(values)

    def weights_file(self, chance):
        path = self.folder/'w.safetensors'
        path.write_bytes(damaged(chance.choice((self.weights[:4000], self.short, self.weights)), chance))
        net = checkpoints.load_weights(Net(), path)
        assert all(a.equal(b) for a, b in zip(net.parameters(), self.run.net.parameters())), 'other weights'

    def checkpoint_file(self, chance):
        raw = self.checkpoint
        if chance.random() < .5: raw = damaged(raw, chance)
        else:                                                     # Sealed again, as an attacker would
            inner = damaged(raw.partition(b'\n')[2], chance)
            head = f'{checkpoints._HEADER}{checkpoints._FORMAT} {hashlib.sha256(inner).hexdigest()}\n'
            raw = head.encode()+inner
        path = self.folder/'c.ckpt'
        path.write_bytes(raw)
        net, g = Net(), torch.Generator()
        opt, sched = make_optimizer(net, self.run.recipe, 2)
        checkpoints.load_checkpoint(path, net, opt, sched, g, data.loaders(self.small).train)

    def run_folder(self, chance):
        name = chance.choice(sorted(self.files))
        path = self.folder/'run'/name
        path.write_bytes(damaged(self.files[name], chance))
        try: runs.load_run(self.folder/'run', 'cpu')
        finally: path.write_bytes(self.files[name])

    def sealed_report(self, chance):
        "Weights and report that agree, with one impossible entry; what is loaded must be the run's own"
        folder = self.folder/'sealed'
        if not folder.exists(): shutil.copytree(self.folder/'run', folder)
        at = chance.choice(list(places(self.run.report)))
        report = changed(self.run.report, at, chance.choice((*ODD, ...)))
        seal_report(folder, self.run.net, report)
        assert runs.load_run(folder, 'cpu').report == report

    def sealed_checkpoint(self, chance):
        "A position within an epoch, changed and sealed again; if it is accepted, nothing that counts was changed"
        path, net, g = self.folder/'s.ckpt', Net(), torch.Generator()
        opt, sched = make_optimizer(net, self.run.recipe, 2)
        dl = data.loaders(self.small, self.run.recipe.bs, subset_frac=self.run.recipe.subset_frac).train
        keys = ('held_out', 'state', 'history')
        plain = {k: v for k, v in self.partway.items() if k in keys}
        at, new = chance.choice(list(places(plain))), chance.choice((*ODD, ...))
        rest = {k: v for k, v in self.partway.items() if k not in keys}
        seal_checkpoint(path, rest | changed(plain, at, new))
        hist = checkpoints.load_checkpoint(path, net, opt, sched, g, dl)
        harmless = at[-1] in ('started', 'seconds', 'lr') or at == ('state',) and new is None
        assert harmless or hist.state.step == self.partway['state']['step'], f'{at} = {new!r} was accepted'

    def declared(self, chance):
        "A field of a recipe, at its bounds and beyond; only what is declared may be accepted"
        name = chance.choice(list(Recipe.__annotations__))
        schema = TypeAdapter(Recipe.__annotations__[name]).json_schema()
        low, high = (schema.get(k) for k in ('minimum', 'maximum'))
        values = [*ODD, *schema.get('enum', ()), 's5']
        if low is not None:
            step = 1 if schema['type'] == 'integer' else abs(low)/9 or 1e-9
            values += [low, high, low-step, high+step*9, str(low), np.float64(low)]
        value = chance.choice(values)
        recipe = get_recipe('s5', **{name: value})
        assert getattr(recipe, name) == value and not (low is not None and not low <= value <= high)

    def names(self, chance):
        "Names of files that a terminal should not see, given to everything that reads"
        name = ''.join(chance.choice(('a', '\n', '\x1b[2J', '\r', '\udcff', 'é', '\u202e', '~', '/', '\0', '\t', '..'))
                       for _ in range(chance.randrange(300 if chance.random() < .1 else 8)))
        read = chance.choice((preprocess, checkpoints.read_weights, checkpoints.load_history, core.read_json,
                              sweeps.read_sweep, core.check_output, lambda p: runs.load_run(p, 'cpu'), runs.resume))
        try: read(f'{self.folder}/no/{name}' if chance.random() < .5 else name)
        except ValueError as e:
            assert str(e).isprintable() and len(str(e)) <= 500, 'a message that a terminal cannot show'
            raise

    def sweep_file(self, chance):
        path = self.folder/'r.csv'
        path.write_bytes(damaged(self.rows, chance))
        rows = sweeps.read_sweep(path)
        if rows: sweeps.sweep_line(rows)

    def changes(self, chance):
        text = ','.join(f'{chance.choice(("bs", "lr", "epochs", "x", "", "nesterov", "mild_aug_epochs", "augment"))}'
                        f'{chance.choice(("=", "", "=="))}'
                        f'{chance.choice(("1", "-1", "nan", "1e9", "True", "elastic", "", "0x1", "9"*40, "é"))}'
                        for _ in range(chance.randrange(4)))
        get_recipe(chance.choice(('fast', 'best', 's5', 'none')), **parse_changes(text))

    def command_line(self, chance):
        options = ('--recipe', '--data', '--epochs', '--bs', '--lr', '--seed', '--n-valid', '--device', '--precision',
                   '--disable', '--out', '--resume', '--save-interval-s', '--run', '--json', '--format', '--half',
                   '--tta', '--deterministic', '--change', '--x', '-h', '--version')
        values = ('fast', 'best', '0', '-1', '3', 'nan', 'inf', '1e400', '', ' ', 'cpu', 'tpu', 'cuda:99', 'bf16',
                  'digits', '\udcff', '/dev/null', '/no/such', '9'*30, str(self.folder/'run'), 'pretrained',
                  'fused,warp', "'; ls", '\n')
        argv = [chance.choice(options if chance.random() < .6 else values) for _ in range(chance.randrange(6))]
        command = chance.choice((cli.s5_train, cli.s5_eval, cli.s5_predict, cli.s5_export))
        with mock.patch.object(runs, '_run_training', lambda *args: self.run), \
                mock.patch.object(runs, 'load_data', lambda *args: self.small), \
                mock.patch.object(data, 'load_data', lambda *args: self.small), \
                mock.patch.object(inference, 'export_onnx', lambda *args: None), \
                mock.patch.object(inference, 'save_weights', lambda *args: None), \
                mock.patch.object(Path, 'stat', lambda self, **kwargs: os.stat('/')), \
                contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
            try: command.main(argv)
            except SystemExit as e:
                assert e.code in (None, 0, 1, 2), f'exit status {e.code}'
                assert e.code in (None, 0) or err.getvalue().strip(), 'an error without a message'
                if e.code: raise ValueError('refused') from None


SHARES = dict(idx_file=.2, changes=.1, declared=.15, names=.1, sweep_file=.08, run_folder=.07, weights_file=.05,
              checkpoint_file=.05, sealed_checkpoint=.03, sealed_report=.05, array=.05, picture=.05, command_line=.02)


def main(cases, seed, only=None):
    "Try so many cases; print how many of each parser were refused, and return the failures"
    torch.set_num_threads(1)
    tried, refused, slowest, failures = (collections.Counter() for _ in range(4))
    where = tempfile.mkdtemp()
    try:
        parsers, memory = Parsers(where), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, share in SHARES.items():
            if only and name != only: continue
            for i in range(round(cases*share)):
                case = f'{name} {seed} {i}'
                began = time.perf_counter()
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter('ignore')
                        getattr(parsers, name)(random.Random(case))
                except ValueError: refused[name] += 1
                except (Exception, SystemExit) as e:
                    last = traceback.extract_tb(e.__traceback__)[-1]
                    at = f'{Path(last.filename).name}:{last.lineno}, as case {case!r}'
                    failures[f'{name}: {type(e).__name__} {str(e)[:80]} at {at}' if failures[name] < 20
                             else f'{name}: more'] += 1
                    failures[name] += 1
                took, tried[name] = time.perf_counter()-began, tried[name]+1
                slowest[name] = max(slowest[name], took)
                if took > SECONDS: failures[f'{name}: {took:.1f} s, as case {case!r}'] += 1
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            grown = (1 if sys.platform == 'darwin' else 1024)*(peak-memory)
            if grown > BYTES: failures[f'{name}: memory has grown by {grown/1e9:.1f} GB'] += 1
    finally:
        shutil.rmtree(where)
    for name in tried:
        print(f'{name:16}{tried[name]:8,} cases, {refused[name]:8,} refused by name; '
              f'the slowest took {slowest[name]:.2f} s')
    for name in SHARES: failures.pop(name, None)
    print(f'{sum(tried.values()):,} cases; {len(failures)} failures; memory grew by {grown/1e6:.0f} MB')
    for f in failures: print(' ', f)
    return failures


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--cases', type=int, default=100_000)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--only', choices=SHARES)
    args = p.parse_args()
    sys.exit(bool(main(args.cases, args.seed, args.only)))
