import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def corner():
    def masks(sizes, h, w):
        """[b, h, w, 1] bool: content of the sizes given, at the top left."""
        mask = np.zeros((len(sizes), h, w, 1), bool)
        for m, (rows, columns) in zip(mask, sizes, strict=True):
            m[:rows, :columns] = True
        return mask

    return masks
