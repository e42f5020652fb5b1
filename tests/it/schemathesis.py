"""What schemathesis looks at in each answer beside its own checks, and what it leaves alone."""

import os
import zlib

import schemathesis

# What the requests to come need.
KEPT = os.environ["NUCLEUS_TEST_KEPT"].split(" ")

# No statement, no place on disk and no secret in what leaves.
LEAKS = [
    "SELECT ",
    "INSERT ",
    "UPDATE ",
    "DELETE ",
    "sqlx",
    "sqlite",
    "postgres",
    "/tmp",
    "/src/",
    ".rs:",
    ".db",
    "vault",
    "panicked",
    "canary",
    "operator-key",
]


@schemathesis.check
def errors_are_problems(ctx, response, case):
    """RFC 9457, with a code, the request's id and nothing of the inside."""
    if response.status_code < 400:
        return
    kind = response.headers["content-type"][0]
    # People at a browser are told on a page.
    if kind != "text/html; charset=utf-8" or "/oauth/callback" not in case.path:
        assert kind == "application/problem+json", kind
        problem = response.json()
        assert problem["status"] == response.status_code, problem
        assert problem["code"] and problem["title"] and problem["detail"], problem
        assert problem["request_id"] == response.headers["x-request-id"][0], problem
    for leak in LEAKS:
        assert leak not in response.text, f"{leak!r} is in {response.text}"


@schemathesis.hook
def filter_case(context, case):
    """Spare things may be removed, and those that schemathesis made."""
    return case.method != "DELETE" or case.path_parameters.get("id") not in KEPT


@schemathesis.hook
def before_call(context, case, kwargs):
    """One made-up key comes with hundreds of bodies, and all but the first would be refused for it."""
    key = (case.headers or {}).get("Idempotency-Key", "")
    if key.isascii() and key.isprintable() and 0 < len(key.strip()) < 200:
        body = repr((case.path, case.media_type, case.body)).encode()
        case.headers["Idempotency-Key"] = f"{key.strip()}-{zlib.crc32(body)}"
