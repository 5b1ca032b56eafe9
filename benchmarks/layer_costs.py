"""Layers that were shaped for TPUs against their plain forms, here: python benchmarks/layer_costs.py

Forward and backward, one thread, the best of 15 turns each, by turns; below 1 the layer in use is faster.
"""

import os

# Before JAX is imported: threads of other work would decide on the ratios.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()

import time

import jax
import jax.numpy as jnp

from mscaflax.nets.layers import upsample
from mscaflax.nets.spade import _joint_product

BATCH, TURNS = 8, 15
UPSAMPLINGS = ((4, 128), (8, 64), (16, 32), (32, 16))
MODULATIONS = ((64, 16, 16, 16), (32, 24, 16, 32), (8, 48, 16, 128))


def shifted_upsampling(x):
    everything = jnp.ones((*x.shape[:3], 1), bool)
    return upsample(x, everything)


def two_products(assignment, values, labels, kernel):
    return jnp.einsum("bhwm,mn->bhwn", labels, kernel) + jnp.einsum("bhwk,bkn->bhwn", assignment, values)


def seconds(program, arguments):
    begin = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - begin


def compare(name, plain, used, *arguments):
    programs = [
        jax.jit(jax.grad(lambda *a, f=f: (f(*a) ** 2).mean(), argnums=tuple(range(len(arguments)))))
        for f in (plain, used)
    ]
    best = [
        min(times)
        for times in zip(*([seconds(p, arguments) for p in programs] for _ in range(TURNS)), strict=True)
    ]
    print(
        f"{name:32} {best[0] * 1e3:8.2f} ms {best[1] * 1e3:8.2f} ms  ratio {best[1] / best[0]:.2f}",
        flush=True,
    )


def main():
    keys = iter(jax.random.split(jax.random.key(0), 100))

    def draw(*shape):
        return jax.random.normal(next(keys), shape)

    for side, c in UPSAMPLINGS:
        compare(f"upsampling {side}² {c}", shifted_upsampling, upsample, draw(BATCH, side, side, c))
    for side, m, k, c in MODULATIONS:
        assignment = jax.nn.softmax(draw(BATCH, side, side, k))
        arguments = assignment, draw(BATCH, k, 2 * c), draw(BATCH, side, side, m), draw(m, 2 * c)
        compare(f"decoupled modulation {side}² {c}", two_products, _joint_product, *arguments)


if __name__ == "__main__":
    main()
