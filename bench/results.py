"""What a run found, as one dictionary: which `--json` writes and the comparison, the tables and the report read."""

import json
from pathlib import Path

SCHEMA = 3


def gather(suite, rows, description: dict, spread: float, complete: bool) -> dict:
    """Everything; keys of JSON are strings."""
    from . import peers

    content = {
        "schema": SCHEMA,
        "device": "cpu",
        "complete": complete,
        "machine": description,
        "limits": suite.limits,
        "spread of a fixed loop": spread,
        "not measured": suite.not_measured,
        "method": [[name, peers.METHOD[name]] for name in suite.peers],
        "rows": [row.as_dict() for row in rows],
    }
    return json.loads(json.dumps(content))


def save(results: dict, path: Path) -> None:
    """As JSON."""
    write_whole(path, json.dumps(results, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """The whole file, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def load(path: Path) -> dict:
    """What `save` wrote; an error where the file is another's, or of an older form."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema = found["schema"]
        if schema != SCHEMA:
            raise ValueError(f"its schema is {schema}, not {SCHEMA}")
        for row in found["rows"]:
            _ = row["name"], row["variant"], row["dtype"], row["us"], row["p20_p80"], row["wrong"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"bench: {path} holds no results ({error}): pass what --json wrote") from error
    return found
