"""The train step, one for a core and for a pod: simultaneous hinge-GAN update of both networks."""

import functools

import jax
import jax.numpy as jnp
import optax

from mscaflax.nets.vgg import vgg16_taps
from mscaflax.training import losses
from mscaflax.training.sharding import (
    batch_sharding,
    gather,
    is_of_tpus,
    jit_step,
    microbatches,
    replicated,
    state_shardings,
)
from mscaflax.training.state import init_state, neutral_statistics, stream_key

HIDING = 0x41DE  # parts the keys of the hidden classes from those of the noise


def example_keys(key, count):
    """One random key per example of the global batch, the same on any number of devices."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))


def visible_exemplars(experiment, exemplar_label, keys):
    """Hides classes of exemplars, as if their scenes had none, so that training meets classes that lack.

    Patches of one photo share nearly all their classes; the exemplar of another scene does not. So of a share
    of the examples each class of the exemplar is hidden with probability 1/2; what is left gives the style.

    Args:
      experiment: Experiment; `hidden_share` is the share.
      exemplar_label: [b, h, w] int in 0..C.
      keys: [b] random keys.

    Returns:
      [b, h, w] bool, False where the exemplar may not be used; at least 1/16 of each is True. None if the
      share is 0.
    """
    if not experiment.hidden_share:
        return None

    def one(label, key):
        chosen, classes = jax.random.split(jax.random.fold_in(key, HIDING))
        hides = jax.random.bernoulli(chosen, experiment.hidden_share)
        hidden = hides & jax.random.bernoulli(classes, 0.5, (experiment.network.num_classes + 1,))
        visible = ~hidden[label]
        return visible | (visible.mean() < 1 / 16)

    return jax.vmap(one)(exemplar_label, keys)


def taps_in_training(experiment, vgg, images):
    """The VGG taps of images [b, h, w, 3], the first one folded where the network folds."""
    return vgg16_taps(vgg, images, dtype=experiment.dtype, folded=experiment.network.fold_columns)


def exemplars(experiment, vgg, batch):
    """The exemplars as the network takes them, and the VGG taps of the targets; nothing takes a gradient.

    Where both directions of each pair stand side by side, every exemplar is some target of the batch: VGG and
    the encoders see each photo once, see `itself` of SynthesisNetwork.

    Returns:
      (a dict of `exemplar`, `exemplar_label`, `taps` and `itself`, the taps of the targets).
    """
    image, exemplar = batch["image"], batch["exemplar"]
    taps_of = functools.partial(taps_in_training, experiment, vgg)
    if experiment.both_directions:
        taps = taps_of(image)
        itself = (exemplar == image).all(axis=(1, 2, 3))
        return {"exemplar": image, "exemplar_label": batch["label"], "taps": taps, "itself": itself}, taps
    count = image.shape[0]
    taps = taps_of(jnp.concatenate([exemplar, image]))
    given = {name: batch[name] for name in ("exemplar", "exemplar_label")}
    return given | {"taps": [t[:count] for t in taps], "itself": None}, [t[count:] for t in taps]


def gradients(experiment, state, vgg, batch, keys):
    """What a batch says about both networks, from one forward pass of each.

    Args:
      experiment: Experiment.
      state: TrainState; only its parameters, spectral vectors and statistics count.
      vgg: the VGG-16 parameters.
      batch: see `train_step`.
      keys: [b] random keys of the noise.

    Returns:
      (gradients of the generator's loss, of the discriminator's loss, the spectral vectors after one power
      iteration, metrics). All but the vectors, which do not depend on the batch, are means over it.
    """
    image, label = batch["image"], batch["label"]
    photos, real_taps = exemplars(experiment, vgg, batch)
    visible = visible_exemplars(experiment, photos["exemplar_label"], keys)

    def generate(params):
        synthesis = experiment.network.apply(
            {"params": params}, label, statistics=state.statistics, noise_keys=keys, training=True,
            visible=visible, **photos,
        )  # fmt: skip
        return synthesis.image, synthesis.divergence

    def discriminate(params, image):
        outputs, updated = experiment.discriminator.apply(
            {"params": params, "batch_stats": state.spectral},
            image,
            label,
            update_stats=True,
            mutable=["batch_stats"],
        )
        return outputs, updated["batch_stats"]

    def generator_loss(fake, fakes):
        terms = {
            "adversarial": losses.hinge_generator([logits for logits, _ in fakes]),
            "feature_matching": losses.feature_matching([f for _, f in reals], [f for _, f in fakes]),
            "perceptual": losses.perceptual(
                real_taps, taps_in_training(experiment, vgg, fake), experiment.loss.perceptual_taps
            ),
            "l1": losses.l1_mean(fake, image),
        }
        return sum(getattr(experiment.loss, name) * value for name, value in terms.items()), terms

    def discriminator_loss(fakes, reals):
        real_logits, fake_logits = [x for x, _ in reals], [x for x, _ in fakes]
        means = [sum(x.mean() for x in logits) / len(logits) for logits in (real_logits, fake_logits)]
        return losses.hinge_discriminator(real_logits, fake_logits), means

    # Each network runs forward once; both losses are pulled back through the same pass over the fakes.
    (fake, divergence), pull_generator = jax.vjp(generate, state.generator)
    fakes, pull_fakes, spectral = jax.vjp(discriminate, state.discriminator, fake, has_aux=True)
    reals, pull_reals = jax.vjp(lambda params: discriminate(params, image)[0], state.discriminator)

    (g_loss, terms), (fake_gradient, fakes_gradient) = jax.value_and_grad(
        generator_loss, argnums=(0, 1), has_aux=True
    )(fake, fakes)
    _, through_discriminator = pull_fakes(fakes_gradient)
    # Beside the image, the divergence is the only output that has a loss.
    weight = jnp.full_like(divergence, experiment.loss.divergence)
    (g_grads,) = pull_generator((fake_gradient + through_discriminator, weight))
    terms["divergence"] = divergence
    g_loss = g_loss + weight * divergence

    (d_loss, (real_mean, fake_mean)), (fakes_gradient, reals_gradient) = jax.value_and_grad(
        discriminator_loss, argnums=(0, 1), has_aux=True
    )(fakes, reals)
    d_grads = jax.tree.map(jnp.add, pull_fakes(fakes_gradient)[0], pull_reals(reals_gradient)[0])

    metrics = {f"loss/{name}": value for name, value in terms.items()}
    metrics |= {"loss/generator": g_loss, "loss/discriminator": d_loss}
    metrics |= {"discriminator/real": real_mean, "discriminator/fake": fake_mean}
    return g_grads, d_grads, spectral, metrics


def accumulated_gradients(experiment, state, vgg, batch, keys, mesh=None):
    """As `gradients`, the batch worked through in `experiment.accumulate` parts: less memory, more time.

    Every loss is a mean over examples, so the mean over equal parts is that of the batch, but for rounding.
    """
    parts = microbatches((batch, keys), experiment.accumulate, mesh)

    def of_part(part):
        return gradients(experiment, state, vgg, *part)

    def add(total, part):
        g_grads, d_grads, spectral, metrics = of_part(part)
        return jax.tree.map(jnp.add, total, (g_grads, d_grads, metrics)), spectral

    first = jax.tree.map(lambda x: x[0], parts)
    g_grads, d_grads, _, metrics = jax.eval_shape(of_part, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (g_grads, d_grads, metrics))
    total, spectral = jax.lax.scan(add, zeros, parts)
    g_grads, d_grads, metrics = jax.tree.map(lambda x: x / experiment.accumulate, total)
    return g_grads, d_grads, jax.tree.map(lambda x: x[0], spectral), metrics


def train_step(experiment, state, vgg, batch, mesh=None):
    """One update of both networks from one batch.

    Args:
      experiment: Experiment.
      state: TrainState.
      vgg: the VGG-16 parameters.
      batch: the batch contract: image, exemplar [b, h, w, 3] float32 in [-1, 1]; label, exemplar_label
        [b, h, w] int32 in 0..C. With `experiment.both_directions`, examples 2i and 2i+1 are each other's
        exemplar, or each its own.
      mesh: the devices that share batch and state; None for one device.

    Returns:
      (the next TrainState, metrics: a dict of float32 scalars).
    """
    keys = example_keys(stream_key(experiment.seed, "noise", state.step), batch["image"].shape[0])
    whole = state.replace(
        generator=gather(state.generator, mesh), discriminator=gather(state.discriminator, mesh)
    )
    if experiment.accumulate == 1:
        g_grads, d_grads, spectral, metrics = gradients(experiment, whole, vgg, batch, keys)
    else:
        g_grads, d_grads, spectral, metrics = accumulated_gradients(experiment, whole, vgg, batch, keys, mesh)
    g_updates, g_optimizer = experiment.generator_optimizer.update(
        g_grads, state.generator_optimizer, state.generator
    )
    d_updates, d_optimizer = experiment.discriminator_optimizer.update(
        d_grads, state.discriminator_optimizer, state.discriminator
    )
    generator = optax.apply_updates(state.generator, g_updates)
    t = state.step.astype(jnp.float32)
    decay = jnp.minimum(experiment.ema_decay, (1 + t) / (10 + t))
    next_state = state.replace(
        step=state.step + 1,
        generator=generator,
        ema=jax.tree.map(lambda old, new: old * decay + new * (1 - decay), state.ema, generator),
        generator_optimizer=g_optimizer,
        discriminator=optax.apply_updates(state.discriminator, d_updates),
        spectral=spectral,
        discriminator_optimizer=d_optimizer,
    )
    for name, grads, old, new in (
        ("generator", g_grads, state.generator, next_state.generator),
        ("discriminator", d_grads, state.discriminator, next_state.discriminator),
    ):
        # What has moved: the optimizer's updates would be written for the sake of their norm alone.
        trees = grads, old, jax.tree.map(jnp.subtract, new, old)
        for kind, tree in zip(("gradients", "parameters", "updates"), trees, strict=True):
            metrics[f"norm/{name}_{kind}"] = optax.tree.norm(tree)
    return next_state, metrics


def make_train_step(experiment, mesh):
    """Jits `train_step` for a mesh; the state is donated.

    Args:
      experiment: Experiment.
      mesh: of `make_mesh`.

    Returns:
      The jitted function (state, vgg, batch) → (state, metrics).
    """

    def step(state, vgg, batch):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return train_step(experiment, state, vgg, batch, mesh)

    states = state_shardings(mesh, lambda: init_state(experiment, neutral_statistics()))
    options = dict(experiment.tpu_options) if is_of_tpus(mesh) else None
    return jit_step(step, states, batch_sharding(mesh), replicated(mesh), options)


def synthesize(network, params, statistics, vgg, batch, keys, valid=None, dtype=jnp.float32):
    """Forward pass from a batch without `image`: a Synthesis; `keys` [b] random keys or None."""
    # As an exported model computes them, which does not know sizes: what both give is equal to 1e-5.
    taps = vgg16_taps(vgg, batch["exemplar"], dtype=dtype, products=False)
    return network.apply(
        {"params": params}, batch["label"], batch["exemplar"], batch["exemplar_label"], taps, statistics,
        keys, valid,
    )  # fmt: skip
