"""What is answered about addresses."""

from __future__ import annotations

from msgspec import Struct, field

from qmail_core.model import Address, Contact
from qmail_server.http.qmail.schema import class_of


class HasId(Struct, kw_only=True):
    command: str = "has-id"
    success: bool = True
    status: str = "success"
    has_id: bool = True


class FromSn(Struct, kw_only=True):
    command: str = "address-from-sn"
    success: bool = True
    status: str = "success"
    serial_number: int
    sn: int
    email: str
    first_name: str
    last_name: str
    description: str
    class_name: str
    class_: str = field(name="class")
    denomination: int
    from_directory: bool


class Base32(Struct, kw_only=True):
    command: str = "base32"
    success: bool = True
    status: str = "success"
    mode: str
    decimal: int
    base32: str


def from_sn(address: Address, text: str, contact: Contact | None) -> FromSn:
    """A mailbox by its number, with what is known of its owner."""
    name = class_of(address)
    return FromSn(
        serial_number=address.serial,
        sn=address.serial,
        email=text,
        first_name=contact.first_name if contact else "",
        last_name=contact.last_name if contact else "",
        description=contact.description if contact else "",
        class_name=name,
        class_=name,
        denomination=address.denomination,
        from_directory=contact is not None,
    )
