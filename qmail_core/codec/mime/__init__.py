"""Messages as they travel: RFC 5322 and MIME <-> values. Reading never raises, writing refuses nonsense."""

from qmail_core.codec.mime.charset import decode_text
from qmail_core.codec.mime.compose import Attachment, Compose, compose, passed_on
from qmail_core.codec.mime.encode import writable_ids
from qmail_core.codec.mime.html import html_to_text, intro, link_cids, text_to_html
from qmail_core.codec.mime.mailbox import Person, domain_to_ascii, normalise_address, parse_addresses
from qmail_core.codec.mime.scan import Parsed, Part, scan
from qmail_core.codec.mime.thread import normal_subject, thread_keys
from qmail_core.codec.mime.transfer import Decoder, decode_part, decoder
from qmail_core.codec.mime.tree import Entity, Tree

__all__ = [
    "Attachment",
    "Compose",
    "Decoder",
    "Entity",
    "Parsed",
    "Part",
    "Person",
    "Tree",
    "compose",
    "decode_part",
    "decode_text",
    "decoder",
    "domain_to_ascii",
    "html_to_text",
    "intro",
    "link_cids",
    "normal_subject",
    "normalise_address",
    "parse_addresses",
    "passed_on",
    "scan",
    "text_to_html",
    "thread_keys",
    "writable_ids",
]
