"""A layer, a loss and a training loop of one's own: the tape records what happens, `backward` follows it back."""

import argparse

import numpy as np

from handloom import nn


class Residual(nn.Layer):
    """x + Dense(x), as often as one asks for; ordinary Python decides what happens."""

    def __init__(self, units, depth):
        super().__init__()
        self.blocks = [nn.Dense(units, activation="tanh") for _ in range(depth)]

    def call(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


class Net(nn.Model):
    def __init__(self, device):
        super().__init__(device=device)
        self.first = nn.Dense(32)
        self.body = Residual(32, depth=3)
        self.last = nn.Dense(1)

    def call(self, x):
        return self.last(self.body(self.first(x)))


def squared_error(y, target):
    """A loss as arithmetic on tensors; `nn.losses` has a faster one."""
    difference = y - target
    return (difference * difference).mean()


def main(argv=None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="thirty steps")
    options = parser.parse_args(argv)
    nn.set_random_seed(1)
    rng = np.random.default_rng(1)
    steps = 30 if options.smoke else 1000

    net = Net(options.device)
    net(np.zeros((1, 2)))  # the first call makes the parameters
    optimizer = nn.Adam(learning_rate=0.003, parameters=net.trainable_weights)
    losses = []
    for step in range(steps):
        x = rng.uniform(-2, 2, (64, 2)).astype(np.float32)
        target = np.sin(x[:, :1]) * x[:, 1:]
        loss = squared_error(net(x), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        if step % (steps // 10) == 0:
            print(f"step {step:4}  loss {losses[-1]:.5f}")
    with nn.no_grad():
        print(f"f(1, 1) = {net(np.ones((1, 2))).item():.3f}, and it should be {np.sin(1.0):.3f}")
    return losses


if __name__ == "__main__":
    main()
