"""The walkthrough, every cell of it, on a small set."""
import shutil

from conftest import ROOT
from execnb.nbio import read_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from notebooks import figures, source, text

from s5_mnist import data as data_module
from s5_mnist.data import generated_data


def test_whole_walkthrough(monkeypatch, tmp_path):
    shutil.copytree(ROOT/'nbs'/'runs', tmp_path/'runs')
    small = generated_data(1500, 400)
    monkeypatch.setattr(data_module, 'load_mnist', lambda root=None: small)
    nb, shell, printed, shown = read_nb(ROOT/'nbs'/'S5.ipynb'), CaptureShell(), '', 0
    with working_directory(tmp_path):
        for i, cell in enumerate(nb.cells):
            if cell.cell_type != 'code':
                continue
            cell.source = source(cell).replace('epochs, seed = 20, 0', 'epochs, seed = 3, 1').replace('bs=512', 'bs=20')
            cell.outputs = []
            shell.cell(cell)
            outputs = cell.outputs
            assert not shell.exc, f'cell {i}: {cell.source}\n{shell.exc}'
            printed, shown = printed+text(outputs), shown+len(figures(outputs))
    ns = shell.user_ns
    assert ns['data'] is small and len(ns['hist'].rows) == 3
    assert ns['score'].n == 400 and ns['own'].n == 1500
    assert f'2. TEST: held-out images                   {ns["score"].correct:6} / 400' in printed
    assert f'augmented training set {ns["own"].correct:6} / 1500' in printed.replace("3. the assignment's: ", '')
    assert f'{small.name}: 1,500 training images, 400 test images' in printed
    assert ns['score'].accuracy > 80 and shown >= 2
    assert (tmp_path/'runs'/'walkthrough'/'last.ckpt').exists()
