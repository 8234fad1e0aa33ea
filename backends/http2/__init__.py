"""HTTP/2 without encryption to a server that is known to speak it: many exchanges on one connection."""
