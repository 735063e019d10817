import sys
from pathlib import Path

from handloom.bench import report, results

if len(sys.argv) != 3:
    sys.exit("usage: python -m handloom.bench.report FILE OUT")
try:
    print(f"written to {report.write(results.load(Path(sys.argv[1])), Path(sys.argv[2]))}")
except (ValueError, ModuleNotFoundError) as error:
    sys.exit(str(error))
