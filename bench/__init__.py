"""What dragoman costs: clients, a scripted model server, and byte proxies and gateways of others to measure against.

`python -m bench` prints the figures, `python -m bench.state` those of kept conversations, `python -m bench.soak` runs
for minutes and counts what is left behind, `python -m bench.attack` says what hostile input costs. Everything is
bounded, on loopback, on ports that the kernel chooses, and ends by itself. What must never be the bottleneck of a
figure is in C (`native`); the soak and the attacks, which count rather than time, have a server and clients in Python
(`upstream`, `client`). The unit (`passthrough`) is what any aiohttp proxy pays, the limit (`splice`) what any pays.
"""
