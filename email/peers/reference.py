"""What Python's own `email` makes of mails: for each path on standard input a line of JSON on standard output.

It must read as its documentation has it read (`policy.default`), and take the older interface only where that one
raises: a reference that is mended is none.
"""

import email
import email.header
import email.policy
import email.utils
import html.parser
import json
import sys
from datetime import timezone


class Text(html.parser.HTMLParser):
    """The text of HTML without its layout."""

    def __init__(self):
        super().__init__()
        self.pieces = []
        self.silent = 0

    def handle_starttag(self, tag, attrs):
        self.silent += tag in ("script", "style", "title")
        self.pieces.append(" ")

    def handle_endtag(self, tag):
        self.silent -= tag in ("script", "style", "title") and self.silent > 0
        self.pieces.append(" ")

    def handle_data(self, data):
        if not self.silent:
            self.pieces.append(data)


def attempt(read, default=None):
    """What `read` gives, or `default` where it raises: broken mail makes most of the interface raise something."""
    try:
        return read()
    except Exception:
        return default


def older(value):
    """A header decoded by the older interface."""
    return str(email.header.make_header(email.header.decode_header(str(value))))


def first(message, name):
    value = attempt(lambda: message[name])
    if value is not None:
        return value
    raw = next((value for key, value in message.raw_items() if key.lower() == name), None)
    return attempt(lambda: older(raw)) if raw is not None else None


def people(message):
    value = attempt(lambda: message["from"])
    found = attempt(lambda: [[a.display_name, a.addr_spec] for a in value.addresses])
    if found is None:
        found = [list(pair) for pair in email.utils.getaddresses([str(first(message, "from") or "")])]
    return [[name or None, address or None] for name, address in found if name or address]


def date(message):
    moment = attempt(lambda: message["date"].datetime)
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return attempt(lambda: moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S"))


def text(message):
    part = attempt(lambda: message.get_body(preferencelist=("plain", "html")))
    if part is None:
        return ""
    content = attempt(part.get_content)
    if not isinstance(content, str):
        payload = attempt(lambda: part.get_payload(decode=True)) or b""
        content = payload.decode("utf-8", "replace")
    if part.get_content_type() == "text/html":
        parser = Text()
        attempt(lambda: parser.feed(content))
        return "".join(parser.pieces)
    return content


def attachments(message):
    found = []
    waiting = [message]
    while waiting:
        part = waiting.pop(0)
        name = attempt(part.get_filename)
        if name:
            payload = attempt(lambda: part.get_payload(decode=True))
            found.append([str(name), len(payload) if payload is not None else None])
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting[:0] = part.get_payload()
    return found


def scalar(value):
    """Text without the lone surrogates in which raw bytes are kept."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def main():
    for path in sys.stdin:
        with open(path.rstrip("\n"), "rb") as file:
            raw = file.read()
        message = attempt(lambda: email.message_from_bytes(raw, policy=email.policy.default))
        if message is None:
            print(json.dumps({"refused": True}))
            continue
        subject = first(message, "subject")
        record = {
            "subject": scalar(str(subject)) if subject is not None else None,
            "from": [[scalar(name), scalar(address)] for name, address in people(message)],
            "date": date(message),
            "text": scalar(text(message)),
            "attachments": [[scalar(name), size] for name, size in attachments(message)],
        }
        print(json.dumps(record), flush=True)


main()
