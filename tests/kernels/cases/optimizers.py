"""Cases for the optimizer updates. Sizes straddle a vector and a chunk (16384 elements)."""

import dataclasses

from harness import Case

ADAM = {"step": 3, "learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
RMSPROP = {"learning_rate": 0.01, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7}
SIZES = ((1,), (17,), (7, 13), (3, 5500))


def arrays(shape, *state):
    """w, g and the state; a running mean square is positive and above the square of the mean."""

    def make(rng, dtype):
        drawn = {name: None if name.startswith("no_") else rng.uniform(-1, 1, shape) for name in ("w", "g", *state)}
        if "v" in drawn:
            drawn["v"] = 1 + drawn["v"] ** 2
        return {name.removeprefix("no_"): None if x is None else x.astype(dtype) for name, x in drawn.items()}

    return make


def update(op, id, shape, options, *state):
    inplace = ("w", *(name for name in state if not name.startswith("no_")))
    return Case(op, f"{id}-{'x'.join(map(str, shape))}", arrays(shape, *state), options, inplace=inplace)


def rmsprop(id, momentum, *state):
    return update("rmsprop_update", id, (7, 13), {**RMSPROP, "momentum": momentum}, *state)


CASES = [
    *(update("sgd_update", "plain", shape, {"learning_rate": 0.1}) for shape in SIZES),
    update("sgd_update", "scalar", (), {"learning_rate": 0.1}),
    update("sgd_update", "nothing", (0, 3), {"learning_rate": 0.1}),
    *(update("sgd_update", "momentum", s, {"learning_rate": 0.1, "momentum": 0.9}, "velocity") for s in SIZES),
    update("sgd_update", "nesterov", (7, 13), {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}, "velocity"),
    *(update("rmsprop_update", "plain", shape, RMSPROP, "v") for shape in SIZES),
    rmsprop("momentum", 0.9, "v", "velocity"),
    rmsprop("centered", 0.0, "v", "no_velocity", "mean"),
    rmsprop("centered-momentum", 0.9, "v", "velocity", "mean"),
    *(update("adam_update", "", shape, ADAM, "m", "v") for shape in SIZES),
    update("adam_update", "first", (7, 13), {**ADAM, "step": 1}, "m", "v"),
    update("adam_update", "late", (7, 13), {**ADAM, "step": 10**6}, "m", "v"),
    *(update("adamw_update", "", shape, {**ADAM, "weight_decay": 0.004}, "m", "v") for shape in SIZES),
]

# On a GPU: 17 and 7 x 13 elements end in the midst of 16 bytes.
SIMULATED = {
    ("sgd_update", "plain-17"),
    ("sgd_update", "scalar-"),
    ("sgd_update", "nothing-0x3"),
    ("sgd_update", "momentum-17"),
    ("sgd_update", "nesterov-7x13"),
    ("rmsprop_update", "plain-17"),
    ("rmsprop_update", "momentum-7x13"),
    ("rmsprop_update", "centered-7x13"),
    ("rmsprop_update", "centered-momentum-7x13"),
    ("adam_update", "-17"),
    ("adamw_update", "-17"),
}
CASES = [dataclasses.replace(case, simulate=(case.op, case.id) in SIMULATED) for case in CASES]
