"""The three programs in JAX with flax and optax: the whole step in one jit, its state donated."""

import numpy as np


class JaxProgram:
    """One program; weights come from ours."""

    name = "jax"

    def __init__(self, program: str, weights, batches):
        import jax
        import jax.numpy as jnp
        import optax

        self.jax, self.jnp, self.program = jax, jnp, program
        self.model = _model(program)
        self.batches = [(jnp.array(x), jnp.array(y.argmax(-1))) for x, y in batches]
        self.template = self.model.init(jax.random.PRNGKey(0), self.batches[0][0])
        optimizer = optax.adam(1e-3, eps=1e-7)

        def step(parameters, state, x, labels):
            def loss(parameters):
                logits = self.model.apply(parameters, x)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            value, gradients = jax.value_and_grad(loss)(parameters)
            updates, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, updates), state, value

        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.forward = jax.jit(lambda parameters, x: jax.nn.softmax(self.model.apply(parameters, x)))
        self.load(weights)
        self.state = optimizer.init(self.parameters)

    def load(self, weights):
        leaves = _leaves(self.program, weights)

        def pick(path, old):
            new = leaves["/".join(key.key for key in path[1:])]
            assert new.shape == old.shape, (path, new.shape, old.shape)
            return self.jnp.array(new)

        self.parameters = self.jax.tree_util.tree_map_with_path(pick, self.template)

    def epoch(self):
        for x, labels in self.batches:
            self.parameters, self.state, loss = self.step(self.parameters, self.state, x, labels)
            loss.block_until_ready()

    def predict(self):
        return np.asarray(self.forward(self.parameters, self.batches[0][0]))


def _model(program):
    from flax import linen as nn

    class Dense(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(64)(x))
            return nn.Dense(10)(x)

    class Cnn(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(32, (3, 3), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
            return nn.Dense(10)(x)

    class Lstm(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.RNN(nn.OptimizedLSTMCell(64))(x)
            return nn.Dense(10)(x)

    return {"dense": Dense, "cnn": Cnn, "lstm": Lstm}[program]()


def _leaves(program, weights):
    """flax's parameters by path, from our weights in order."""
    if program == "dense":
        paths = ("Dense_0/kernel", "Dense_0/bias", "Dense_1/kernel", "Dense_1/bias")
        return dict(zip(paths, weights, strict=True))
    if program == "cnn":
        layers = ("Conv_0", "Dense_0", "Dense_1")
        paths = [f"{layer}/{part}" for layer in layers for part in ("kernel", "bias")]
        return dict(zip(paths, weights, strict=True))
    w, u, b, w1, b1 = weights
    leaves = {"Dense_0/kernel": w1, "Dense_0/bias": b1}
    for number, gate in enumerate("ifgo"):
        columns = slice(64 * number, 64 * (number + 1))
        leaves[f"OptimizedLSTMCell_0/i{gate}/kernel"] = w[:, columns]
        leaves[f"OptimizedLSTMCell_0/h{gate}/kernel"] = u[:, columns]
        leaves[f"OptimizedLSTMCell_0/h{gate}/bias"] = b[columns]
    return leaves
