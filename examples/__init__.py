"""Examples: one task a file. Run one as `python -m handloom.examples.dense_quickstart`, or copy it and change it.

Each takes --device and --smoke (seconds instead of minutes), and returns its losses, the first to the last.
"""
