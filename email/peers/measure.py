"""Mails a second of Python's `email` with BeautifulSoup and bleach, on one thread, by CPU time.

The arguments are folders of mails, one file each. Each row is one folder and one amount of work: headers and text, or
sanitised HTML as well.
"""

import email
import email.policy
import os
import sys
import time

import bleach
import bs4

SECONDS = 3.0
TAGS = {
    "a", "abbr", "b", "blockquote", "br", "code", "dd", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "i", "img", "li", "ol", "p", "pre", "s", "small", "span", "strong", "sub", "sup", "table", "tbody", "td",
    "tfoot", "th", "thead", "tr", "u", "ul",
}
ATTRIBUTES = {"a": ["href", "title"], "img": ["src", "alt", "width", "height"], "td": ["colspan"], "th": ["colspan"]}


def content(part):
    try:
        return part.get_content()
    except (LookupError, ValueError, AssertionError):
        return (part.get_payload(decode=True) or b"").decode("utf-8", "replace")


def read(raw, sanitise):
    message = email.message_from_bytes(raw, policy=email.policy.default)
    for name in ("subject", "from", "to", "date", "message-id", "references"):
        str(message[name])
    html = message.get_body(preferencelist=("html",))
    plain = message.get_body(preferencelist=("plain",))
    [(part.get_filename(), part.get_content_type()) for part in message.iter_attachments()]
    source = content(html) if html is not None else None
    text = content(plain) if plain is not None else None
    if text is None and source is not None:
        text = bs4.BeautifulSoup(source, "html.parser").get_text()
    if sanitise and source is not None:
        bleach.clean(source, tags=TAGS, attributes=ATTRIBUTES, protocols={"http", "https", "mailto", "cid"}, strip=True)
    return text


def attempt(raw, sanitise):
    """What it raises on broken mail is part of its work."""
    try:
        read(raw, sanitise)
    except Exception:
        return 1
    return 0


def main():
    for folder in sys.argv[1:]:
        mails = []
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                mails.append(file.read())
        size = sum(map(len, mails))
        for work, sanitise in (("headers and text", False), ("with sanitised HTML", True)):
            failed = sum(attempt(raw, sanitise) for raw in mails)
            rounds, start = 0, time.process_time()
            while (taken := time.process_time() - start) < SECONDS or rounds == 0:
                for raw in mails:
                    attempt(raw, sanitise)
                rounds += 1
            taken = time.process_time() - start
            print(
                f"| {os.path.basename(folder)} | Python {sys.version.split()[0]}: email, BeautifulSoup, bleach | {work} "
                f"| {rounds * len(mails) / taken:.0f} | {rounds * size / taken / 1e6:.1f} | {failed} |",
                flush=True,
            )


main()
