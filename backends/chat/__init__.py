"""Any server that speaks chat completions over HTTP: the connection, what is sent, what its chunks and errors mean."""
