"""A hub on this machine with the repository `org/tiny`, whose file is a given model."""

import hashlib
import http.server
import json
import re
import threading
import time

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves the file by ranges. While `slow` is set it trickles; connections break after the share `cut` of a range."""

    def __init__(self, model):
        self.model = model
        self.digest = hashlib.sha256(model).hexdigest()
        self.slow = False
        self.cut = None
        self.ranges = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                hub.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        if request.path.startswith("/api/models/org/tiny/revision/main"):
            size = len(self.model)
            lfs = {"sha256": self.digest, "size": size}
            files = [{"rfilename": "tiny-Q8_0.gguf", "size": size, "lfs": lfs}]
            body = json.dumps({"sha": COMMIT, "siblings": files}).encode()
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
            return
        if request.path != f"/org/tiny/resolve/{COMMIT}/tiny-Q8_0.gguf":
            request.send_error(404)
            return
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["Range"]).groups())
        self.ranges.append((first, last))
        part = self.model[first : last + 1]
        request.send_response(206)
        request.send_header("Content-Length", str(len(part)))
        request.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(self.model)}")
        request.send_header("ETag", f'"{self.digest}"')
        request.send_header("X-Linked-ETag", f'"{self.digest}"')
        request.end_headers()
        try:
            for at in range(0, len(part), 65536):
                if self.cut is not None and at >= len(part) * self.cut:
                    request.connection.close()
                    return
                request.wfile.write(part[at : at + 65536])
                while self.slow and at >= len(part) // 3:
                    time.sleep(0.05)
        except OSError:
            # The program has been stopped.
            pass
