"""Marks for tests that only some systems can run. Each says what the others lack, and a skipped test shows it."""
import os
import sys

import pytest


def posix(what): return pytest.mark.skipif(os.name == 'nt', reason=f'needs POSIX: {what}')
def linux(what): return pytest.mark.skipif(sys.platform != 'linux', reason=f'needs Linux: {what}')
