import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.nets.msca import Alignment
from mscaflax.training.health import attention_health, effective_number

B, H, W, K, N = 2, 4, 3, 5, 6


def test_effective_number():
    assert effective_number(jnp.full((4, 8), 1 / 8), -1) == pytest.approx(np.full(4, 8))
    assert effective_number(jnp.eye(8), -1) == pytest.approx(np.ones(8))
    assert effective_number(jnp.array([0.5, 0.5, 0.0]), -1) == pytest.approx(2)
    assert effective_number(jnp.full((2, 3, 4, 5), 1 / 12), (1, 2)) == pytest.approx(np.full((2, 5), 12))


def alignment(attention, assignment, gate, values):
    # What the masked regions hold is no matter of the cosine.
    return Alignment(np.zeros((B, 7, 2, N)), assignment, np.ones((B, K, N)), attention, gate, values)


def health(alignment):
    report = attention_health((None, alignment))
    assert all(name.startswith("attention1/") for name in report)
    return {name.split("/")[1]: float(value) for name, value in report.items()}


def test_uniform_attention():
    attention = np.full((B, H, W, K), 1 / (H * W), np.float32)
    assignment = np.full((B, 7, 2, K), 1 / K, np.float32)
    report = health(alignment(attention, assignment, np.full((B, K), 0.88), np.ones((B, K, N))))
    assert report == pytest.approx(
        {
            "alpha_positions": 1, "beta_regions": K, "regions_used": K,
            "gamma_mean": 0.88, "gamma_spread": 0, "value_cosine": 1,
        },
        abs=1e-5,
    )  # fmt: skip


def test_focused_attention():
    attention = np.zeros((B, H, W, K), np.float32)
    attention[:, 1, 2] = 1
    # Every position takes one region; the halves of the map take two different ones.
    assignment = np.zeros((B, 7, 2, K), np.float32)
    assignment[:, :, 0, 1] = assignment[:, :, 1, 3] = 1
    gate = np.stack([np.zeros(K), np.ones(K)])
    values = np.stack([np.eye(K, N), 7 * np.eye(K, N)])
    report = health(alignment(attention, assignment, gate, values))
    assert report == pytest.approx(
        {
            "alpha_positions": 1 / (H * W), "beta_regions": 1, "regions_used": 2,
            "gamma_mean": 0.5, "gamma_spread": 0.5, "value_cosine": 0,
        },
        abs=1e-5,
    )  # fmt: skip


def test_closed_regions_and_a_single_one_are_no_trouble():
    attention = np.full((B, H, W, 1), 1 / (H * W), np.float32)
    report = health(alignment(attention, np.ones((B, 7, 2, 1)), np.zeros((B, 1)), np.zeros((B, 1, N))))
    assert np.isfinite(list(report.values())).all() and report["value_cosine"] == 0


def test_scales_without_regions_are_left_out():
    assert attention_health((None, Alignment(np.zeros((B, 2, 2, N))))) == {}
