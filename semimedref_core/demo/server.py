"""The web server of the page, from Python's library. Only browsers of this machine can reach it."""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import tempfile
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from semimedref_core.demo.answer import Demo, PageAnswer
from semimedref_core.errors import SemiMedRefError

HERE = "127.0.0.1"
PAGE = Path(__file__).with_name("page.html")
LARGEST = 2**27  # bytes of a request: a picture of 100 MB
# The policy lets the page load nothing from other places.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


class ServerError(SemiMedRefError):
    """The page cannot be shown, or a request is invalid."""


class _BadRequestError(ServerError):
    """A request that no page sends."""


class PageServer(ThreadingHTTPServer):
    """Serves the page of a demo until it is stopped: ``with PageServer(demo, port) as server: ...``.

    Args:
        demo: the demo that answers requests.
        port: port of this machine; 0 takes any free port.

    Raises:
        ServerError: if the port cannot be opened.
    """

    def __init__(self, demo: Demo, port: int):
        self.demo, self.one_at_a_time = demo, threading.Lock()
        try:
            super().__init__((HERE, port), _Handler)
        except OSError as error:
            taken = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise ServerError(f"port {port} {taken}; give another --port, or 0 for any that is free") from None

    @property
    def address(self) -> str:
        """The address to open in a browser."""
        return f"http://{HERE}:{self.server_port}/"

    def answer(self, question: dict) -> PageAnswer:
        """Answers a request of the page: ``text``, and the number of an ``example`` or the ``data`` (base64) of a
        picture and its ``name``. Nothing is stored.

        Raises:
            DataError, ReportError: as in :meth:`.Demo.answer`.
            ServerError: if the request is invalid.
        """
        example = None
        try:
            text = str(question["text"])
            if "example" in question:
                example = list(self.demo.examples)[question["example"]]
            else:
                name, data = str(question["name"]), base64.b64decode(question["data"], validate=True)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(f"this is not a request of the page ({type(error).__name__}); reload the page") from None
        if example is not None:
            return self._ask(example, text)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "picture")
            path.write_bytes(data)
            try:
                return self._ask(path, text)
            except SemiMedRefError as error:
                raise type(error)(str(error).replace(str(path), name)) from None

    def _ask(self, picture: Path, text: str) -> PageAnswer:
        with self.one_at_a_time:
            return self.demo.answer(picture, text)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        if not self._is_meant():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes())
        elif self.path == "/start":
            self._tell(HTTPStatus.OK, self.server.demo.start())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if not self._is_meant():
            return
        if self.path != "/answer" or self.headers.get_content_type() != "application/json":
            self.send_error(HTTPStatus.BAD_REQUEST)  # pages of other sites cannot send JSON here without permission
            return
        try:
            answer = self.server.answer(self._question())
        except _BadRequestError as error:
            self._tell(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except SemiMedRefError as error:
            self._tell(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})
        else:
            self._tell(HTTPStatus.OK, dataclasses.asdict(answer))

    def _question(self) -> dict:
        """The request of the page.

        Raises:
            ServerError: if it is too large.
            _BadRequestError: if it is no JSON.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _BadRequestError("the request does not say its length; reload the page")
        if int(length) > LARGEST:
            raise ServerError(f"the picture is larger than {LARGEST * 3 // 4 // 10**6} MB; make it smaller")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:  # also of encodings
            raise _BadRequestError(f"the request is no JSON ({type(error).__name__}); reload the page") from None

    def _is_meant(self) -> bool:
        """Whether the request uses this machine's own name, so that pages of other sites cannot reach the server."""
        if self.headers.get("Host", "").rpartition(":")[0] in (HERE, "localhost"):
            return True
        self.send_error(HTTPStatus.FORBIDDEN)
        return False

    def _tell(self, status: HTTPStatus, said: dict) -> None:
        self._send(status, "application/json", json.dumps(said).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Logs nothing: sentences and names of pictures stay out of terminals and logs."""
