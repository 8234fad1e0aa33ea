"""What dragoman costs: a load generator, a scripted model server and a byte pass-through to measure against.

`python -m bench` prints the figures, `python -m bench.state` those of kept conversations, `python -m bench.soak` runs
for minutes and counts what is left behind. Everything is bounded, on loopback, on ports that the kernel chooses, and
ends by itself. The parts that must never be the bottleneck (`upstream`, `client`) work in callbacks on bytes; the unit
(`passthrough`) is what any aiohttp proxy pays.
"""
