"""Run by torchrun, from test_speed.py: `ranks.py OUT [die]` trains in several processes and writes what came of it.

151 images in batches of 30 leave a last batch of one, so that with two processes one has no share of it. At the end no
thread of the group may be left: one that lets go of a tensor while Python ends brings the process down (SIGABRT)."""
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from s5_mnist.data import Batches, Share, generate_digits
from s5_mnist.model import Net, init_weights
from s5_mnist.training import evaluate, process_group, train_epoch


class Curve:
    "Hands on the batches of a loader one at a time, as a loader each"
    def __init__(self, dl, rank, world):
        self.dl, self.rank, self.world = dl, rank, world

    def __iter__(self):
        for batch in self.dl:
            yield Share([batch], self.rank, self.world) if self.world > 1 else [batch]


def main(out, die=False):
    with process_group('cpu'):
        alone = not torch.distributed.is_initialized()
        rank, world = (0, 1) if alone else (torch.distributed.get_rank(), torch.distributed.get_world_size())
        x, y = generate_digits(151, seed=1)
        net = init_weights(Net(), 'orthogonal', torch.Generator().manual_seed(0))
        both = net if alone else DistributedDataParallel(net)
        opt = SGD(net.parameters(), lr=0.02, momentum=0.9)
        dl = Batches(x, y, 30, True, generator=torch.Generator().manual_seed(0))
        losses = []
        for i, part in enumerate(Curve(dl, rank, world)):
            if die and i == 2 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            loss, correct, n = train_epoch(both, part, opt)
            losses.append([loss, correct, n])
        test = Batches(*generate_digits(31, seed=2), bs=10)
        score = evaluate(both, test if alone else Share(test, rank, world))
        if rank == 0:
            with open(out, 'w') as f:
                json.dump(dict(losses=losses, world=world, correct=score.correct, n=score.n, loss=score.loss,
                               wrong=score.wrong.tolist(), confusion=score.confusion.tolist(),
                               weights=[p.sum().item() for p in net.parameters()]), f)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(sys.argv[1], len(sys.argv) > 2)
    threads = [t.read_text().strip() for t in Path('/proc/self/task').glob('*/comm')] # Linux alone has them
    assert not any('gloo' in t for t in threads), threads
