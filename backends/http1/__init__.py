"""An HTTP/1.1 client for answers: what a server sends is handed on in the turn of the loop in which it arrived."""
