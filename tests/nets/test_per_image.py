"""Products with kernels as convolutions, on one device and on several."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.per_image import convolve_each, convolve_pointwise

# In a process of its own: JAX chooses its devices once.
ON_TWO_DEVICES = """
import re
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from mscaflax.nets.per_image import convolve_each
from mscaflax.training.sharding import batch_sharding, make_mesh

mesh = make_mesh()
rng = np.random.default_rng(0)
arrays = [rng.normal(0, 1, shape).astype(np.float32) for shape in ((4, 3, 2, 5), (4, 5, 6), (4, 3, 2, 6))]

def gradients(x, kernels, weights):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.grad(lambda *some: (weights * convolve_each(*some)).sum(), argnums=(0, 1))(x, kernels)

split = batch_sharding(mesh)
program = jax.jit(gradients, in_shardings=split, out_shardings=split).lower(*arrays).compile()
x, kernels, weights = arrays
for found, expected in zip(
    program(*jax.device_put(arrays, split)),
    (np.einsum("bhwc,bjc->bhwj", weights, kernels), np.einsum("bhwj,bhwc->bjc", x, weights)),
    strict=True,
):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
# Whether an array has all four images, along any axis, and whether the devices speak to each other.
text = program.as_text()
sides = {side for shape in re.findall(r"f32\\[([\\d,]+)\\]", text) for side in shape.split(",")}
print(mesh.size, "4" in sides, "all-" in text, "collective-" in text)
"""


def test_a_pointwise_convolution_is_a_product(rng):
    x, kernel = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((2, 3, 4, 5), (5, 6)))
    np.testing.assert_allclose(convolve_pointwise(x, kernel), x @ kernel, rtol=1e-5, atol=1e-5)


def test_each_image_meets_its_own_kernel(rng):
    x, kernels, weights = (
        rng.normal(0, 1, shape).astype(np.float32) for shape in ((4, 3, 2, 5), (4, 5, 6), (4, 3, 2, 6))
    )

    def values_and_gradients(product):
        return jax.value_and_grad(lambda *some: (weights * product(*some)).sum(), argnums=(0, 1))(x, kernels)

    both = map(values_and_gradients, (convolve_each, lambda x, k: jnp.einsum("bhwj,bjc->bhwc", x, k)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *both)


@pytest.mark.slow
def test_on_several_devices_each_masks_its_own_images_alone():
    """Else the arithmetic would grow with the square of the batch, or kernels would go around."""
    done = subprocess.run([sys.executable, "-c", ON_TWO_DEVICES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "False", "False", "False"]
