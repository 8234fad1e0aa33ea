"""`python -m bench.soak`: minutes of everything at once, then a count of what is left.

Hundreds of clients ask in every protocol, streamed and whole, over HTTP and WebSockets, with and without the store
(`clients`); some leave at random stages, and the scripted server cuts, hangs, refuses and talks nonsense. One more
client plays the attacks of `bench.attack`, one after the other (`attacker`). The configuration is read again every
minute. Every answer has one right outcome and one terminal event (`endings`), what the gateway counted must be what the
clients saw (`tally`), and at the end nothing may be left open (`resting`).
"""
