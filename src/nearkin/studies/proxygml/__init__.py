"""The ProxyGML poster: its rivals, what its parts do, what they cost."""
