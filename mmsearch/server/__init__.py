"""A library and its model kept warm: the server, and the client that asks it."""
