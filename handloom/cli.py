"""The `handloom` command. Everything is imported by the subcommand that needs it: `handloom --help` is immediate."""

import argparse
import sys
import time


def parser() -> argparse.ArgumentParser:
    """The subcommands; `run` holds the function behind each, `takes_rest` says that it reads its own options."""
    command = argparse.ArgumentParser(
        prog="handloom", description="Hand-written compute kernels for deep learning, and layers on top of them."
    )
    command.add_argument("--version", action="store_true", help="print the version and stop")
    subcommands = command.add_subparsers(title="commands", metavar="COMMAND")

    def add(name, run, text, **options):
        subcommand = subcommands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", **options)
        subcommand.set_defaults(run=run, takes_rest=not options.get("add_help", True))
        return subcommand

    add("demo", _demo, "train a CNN and an LSTM on handwritten digits", add_help=False)
    add("bench", _bench, "measure kernels and training steps on this machine", add_help=False)
    add("info", _info, "show the processor, threads, cache of compiled kernels and GPU")
    add("doctor", _doctor, "find what would make this machine slow or wrong, with the fix")
    add("gpu-check", _gpu_check, "verify and time every CUDA kernel on this machine's GPU", add_help=False)
    warmup = add("warmup", _warmup, "compile what the networks of the demo and the benchmarks need")
    warmup.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: compile what gpu-check needs; without a GPU"
    )
    warmup.add_argument(
        "--arch", action="append", metavar="ARCH", help="with cuda: such as sm_90a; may be repeated (default: sm_90a)"
    )
    warmup.add_argument("--out", metavar="DIR", help="with cuda: folder for the machine code (default: cubins)")
    cache = add("cache", _cache, "print the folder of compiled kernels, or empty it")
    cache.add_argument("action", choices=("path", "clear"), nargs="?", default="path")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; the process's exit status."""
    command = parser()
    options, rest = command.parse_known_args(argv)
    if options.version:
        from . import __version__

        print(f"handloom {__version__}")
        return 0
    if not hasattr(options, "run"):
        command.print_help()
        return 0
    if rest and not options.takes_rest:
        command.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return options.run(rest if options.takes_rest else options) or 0
    except KeyboardInterrupt:
        print("handloom: interrupted", file=sys.stderr)
        return 130


def _demo(rest) -> None:
    from .examples import demo

    demo.main(rest)


def _bench(rest) -> int:
    from .bench import main

    return main(rest)


def _info(options) -> None:
    from rich.console import Console
    from rich.table import Table

    from .info import facts

    table = Table.grid(padding=(0, 2))
    for name, value in facts().items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


def _doctor(options) -> int:
    from .doctor import findings, report

    return report(findings())


def _gpu_check(rest) -> int:
    from .bench.gpu import main

    return main(rest)


def _warmup(options) -> int | None:
    if options.device == "cuda":
        from .bench.gpu import cubins

        return cubins.warmup(options.arch or ["sm_90a"], options.out or "cubins")
    if options.arch or options.out:
        raise SystemExit("handloom warmup: --arch and --out belong to --device cuda")
    return _warmup_cpu()


def _warmup_cpu() -> None:
    from .bench.cases import programs
    from .examples import demo

    def warm(name, model, data):
        start = time.perf_counter()
        x, y = data
        # Of one batch each; from the fourth on, steps are played back, with kernels of their own for the update.
        model.fit(x, y, epochs=4, batch_size=programs.BATCH, validation_split=0.5, verbose=0)
        model.predict(x, verbose=0)
        print(f"{name:<10}{time.perf_counter() - start:6.1f} s", flush=True)

    for name in ("dense", "cnn", "lstm"):
        warm(name, programs.build(name), programs.data(name, steps=2))
    for task in demo.TASKS:
        warm(f"demo {task.name}", task.build("cpu"), demo.load(task, samples=64)[0])


def _cache(options) -> None:
    from .kernels.store import cache_folder

    if options.action == "clear":
        from .info import clear_cache

        print(f"removed {clear_cache()} compiled kernels from {cache_folder()}")
    else:
        print(cache_folder())
