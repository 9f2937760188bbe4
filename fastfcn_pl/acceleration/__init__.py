"""The one door through which a network becomes faster: `training`, `inference` and `fold`.

Nothing else changes a network. What comes out of `inference` and `fold` is compared with the plain network before it
is used. `ops.fast_paths` turns all fast paths off (`accelerate=false`) or one of them (for a benchmark).
"""
