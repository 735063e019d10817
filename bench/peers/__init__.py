"""How each peer is called. A peer that is not installed gives no candidates."""
