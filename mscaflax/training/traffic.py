"""How many bytes a program must move at least: operands and results of its products, from its jaxpr."""

from collections.abc import Sequence

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

PRODUCTS = ("conv_general_dilated", "dot_general", "ragged_dot_general")


def traffic_floor(jaxpr: Jaxpr) -> int:
    """Bytes of the operands and results of every convolution and matrix product that a result depends on.

    Each product counts its distinct operands and its results once, as if all that stands between two products
    were fused into them. Results wider than the operands count as wide as those: a sum in float32 can be
    rounded before it is written. Programs inside are followed: a scan counts by its length, a cond by its
    cheapest branch, a while loop as one round.

    Args:
      jaxpr: a program of known shapes, e.g. `jax.make_jaxpr(f)(*args).jaxpr`.
    """
    live, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _floor(live)


def _floor(jaxpr: Jaxpr) -> int:
    return sum(map(_equation_floor, jaxpr.eqns))


def _equation_floor(equation: JaxprEqn) -> int:
    name = equation.primitive.name
    if name in PRODUCTS:
        width = max(x.aval.dtype.itemsize for x in equation.invars)
        return _nbytes(equation.invars) + sum(
            x.aval.size * min(x.aval.dtype.itemsize, width) for x in equation.outvars
        )
    inner = [_floor(jaxpr) for jaxpr in jaxprs_in_params(equation.params)]
    if name == "cond":
        return min(inner)
    return sum(inner) * (equation.params["length"] if name == "scan" else 1)


def _nbytes(variables: Sequence[jax.extend.core.Var | Literal]) -> int:
    distinct = {id(x): x.aval for x in variables}
    return sum(aval.size * aval.dtype.itemsize for aval in distinct.values())
