"""The table that `Model.summary` prints."""

from __future__ import annotations

import math


def summary(model, line_length=None, print_fn=None):
    """Layers with output shapes and parameters, then the totals; `print_fn` receives it as one string instead."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f'Model: "{model.name}"', title_justify="left", title_style="bold")
    for header, justify in (("Layer (type)", "left"), ("Output Shape", "left"), ("Param #", "right")):
        table.add_column(header, justify=justify)
    for layer in model.layers:
        shape = "?" if layer.output_shape is None else str(layer.output_shape)
        count = f"{_count(layer.weights):,}" if layer.built else "not built"
        table.add_row(f"{layer.name} ({type(layer).__name__})", shape, count)
    console = Console(width=line_length, soft_wrap=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
        for label, weights in (
            ("Total params", model.weights),
            ("Trainable params", model.trainable_weights),
            ("Non-trainable params", model.non_trainable_weights),
        ):
            console.print(f" {label}: {_count(weights):,} ({_bytes(weights)})")
    text = captured.get()
    if print_fn is None:
        console.file.write(text)
    else:
        print_fn(text)


def _count(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def _bytes(weights):
    size, units = sum(weight.data.nbytes for weight in weights), ["B", "KB", "MB", "GB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.2f} {units[0]}"
