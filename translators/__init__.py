"""Pure translation between client protocols and the one intermediate representation: no I/O, clock or randomness."""
