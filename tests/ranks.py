"""Run by torchrun, from test_distributed.py: `ranks.py OUT [die]` trains in several processes and writes the results.

151 images in batches of 30 leave a last batch of one image, so that all processes but one have no share of it. At the
end no thread of the process group may be left: if it releases a tensor while Python shuts down, the process aborts."""
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from s5_mnist.data import Batches
from s5_mnist.digits import generate_digits
from s5_mnist.distributed import ShardedBatches, process_group, rank, world_size
from s5_mnist.model import Net, init_weights
from s5_mnist.training import evaluate, train_epoch


def shard(dl):
    "The share of this process, if there are several"
    return ShardedBatches(dl, rank(), world_size()) if world_size() > 1 else dl


def main(out, die=False):
    with process_group('cpu'):
        x, y = generate_digits(151, seed=1)
        net = init_weights(Net(), 'orthogonal', torch.Generator().manual_seed(0))
        both = DistributedDataParallel(net) if world_size() > 1 else net
        opt = SGD(net.parameters(), lr=0.02, momentum=0.9)
        losses = []
        for i, batch in enumerate(Batches(x, y, 30, True, generator=torch.Generator().manual_seed(0))):
            if die and i == 2 and rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            losses.append(train_epoch(both, shard([batch]), opt))
        score = evaluate(both, shard(Batches(*generate_digits(31, seed=2), bs=10)))
        if rank() == 0:
            with open(out, 'w') as f:
                json.dump(dict(losses=losses, world=world_size(), correct=score.correct, n=score.n, loss=score.loss,
                               wrong=score.wrong.tolist(), confusion=score.confusion.tolist(),
                               weights=[p.sum().item() for p in net.parameters()]), f)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(sys.argv[1], len(sys.argv) > 2)
    threads = [t.read_text().strip() for t in Path('/proc/self/task').glob('*/comm')] # Only on Linux
    assert not any('gloo' in t for t in threads), threads
