"""PostgreSQL, asked for its health without a round trip: every request asks before its first query."""

from select import POLLIN, poll

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Of a connection that lies idle the server says nothing, until it shuts down, or ends it."""

    def is_usable(self) -> bool:
        if self.connection is None or self.connection.closed:
            return False
        waiting = poll()
        waiting.register(self.connection.fileno(), POLLIN)  # and errors, always
        return bool(super().is_usable()) if waiting.poll(0) else True
