"""The part of the Hugging Face hub that a download needs, on this machine: real HTTP for the real client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def hub(repositories: Mapping[str, Mapping[str, bytes]], commits: Mapping[str, str]) -> Iterator[str]:
    """Serve repository → path → content under the address that it yields; `commits`: revision → commit, in all."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(revision|tree)/([^/?]+)(?:\?.*)?", self.path)
            file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            match = api or file
            if not match or match[1] not in repositories:
                return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            repository, commit = repositories[match[1]], commits.get(match[3] if api else match[2])
            if commit is None:
                return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if file:
                content = repository[file[3]]
                return self.reply(200, content, {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": commit})
            found: object = {"id": match[1], "sha": commit}
            if match[2] == "tree":
                found = [
                    {"type": "file", "path": path, "size": len(content), "oid": sha1(content).hexdigest()}
                    for path, content in repository.items()
                ]
            return self.reply(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

        do_HEAD = do_GET

        def reply(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
