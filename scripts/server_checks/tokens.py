"""Checks of tokens of an identity provider, which runs here: an RSA key, discovery, signatures."""

import base64
import hashlib
import http.server
import json
import os
import random
import shutil
import tempfile
import threading
import time

from harness import Server, check


def encode(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def is_prime(number):
    """Miller and Rabin's test."""
    if any(number % small == 0 for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)):
        return False
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(20):
        power = pow(random.randrange(2, number - 1), odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


class Key:
    """An RSA key of 2048 bits for the tests of one run."""

    def __init__(self, name):
        def prime():
            while True:
                number = random.getrandbits(1024) | (3 << 1022) | 1
                if number % 65537 != 1 and is_prime(number):
                    return number

        p, q = prime(), prime()
        self.name, self.modulus = name, p * q
        self.private = pow(65537, -1, (p - 1) * (q - 1))

    def public(self):
        modulus = self.modulus.to_bytes(256, "big")
        return {"kty": "RSA", "kid": self.name, "use": "sig", "n": encode(modulus), "e": "AQAB"}

    def sign(self, claims, algorithm="RS256"):
        """A token with a signature by RSASSA-PKCS1-v1_5 and SHA-256 (RFC 8017, section 8.2)."""
        text = encode({"alg": algorithm, "kid": self.name, "typ": "JWT"}) + "." + encode(claims)
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(text.encode()).digest()
        padded = b"\x00\x01" + b"\xff" * (253 - len(digest)) + b"\x00" + digest
        signature = pow(int.from_bytes(padded, "big"), self.private, self.modulus)
        return text + "." + encode(signature.to_bytes(256, "big"))


class Provider:
    """Serves metadata and keys; counts the requests for keys."""

    def __init__(self, keys):
        provider = self
        self.keys, self.reads = keys, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/realm/.well-known/openid-configuration":
                    body = {"issuer": provider.issuer, "jwks_uri": provider.issuer + "/keys"}
                else:
                    provider.reads += 1
                    body = {"keys": [key.public() for key in provider.keys]}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}/realm"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def claims(self, **changes):
        claims = {"iss": self.issuer, "aud": "exsa", "sub": "ann", "exp": int(time.time()) + 300, "roles": ["user"]}
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not None}


CONFIG = """
[access]
enabled = true
data = "{data}"

[access.jwt]
issuer = "{issuer}"
audience = ["exsa"]

[[access.jwt.roles]]
name = "user"

[[access.jwt.roles]]
name = "ops"
scopes = ["metrics"]
"""


@check("tokens: a provider's tokens are verified by discovery; others are refused")
def tokens_discovered(_):
    first, second, foreign = Key("one"), Key("two"), Key("one")
    provider = Provider([first])
    folder = tempfile.mkdtemp(prefix="exsa-tokens-")
    path = os.path.join(folder, "exsa.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(CONFIG.format(data=os.path.join(folder, "data"), issuer=provider.issuer))
    server = Server("--config", path)

    def status(token, path="/v1/models"):
        response, text = server.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        assert token.encode() not in text
        return response.status

    now = int(time.time())
    assert status(first.sign(provider.claims())) == 200
    assert status(first.sign(provider.claims(aud=["a", "exsa"]))) == 200
    assert status(first.sign(provider.claims()), "/metrics") == 403
    assert status(first.sign(provider.claims(roles="ops")), "/metrics") == 200
    assert status(first.sign(provider.claims(roles=[]))) == 403
    for token in [
        first.sign(provider.claims(exp=now - 120)),
        first.sign(provider.claims(exp=None)),
        first.sign(provider.claims(nbf=now + 600)),
        first.sign(provider.claims(iss="http://127.0.0.1/other")),
        first.sign(provider.claims(aud="other")),
        first.sign(provider.claims(sub=None)),
        first.sign(provider.claims(), algorithm="HS256"),
        first.sign(provider.claims(), algorithm="none"),
        foreign.sign(provider.claims()),
    ]:
        assert status(token) == 401, token
    assert provider.reads == 1, provider.reads
    # The provider's new key is read once the last read is ten seconds old.
    provider.keys = [first, second]
    time.sleep(10)
    assert status(second.sign(provider.claims())) == 200
    assert status(Key("three").sign(provider.claims())) == 401
    assert provider.reads == 2, provider.reads
    assert server.stop() == 0
    shutil.rmtree(folder)
