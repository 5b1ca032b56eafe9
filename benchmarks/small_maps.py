"""3×3 convolutions of small maps, as XLA runs them and as matrix products (`mscaflax/nets/small_maps.py`).

python benchmarks/small_maps.py [--channels=512] [--batch_size=8] [--sides 1 2 3 4 8 16]

Forward and backward, float32, on one device. The two take turns in every repetition; times are the shortest.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp

from mscaflax.nets.small_maps import convolve_by_product

REPEATS = 7


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


WAYS = {"convolution": convolve, "product": functools.partial(convolve_by_product, padding=1)}


def measure(side, channels, batch_size):
    """{way: seconds} of the gradient by map and kernel."""
    x = jax.random.normal(jax.random.key(0), (batch_size, side, side, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels)) / channels
    programs = {}
    for way, function in WAYS.items():

        def loss(x, kernel, function=function):
            return jnp.square(function(x, kernel)).mean()

        programs[way] = jax.jit(jax.grad(loss, (0, 1)))
        jax.block_until_ready(programs[way](x, kernel))
    shortest = dict.fromkeys(WAYS, float("inf"))
    for _ in range(REPEATS):
        for way, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(x, kernel))
            shortest[way] = min(shortest[way], time.perf_counter() - start)
    return shortest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sides", type=int, nargs="+", default=[1, 2, 3, 4, 8, 16])
    options = parser.parse_args()
    print("| map | convolution, ms | product, ms | ratio |\n| --- | ---: | ---: | ---: |", flush=True)
    for side in options.sides:
        found = measure(side, options.channels, options.batch_size)
        ms = [1e3 * found[way] for way in WAYS]
        print(f"| {side}×{side} | {ms[0]:.1f} | {ms[1]:.1f} | {ms[0] / ms[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
