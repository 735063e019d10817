"""Training steps of the three programs at batch 32, beside torch's eager ones: wall time of an epoch by its steps.

Both take their batches from the GPU's memory. Before and after, torch is given our weights and must predict what we do.
"""

from ... import nn
from ..cases import programs
from ..measure import agree
from ..timing import Effort, interleave
from . import peers
from .worker import row

STEPS, QUICK = 50, 10


def step_row(program, quick) -> dict:
    import cupy

    steps = QUICK if quick else STEPS
    x, y = programs.data(program, steps)
    batches = [(x[i : i + programs.BATCH], y[i : i + programs.BATCH]) for i in range(0, len(x), programs.BATCH)]
    with nn.device("cuda"):
        model = programs.build(program)
    x, y = nn.to_device(x, "cuda"), nn.to_device(y, "cuda")
    torch = peers.torch_or_none() and peers.TorchProgramThere(program, model.get_weights(), batches)

    def results():
        found = {"handloom": nn.to_device(model.predict_on_batch(x[: programs.BATCH]), "cpu")}
        if torch:
            torch.load(model.get_weights())
            found["torch eager"] = torch.predict()
        return found

    def ended(epoch):
        def run():
            epoch()
            cupy.cuda.runtime.deviceSynchronize()

        return run

    candidates = {
        "handloom": ended(lambda: model.fit(x, y, epochs=1, batch_size=programs.BATCH, shuffle=False, verbose=0))
    }
    if torch:
        candidates["torch eager"] = ended(torch.epoch)
    name = f"step of {program}, batch {programs.BATCH}"
    for moment in ("before", "after"):
        if wrong := agree(results(), 1e-3):
            return row(name, "wrong", f"{moment} timing: {wrong}")
        if moment == "before":
            samples = interleave(candidates, Effort(5, 0.3))
    ours, *others = ((peer, sample.p50 / steps) for peer, sample in samples.items())
    return row(
        name, "ok", "; ".join(peers.missing()), variant="fit", mode="float32", us=ours[1] * 1e6,
        p20_p80=[samples["handloom"].p20 / steps * 1e6, samples["handloom"].p80 / steps * 1e6],
        peers_us={peer: seconds * 1e6 for peer, seconds in others},
        share_of_peer={peer: seconds / ours[1] for peer, seconds in others},
    )  # fmt: skip
