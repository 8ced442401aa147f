"""Every worked example of the wire description, and the test it runs in.

Rule: an example is tested once, where its codec is tested; `EXAMPLES` says where, and a name that no longer exists
fails here. Below are the examples no codec owns: they are facts about ciphers and hashes that codecs are built from.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import pytest

from qmail_core import _framing
from qmail_core.codec import address
from qmail_core.errors import AddressError
from qmail_core.model import Address
from tests import published
from tests.reference import framing

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "A.5 signature": ("codec.test_packet.test_the_documented_signature",),
    "A.7 echo, type 0, and its answer": (
        "codec.test_packet.test_the_documented_plain_echo",
        "ext.test_framing.test_worked_example_echo_in_clear",
    ),
    "A.7 echo, type 1": (
        "codec.test_packet.test_the_documented_encrypted_echo",
        "ext.test_framing.test_worked_example_echo_type_1",
    ),
    "A.7 keystream": ("codec.test_reference_examples.test_the_documented_keystream",),
    "A.7 ping": (
        "codec.test_packet.test_the_documented_ping",
        "ext.test_framing.test_worked_example_ping",
    ),
    "A.7 peek without mail": ("codec.test_packet.test_the_documented_answer_to_a_peek_without_mail",),
    "A.7 peek without mail, keystream continued": (
        "codec.test_reference_examples.test_the_documented_continuation_of_the_keystream",
    ),
    "A.7 ping timed out": ("codec.test_packet.test_the_documented_ping_time_out",),
    "B.3 authenticity number after fix": ("codec.test_healing.test_the_worked_example_of_a_fixed_coin",),
    "B.5.1 locker keys": ("codec.test_cipher.test_locker_keys_are_those_of_the_reference",),
    "B.5.2 number from a seed": ("codec.test_lockers.test_the_worked_example_of_a_seed",),
    "C.1 preamble": ("codec.test_mail.check_preamble",),
    "C.3 upload": ("codec.test_mail.test_the_documented_upload",),
    "C.5 download": ("codec.test_mail.test_the_documented_download",),
    "C.6.8 tell": ("codec.test_mail.test_the_documented_tell",),
    "D.2 stripes": ("codec.test_erasure.test_the_documented_stripes",),
    "D.5 reconstruction": ("codec.test_erasure.test_the_reconstruction_conformance_input",),
    "E.1 get_user": ("codec.test_directory.check_get_user",),
    "E.1 post_user": ("codec.test_directory.check_post_user",),
    "E.1 list_set, list_get": (
        "codec.test_directory.check_list_set_remove",
        "codec.test_directory.check_list_get",
    ),
    "E.1 fee": ("codec.test_directory.check_fee",),
    "E.1 class rejection": ("codec.test_directory.check_class_rejection",),
    "E.2 preload": ("codec.test_keys.check_preload",),
    "E.2 share": ("codec.test_keys.check_share",),
    "E.3 gate": ("raida.test_gate.check_vector",),
    "F matrix": (
        "codec.test_address.test_canonical_form_both_ways",
        "codec.test_address.test_accepted_forms",
        "codec.test_address.test_refused_texts_name_the_reason",
    ),
    "F.1 word list": ("codec.test_reference_examples.test_the_documented_words_are_for_contacts_only",),
    "F.2 pretty form": ("codec.test_address.test_accepted_forms",),
    "G vectors": (
        "codec.test_cbdf.check_meta_only",
        "codec.test_cbdf.check_phase1_body",
        "codec.test_cbdf.check_phase2_document",
    ),
    "H.3 vectors": (
        "codec.test_cbdf.test_vector",
        "codec.test_directory.test_vector",
        "codec.test_keys.test_vector",
        "codec.test_mail.test_published_vector",
    ),
}

AN = bytes(range(0xA0, 0xB0))
NONCE = bytes.fromhex("1122334455667788")


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_tested(example: str) -> None:
    for path in EXAMPLES[example]:
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(f"tests.{module}"), name)), path


def test_every_suite_of_vectors_is_known() -> None:
    suites = {path.name: len(published.names(path.name)) for path in published.FOLDER.iterdir() if path.is_dir()}
    assert suites == {"cbdf": 6, "drd": 7, "qmail": 4, "rke": 3}


def keystream(block: int, size: int) -> bytes:
    """Counter mode from a block on, by the native kernel and by the slow description."""
    iv = NONCE + block.to_bytes(8, "big")
    fast = bytearray(size)
    _framing.aes_ctr(AN, iv, bytes(size), fast)
    assert fast == framing.aes_ctr(AN, iv, bytes(size))
    return bytes(fast)


def test_the_documented_keystream() -> None:
    assert keystream(0, 64) == bytes.fromhex(
        "b0269cad735db36fc0384d390b7d23f2 611361d2dbe662eb039352b57f34afee"
        "c59cd8a271cfaf44138de0b5beff00da cd17bda0391efe5ee4950ca7d6c2a772"
    )


def test_the_documented_continuation_of_the_keystream() -> None:
    # the answer to a ping of 52 encrypted bytes goes on behind four blocks; its payload is eight zeros
    assert keystream(-(-52 // 16), 8) == bytes.fromhex("314c885a63bf0025")


def test_the_documented_words_are_for_contacts_only() -> None:
    # two clients read these words as different serial numbers, so only a contact may say which is meant
    meant = Address(1, 55_077)
    assert address.parse("@chariot.harbor.byte", {"@chariot.harbor.byte": meant}.get) == meant
    with pytest.raises(AddressError, match="add it to your contacts"):
        address.parse("@chariot.harbor.byte")
