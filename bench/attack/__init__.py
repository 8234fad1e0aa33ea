"""`python -m bench.attack`: cheap inputs that aim at the one loop and at the memory, each with what it cost.

Every attack meets a gateway of its own, over loopback, from a client (`clients`) or from a model server (`hostile`),
and ends by itself. `probe` measures from outside how long the loop was taken, in CPU of the gateway, so that a busy
machine changes no figure.
"""
