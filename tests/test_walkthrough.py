"""The walkthrough, every cell of it, in Jupyter, on a small set."""
import shutil

import pytest
from conftest import ROOT
from notebooks import Jupyter, cells, source


@pytest.mark.slow
def test_the_whole_walkthrough(tmp_path):
    "It ends with the network that s5_train would have trained, bit for bit"
    shutil.copytree(ROOT/'nbs'/'runs', tmp_path/'runs', ignore=shutil.ignore_patterns('walkthrough'))
    (tmp_path/'site').mkdir()
    shutil.copy(ROOT/'nbs'/'site'/'figures.mplstyle', tmp_path/'site')
    with Jupyter(tmp_path) as jupyter:
        jupyter('import s5_mnist as s5\nfew_digits = s5.generated_data(1500, 400)\ns5.load_mnist = lambda root: few_digits')
        for cell in cells(ROOT/'nbs'/'S5.ipynb'):
            if cell['cell_type'] == 'code':
                jupyter(source(cell).replace('epochs, seed = 20, 0', 'epochs, seed = 3, 1').replace('bs=512', 'bs=20'))
        assert jupyter.value('data is few_digits and len(hist.rows)') == 3
        assert jupyter.value('score.n, own.n, score.correct == hist.rows[-1]["test_correct"]') == (400, 1500, True)
        assert jupyter.value('score.correct > .8*400')
        jupyter('run = s5.train("s5", few_digits, "again", precision=precision, disable="fused", epochs=3, bs=20, seed=1)\n'
                'saved = s5.load_weights(s5.Net(), path)')
        assert jupyter.value('run.history.train_losses == hist.train_losses')
        assert jupyter.value('all(a.equal(b) for a, b in zip(run.net.parameters(), saved.parameters()))')
