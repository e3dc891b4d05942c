"""An OpenID Connect provider on this machine: it logs in whoever comes, and signs what it says of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.local_server import Handler, serving

CLIENT = {"client_id": "biasdiff", "client_secret": "only-of-this-test"}
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


@contextmanager
def identity_provider(claims: Mapping[str, Any]) -> Iterator[str]:
    """Its address, on a free port of 127.0.0.1. `claims`: of everybody who logs in."""
    nonces: dict[str, str] = {}  # by the code that stands for a login

    class Provider(Handler):
        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            if path == "/.well-known/openid-configuration":
                self._answer(_metadata(address))
            elif path == "/jwks":
                self._answer({"keys": [KEY.as_dict(private=False)]})
            elif path == "/authorize":
                code = f"code-{len(nonces)}"
                nonces[code] = query["nonce"]
                back = urlencode({"code": code, "state": query["state"]})
                self.begin(302, {"Location": f"{query['redirect_uri']}?{back}"})

        def do_POST(self) -> None:
            sent = parse_qs(self.posted().decode())
            now = int(time.time())
            said = {"iss": address, "aud": CLIENT["client_id"], "iat": now, "exp": now + 600, "nonce": nonces[sent["code"][0]], **claims}
            token = jwt.encode({"alg": "RS256", "kid": "one"}, said, KEY)
            self._answer({"access_token": "opens-nothing", "token_type": "Bearer", "expires_in": 600, "id_token": token})

        def _answer(self, record: Mapping[str, Any]) -> None:
            body = json.dumps(record).encode()
            self.begin(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
            self.wfile.write(body)

    with serving(Provider) as address:
        yield address


def secrets(provider: str, app: str) -> str:
    """The `secrets.toml` of an app under this address whose accounts are the provider's."""
    entries = {
        "redirect_uri": f"{app}/oauth2callback",
        "cookie_secret": "of this test alone, thirty-two bytes or more",
        "server_metadata_url": f"{provider}/.well-known/openid-configuration",
        **CLIENT,
    }
    return "[auth]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in entries.items())


def _metadata(address: str) -> dict[str, Any]:
    return {
        "issuer": address,
        "authorization_endpoint": f"{address}/authorize",
        "token_endpoint": f"{address}/token",
        "jwks_uri": f"{address}/jwks",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
