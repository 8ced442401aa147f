# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Packet framing, AES-CTR and the bit interleave at machine speed.

Rule: this file checks shapes and owns buffers; the C files do the work and see only pointers and lengths. Every
object whose memory is in use is held by a tuple or a buffer view, so the GIL may be released at any time after the
checks. No secret enters an error message, and expanded keys are wiped before a function returns.
"""

from cpython.buffer cimport PyBUF_READ, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBUF_WRITE
from cpython.buffer cimport Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.sequence cimport PySequence_GetSlice
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import os

cdef extern from "wire.h" nogil:
    void qm_put_be16(uint8_t *p, uint32_t v)
    void qm_put_be32(uint8_t *p, uint32_t v)
    uint32_t qm_get_be32(const uint8_t *p)
    bint qm_equal(const uint8_t *a, const uint8_t *b, size_t n)
    void qm_wipe(void *p, size_t n)

cdef extern from "aes.h" nogil:
    enum:
        QM_AES_NONE, QM_AES_NI, QM_AES_VAES256, QM_AES_VAES512
    ctypedef struct qm_aes_key:
        pass
    int qm_aes_select(int limit)
    void qm_aes_expand(qm_aes_key *key, const uint8_t *data, size_t size)
    void qm_aes_ctr(const qm_aes_key *key, uint8_t *ctr, const uint8_t *data, uint8_t *out, size_t size)

cdef extern from "crc32.h" nogil:
    enum:
        QM_CRC_PORTABLE, QM_CRC_CLMUL, QM_CRC_VCLMUL
    int qm_crc32_select(int limit)
    uint32_t qm_crc32(uint32_t crc, const uint8_t *data, size_t size)
    uint32_t qm_crc32_combine(uint32_t first, uint32_t second, uint64_t size)

cdef extern from "sha256.h" nogil:
    ctypedef struct qm_sha256:
        pass
    ctypedef struct qm_hmac:
        pass
    int qm_sha256_select(int limit)
    void qm_sha256_init(qm_sha256 *h)
    void qm_sha256_update(qm_sha256 *h, const uint8_t *data, size_t size)
    void qm_sha256_final(qm_sha256 *h, uint8_t *digest)
    void qm_hmac_init(qm_hmac *h, const uint8_t *key, size_t size)
    void qm_hmac_update(qm_hmac *h, const uint8_t *data, size_t size)
    void qm_hmac_final(qm_hmac *h, uint8_t *mac)

cdef extern from "sha256_lanes.h" nogil:
    enum:
        QM_MANY_NONE, QM_MANY_PAIRS, QM_MANY_LANES

cdef extern from "sha256_many.h" nogil:
    ctypedef struct qm_stream:
        pass
    ctypedef struct qm_hmac_job:
        const uint8_t *key
        const uint8_t *data
        size_t size
        uint8_t *mac
    int qm_many_select(int limit)
    bint qm_many_helps()
    void qm_hmac_many(const qm_hmac_job *jobs, size_t count)

cdef extern from "seal.h" nogil:
    enum:
        QM_SHARDS, QM_CANARY
    ctypedef struct qm_shards:
        uint8_t **at
        size_t count
        size_t size
    ctypedef struct qm_segment:
        qm_shards shards
        size_t text, columns, blocks
        uint32_t leaf[QM_SHARDS][8]
        uint8_t digest[32]
    void qm_seal_text(const qm_shards *shards, size_t k, const uint8_t *key, const uint8_t *plain, size_t size,
                      const uint8_t *canary)
    void qm_seal_key(const qm_shards *shards, size_t text, const uint8_t *key, const uint8_t *digest)
    void qm_seal_digests(qm_segment *segments, size_t count, qm_stream *streams)
    void qm_leaf_digests(qm_segment *segment, qm_stream *streams, uint8_t (*digest)[32])
    int qm_unseal(const qm_shards *shards, const uint8_t *digest, uint8_t *plain, size_t size, const uint8_t *canary)
    void qm_tree_node(const uint8_t *left, const uint8_t *right, uint8_t *out)

cdef extern from "interleave.h" nogil:
    enum:
        QM_BITS_PORTABLE, QM_BITS_BMI2, QM_BITS_AVX512
    int qm_bits_select(int limit)
    void qm_interleave(const uint8_t *block, size_t size, unsigned d, uint8_t **stripes)
    void qm_deinterleave(const uint8_t **stripes, unsigned d, uint8_t *block, size_t size)

_PATHS = {
    "aes": {"openssl": QM_AES_NONE, "aesni": QM_AES_NI, "vaes256": QM_AES_VAES256, "vaes512": QM_AES_VAES512},
    "sha": {"portable": 0, "shani": 1},
    "many": {"single": QM_MANY_NONE, "pairs": QM_MANY_PAIRS, "lanes": QM_MANY_LANES},
    "bits": {"portable": QM_BITS_PORTABLE, "bmi2": QM_BITS_BMI2, "avx512": QM_BITS_AVX512},
    "crc": {"portable": QM_CRC_PORTABLE, "pclmul": QM_CRC_CLMUL, "vpclmul": QM_CRC_VCLMUL},
}

cdef enum:
    INLINE_MAX = 16384      # below this a call is shorter than giving up the GIL and getting it back
    PACK_INLINE_MAX = 65536
    CHUNK = 8192            # a chunk is copied, encrypted and hashed while it is in the first-level cache
    LENGTH_MAX = 65535      # what the 16-bit body length can say
    TRAILER = 0x3E

cdef bint aes_native = False


def _select(kernel, path):
    """Choose the implementation of one kernel, for tests and benchmarks; no other thread may be in this module.

    kernel   "aes", "sha", "many", "bits" or "crc"
    path     aes: openssl, aesni, vaes256, vaes512; sha: portable, shani; many: single, pairs, lanes;
             bits: portable, bmi2, avx512; crc: portable, pclmul, vpclmul
    returns  True if that is now in use, False if the processor lacks it (then the next best one is)
    raises   KeyError for other words
    """
    global aes_native
    cdef int want = _PATHS[kernel][path]
    cdef int got
    if kernel == "aes":
        got = qm_aes_select(want)
        aes_native = got != QM_AES_NONE
    elif kernel == "sha":
        got = qm_sha256_select(want)
    elif kernel == "many":
        got = qm_many_select(want)
    elif kernel == "crc":
        got = qm_crc32_select(want)
    else:
        got = qm_bits_select(want)
    return got == want


_select("aes", "openssl" if os.environ.get("QMAIL_AES") == "openssl" else "vaes512")
_select("sha", "shani")
_select("many", "lanes")
_select("bits", "avx512")
_select("crc", "vpclmul")
has_aes = bool(aes_native)     # what was chosen at import; False means OpenSSL does the ciphers


# ---- buffers

cdef struct Held:
    Py_buffer *views        # room for every buffer the call can need; NULL until the first one that is not bytes
    Py_ssize_t room, count


cdef int hold(Held *held, object source, const uint8_t **data, Py_ssize_t *size, bint writable=False) except -1:
    """Find the memory of `source`. Bytes cost nothing: the caller's tuple keeps them; others get a view."""
    cdef Py_buffer *view
    if not writable and PyBytes_CheckExact(source):
        data[0] = <const uint8_t *>PyBytes_AS_STRING(source)
        size[0] = PyBytes_GET_SIZE(source)
        return 0
    if held.views == NULL:
        held.views = <Py_buffer *>PyMem_Malloc(held.room * sizeof(Py_buffer))
        if held.views == NULL:
            raise MemoryError
    view = held.views + held.count
    PyObject_GetBuffer(source, view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
    held.count += 1
    data[0] = <const uint8_t *>view.buf
    size[0] = view.len
    return 0


cdef void let_go(Held *held) noexcept:
    cdef Py_ssize_t i
    for i in range(held.count):
        PyBuffer_Release(held.views + i)
    PyMem_Free(held.views)


# ---- ciphers and hashes

cdef object _openssl_ctr(bytes key, bytes iv, object data, object out):
    """Counter mode where the processor has no AES instructions; `out` may be the memory of `data`."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update_into(data, out)


cdef void ctr(const uint8_t *key, size_t key_size, const uint8_t *iv, const uint8_t *data, uint8_t *out,
              size_t size) noexcept nogil:
    cdef qm_aes_key schedule
    cdef uint8_t counter[16]
    memcpy(counter, iv, 16)
    qm_aes_expand(&schedule, key, key_size)
    qm_aes_ctr(&schedule, counter, data, out, size)
    qm_wipe(&schedule, sizeof(schedule))


def aes_ctr(key, iv, data, out):
    """Encrypt or decrypt with AES in counter mode.

    key      16 bytes (AES-128) or 32 bytes (AES-256)
    iv       16 bytes, the first counter block; incremented as one 128-bit big-endian number
    data     n bytes
    out      n writable bytes; may be exactly the memory of data, must not overlap it otherwise
    returns  None
    raises   ValueError for a wrong size or a partial overlap; BufferError if out is read-only
    cost     O(n), constant time; releases the GIL above 16 KiB; without AES instructions OpenSSL does the work
    source   QMail wire A.3.2, A.3.3; NIST SP 800-38A 6.5
    """
    cdef Held held = Held(NULL, 3, 0)
    cdef Py_buffer target
    cdef const uint8_t *k
    cdef const uint8_t *v
    cdef const uint8_t *p
    cdef uint8_t *o
    cdef Py_ssize_t k_size, v_size, size
    PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
    try:
        hold(&held, key, &k, &k_size)
        hold(&held, iv, &v, &v_size)
        hold(&held, data, &p, &size)
        o = <uint8_t *>target.buf
        if k_size != 16 and k_size != 32:
            raise ValueError(f"key must be 16 or 32 bytes, got {k_size}")
        if v_size != 16:
            raise ValueError(f"iv must be 16 bytes, got {v_size}")
        if target.len != size:
            raise ValueError(f"out must be as long as data ({size} bytes), got {target.len}")
        if size == 0:
            return
        if o != p and o < p + size and p < o + size:
            raise ValueError("out overlaps data without being the same memory")
        if not aes_native:
            _openssl_ctr(k[:k_size], v[:16], PyMemoryView_FromMemory(<char *>p, size, PyBUF_READ),
                         PyMemoryView_FromMemory(<char *>o, size, PyBUF_WRITE))
        elif size > INLINE_MAX:
            with nogil:
                ctr(k, k_size, v, p, o, size)
        else:
            ctr(k, k_size, v, p, o, size)
    finally:
        let_go(&held)
        PyBuffer_Release(&target)


def sha256(data):
    """Hash with SHA-256.

    data     n bytes
    returns  32 bytes
    cost     O(n); releases the GIL above 16 KiB
    source   FIPS 180-4
    """
    cdef Held held = Held(NULL, 1, 0)
    cdef qm_sha256 state
    cdef const uint8_t *p
    cdef Py_ssize_t size
    cdef uint8_t digest[32]
    try:
        hold(&held, data, &p, &size)
        qm_sha256_init(&state)
        if size > INLINE_MAX:
            with nogil:
                qm_sha256_update(&state, p, size)
        else:
            qm_sha256_update(&state, p, size)
        qm_sha256_final(&state, digest)
    finally:
        let_go(&held)
    return digest[:32]


def hmac_sha256(key, data):
    """Authenticate with HMAC-SHA-256.

    key      bytes of any length
    data     n bytes
    returns  32 bytes
    cost     O(n), constant time in the key; releases the GIL above 16 KiB
    source   RFC 2104; QMail wire A.3.3
    """
    cdef Held held = Held(NULL, 2, 0)
    cdef qm_hmac state
    cdef const uint8_t *k
    cdef const uint8_t *p
    cdef Py_ssize_t k_size, size
    cdef uint8_t mac[32]
    try:
        hold(&held, key, &k, &k_size)
        hold(&held, data, &p, &size)
        qm_hmac_init(&state, k, k_size)
        if size > INLINE_MAX:
            with nogil:
                qm_hmac_update(&state, p, size)
        else:
            qm_hmac_update(&state, p, size)
        qm_hmac_final(&state, mac)
    finally:
        let_go(&held)
    return mac[:32]


def crc32(data, value=0):
    """Continue a CRC-32, as zlib.crc32 does.

    data     n bytes
    value    CRC of what came before; only its low 32 bits count
    returns  0 .. 2^32 - 1
    cost     O(n); releases the GIL above 16 KiB
    source   RFC 1952 section 8
    """
    cdef Held held = Held(NULL, 1, 0)
    cdef const uint8_t *p
    cdef Py_ssize_t size
    cdef uint32_t crc = <uint32_t>(value & 0xFFFFFFFF)
    try:
        hold(&held, data, &p, &size)
        if size > INLINE_MAX:
            with nogil:
                crc = qm_crc32(crc, p, size)
        else:
            crc = qm_crc32(crc, p, size)
    finally:
        let_go(&held)
    return crc


def crc32_combine(first, second, size):
    """The CRC-32 of two pieces in a row, for pieces that were hashed apart.

    first, second   their CRC-32
    size            bytes of the second, >= 0
    returns         0 .. 2^32 - 1
    cost            O(log size)
    """
    return qm_crc32_combine(first, second, size)


# ---- bit interleave

def interleave(block, Py_ssize_t d):
    """Spread the bits of a block over stripes, bit k to stripe k mod d.

    block    n bytes, n >= 0; bits are counted from the least significant bit of byte 0
    d        stripes, 2..31
    returns  d stripes of ceil(n / d) bytes, zero-padded; equal to ceil(ceil(8 n / d) / 8)
    raises   ValueError if d is out of range
    cost     O(n); releases the GIL above 16 KiB
    source   QMail wire D.2
    """
    cdef Held held = Held(NULL, 1, 0)
    cdef const uint8_t *p
    cdef uint8_t *parts[31]
    cdef Py_ssize_t size, i
    if d < 2 or d > 31:
        raise ValueError(f"d must be 2..31, got {d}")
    stripes = []
    try:
        hold(&held, block, &p, &size)
        for i in range(d):
            stripe = PyBytes_FromStringAndSize(NULL, size // d + (size % d != 0))
            parts[i] = <uint8_t *>PyBytes_AS_STRING(stripe)
            stripes.append(stripe)
        if size > INLINE_MAX:
            with nogil:
                qm_interleave(p, size, <unsigned>d, parts)
        elif size:      # no bytes, no stores: an empty bytes object is shared by the whole process
            qm_interleave(p, size, <unsigned>d, parts)
    finally:
        let_go(&held)
    return stripes


def deinterleave(stripes, Py_ssize_t length):
    """Gather the bits of a block from its stripes, the inverse of `interleave`.

    stripes  d = 2..31 buffers of at least ceil(length / d) bytes; bits beyond the block are ignored
    length   bytes of the block, >= 0
    returns  the block
    raises   ValueError for a wrong count, a negative length, or a stripe that is too short
    cost     O(length); releases the GIL above 16 KiB
    source   QMail wire D.2
    """
    cdef tuple sources = tuple(stripes)
    cdef Py_ssize_t d = len(sources)
    cdef Held held = Held(NULL, d, 0)
    cdef const uint8_t *parts[31]
    cdef Py_ssize_t need, size, i
    cdef uint8_t *out
    if d < 2 or d > 31:
        raise ValueError(f"there must be 2..31 stripes, got {d}")
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    need = length // d + (length % d != 0)
    try:
        for i in range(d):
            hold(&held, sources[i], &parts[i], &size)
            if size < need:
                raise ValueError(f"stripe {i} holds {size} bytes, a block of {length} over {d} stripes needs {need}")
        block = PyBytes_FromStringAndSize(NULL, length)
        out = <uint8_t *>PyBytes_AS_STRING(block)
        if length > INLINE_MAX:
            with nogil:
                qm_deinterleave(parts, <unsigned>d, out, length)
        elif length:
            qm_deinterleave(parts, <unsigned>d, out, length)
    finally:
        let_go(&held)
    return block


# ---- request frames

cdef struct Layout:         # what all frames of one call share
    int group, command, enc, page
    int header              # 32 or 48 bytes
    int lead                # challenge bytes in the plaintext, 16 or 0
    int nonce               # nonce bytes, in front of the 12 challenge bytes in the entropy
    int key                 # key bytes, 0 for type 0
    bint long_body          # the 32-bit length at header bytes 10..13 (QMail wire A.2.1)


cdef struct Frame:
    const uint8_t *head
    const uint8_t *tail
    const uint8_t *key
    const uint8_t *selector
    const uint8_t *entropy
    Py_ssize_t head_size, tail_size
    size_t plain            # challenge, head and tail
    size_t body             # what the length field says: ciphertext, authentication code, trailer
    uint8_t raida
    uint8_t *out


cdef void write_header(const Layout *what, const Frame *f) noexcept nogil:
    cdef uint8_t *p = f.out
    cdef uint32_t short_size = LENGTH_MAX if f.body > LENGTH_MAX else <uint32_t>f.body
    memset(p, 0, what.header)
    p[0] = 0 if what.group == 6 and 76 <= what.command <= 84 else 1
    p[2] = f.raida
    p[4] = <uint8_t>what.group
    p[5] = <uint8_t>what.command
    p[7] = 6                                            # coin id 0006, QMail wire A.2
    if what.long_body:
        qm_put_be32(p + 10, <uint32_t>f.body)
        qm_put_be16(p + 14, <uint32_t>what.page)
    p[16] = <uint8_t>what.enc
    if what.enc == 4:                                   # A.3.3
        qm_put_be16(p + 17, short_size)
        memcpy(p + 19, f.selector, 5)
        memcpy(p + 24, f.entropy, 24)
        return
    qm_put_be16(p + 22, short_size)                     # A.3.2
    if what.enc == 0:
        memcpy(p + 30, f.entropy + 6, 2)                # only the echo
    else:
        memcpy(p + 17, f.selector, 5)
        memcpy(p + 24, f.entropy, 8)


cdef inline void copy_part(uint8_t *to, size_t start, size_t end, const uint8_t *part, size_t at,
                           size_t size) noexcept nogil:
    """Copy what of `part`, which lies at `at` in the plaintext, falls into [start, end); `to` is where start goes."""
    cdef size_t a = start if start > at else at
    cdef size_t b = end if end < at + size else at + size
    if a < b:
        memcpy(to + (a - start), part + (a - at), b - a)


cdef void write_frame(const Layout *what, const Frame *f, bint encrypt, bint authenticate) noexcept nogil:
    """Header, then the body in one pass: each chunk is gathered, encrypted in place and hashed while it is hot."""
    cdef uint8_t challenge[16]
    cdef uint8_t counter[16]
    cdef qm_aes_key schedule
    cdef qm_hmac mac
    cdef uint8_t *body = f.out + what.header
    cdef size_t at = 0, end
    cdef bint cipher = encrypt and what.enc != 0
    write_header(what, f)
    memcpy(challenge, f.entropy + what.nonce, 12)
    qm_put_be32(challenge + 12, qm_crc32(0, challenge, 12))
    if cipher:
        memset(counter, 0, 16)
        memcpy(counter, f.entropy, 16 if what.enc == 4 else 8)
        qm_aes_expand(&schedule, f.key, what.key)
    if authenticate:
        qm_hmac_init(&mac, f.key, 32)
    while at < f.plain:
        end = at + CHUNK if f.plain - at > CHUNK else f.plain
        copy_part(body + at, at, end, challenge, 0, what.lead)
        copy_part(body + at, at, end, f.head, what.lead, f.head_size)
        copy_part(body + at, at, end, f.tail, what.lead + f.head_size, f.tail_size)
        if cipher:
            qm_aes_ctr(&schedule, counter, body + at, body + at, end - at)
        if authenticate:
            qm_hmac_update(&mac, body + at, end - at)
        at = end
    if authenticate:
        qm_hmac_final(&mac, body + f.plain)
    if cipher:
        qm_wipe(&schedule, sizeof(schedule))
    body[f.body - 2] = TRAILER
    body[f.body - 1] = TRAILER


cdef void write_frames(const Layout *what, const Frame *frames, Py_ssize_t n, qm_hmac_job *jobs) noexcept nogil:
    """All frames; `jobs` is room for authenticating them together, or NULL to do it one after the other."""
    cdef const Frame *f
    cdef Py_ssize_t i
    for i in range(n):
        f = frames + i
        write_frame(what, f, True, what.enc == 4 and jobs == NULL)
        if jobs != NULL:
            jobs[i] = qm_hmac_job(f.key, f.out + what.header, f.plain, f.out + what.header + f.plain)
    if jobs != NULL:
        qm_hmac_many(jobs, n)


cdef object seal_by_openssl(const Layout *what, const Frame *f, bytearray frame):
    """Encrypt and authenticate a frame that write_frame left in plain text."""
    cdef qm_hmac mac
    cdef uint8_t *body = f.out + what.header
    cdef bytes iv = f.entropy[:16] if what.enc == 4 else f.entropy[:8] + bytes(8)
    view = memoryview(frame)[what.header:what.header + f.plain]
    _openssl_ctr(f.key[:what.key], iv, view, view)
    if what.enc == 4:
        qm_hmac_init(&mac, f.key, 32)
        qm_hmac_update(&mac, body, f.plain)
        qm_hmac_final(&mac, body + f.plain)


cdef int plan(Layout *what, int group, int command, int enc, int page) except -1:
    if group < 0 or group > 255 or command < 0 or command > 255:
        raise ValueError(f"group and command must be 0..255, got {group} and {command}")
    if enc != 0 and enc != 1 and enc != 2 and enc != 4:
        raise ValueError(f"enc must be 0, 1, 2 or 4, got {enc}")
    if page < 0 or page > 65535:
        raise ValueError(f"page must be 0..65535, got {page}")
    what.group, what.command, what.enc, what.page = group, command, enc, page
    what.long_body = group == 6 and 75 <= command <= 84
    if page and not (what.long_body and command == 75):
        raise ValueError(f"only group 6 command 75 carries a page, not group {group} command {command}")
    what.header = 48 if enc == 4 else 32
    what.lead = 16 if enc != 4 or group == 6 else 0
    what.nonce = 24 if enc == 4 else 8
    what.key = 0 if enc == 0 else 32 if enc == 4 else 16
    return 0


def pack_many(int group, int command, int enc, raidas, keys, selectors, heads, tails, entropy, int page=0):
    """Build one complete request frame per server.

    group, command   0..255; group 6 commands 75..84 get the 32-bit body length
    enc              0 clear, 1 coin AN, 2 locker key (32-byte header, AES-128), 4 (48-byte header, AES-256 and HMAC)
    raidas           n server indexes, 0..255; the five sequences have one entry per frame
    keys             16 bytes for enc 1 and 2, 32 bytes (SHA-256 of the AN) for enc 4; not looked at for enc 0
    selectors        5 bytes: DN and SN, or the first locker key bytes for enc 2; not looked at for enc 0
    heads, tails     the body after the challenge is head + tail
    entropy          20 random bytes per frame (nonce 8, challenge 12), 36 for enc 4 (nonce 24, challenge 12)
    page             0..65535, for group 6 command 75 only
    returns          n new frames: header, body, trailer; for enc 4 the challenge is there in group 6 only
    raises           ValueError for sizes, ranges, or a body above 65535 bytes where the length has 16 bits
    cost             O(bytes), one pass; releases the GIL above 64 KiB in total
    source           QMail wire A.2, A.3.2, A.3.3, A.4
    """
    cdef Layout what
    cdef tuple r = tuple(raidas), k = tuple(keys), s = tuple(selectors), h = tuple(heads), t = tuple(tails)
    cdef Py_ssize_t n = len(r), size, i, total = 0
    cdef Held held = Held(NULL, 4 * n + 1, 0)
    cdef const uint8_t *random
    cdef Frame *frames
    cdef Frame *f
    cdef qm_hmac_job *jobs = NULL
    cdef int raida
    cdef list out = []
    plan(&what, group, command, enc, page)
    if len(k) != n or len(s) != n or len(h) != n or len(t) != n:
        raise ValueError("raidas, keys, selectors, heads and tails must have one entry per frame, "
                         f"got {n}, {len(k)}, {len(s)}, {len(h)} and {len(t)}")
    frames = <Frame *>PyMem_Malloc((n + 1) * sizeof(Frame))
    if enc == 4 and n > 1 and qm_many_helps():
        jobs = <qm_hmac_job *>PyMem_Malloc(n * sizeof(qm_hmac_job)) # if there is no room: one after the other
    try:
        if frames == NULL:
            raise MemoryError
        hold(&held, entropy, &random, &size)
        if size != n * (what.nonce + 12):
            raise ValueError(f"entropy must be {what.nonce + 12} bytes per frame, {n * (what.nonce + 12)} in all, "
                             f"got {size}")
        for i in range(n):
            f = frames + i
            raida = r[i]
            if raida < 0 or raida > 255:
                raise ValueError(f"frame {i}: raida must be 0..255, got {raida}")
            f.raida = <uint8_t>raida
            if enc != 0:
                hold(&held, k[i], &f.key, &size)
                if size != what.key:
                    raise ValueError(f"frame {i}: key must be {what.key} bytes for type {enc}, got {size}")
                hold(&held, s[i], &f.selector, &size)
                if size != 5:
                    raise ValueError(f"frame {i}: selector must be 5 bytes, got {size}")
            hold(&held, h[i], &f.head, &f.head_size)
            hold(&held, t[i], &f.tail, &f.tail_size)
            f.entropy = random + i * (what.nonce + 12)
            f.plain = <size_t>what.lead + <size_t>f.head_size + <size_t>f.tail_size
            f.body = f.plain + (34 if enc == 4 else 2)
            if f.body > LENGTH_MAX and not what.long_body:
                raise ValueError(f"frame {i}: body of {f.body} bytes is above the limit of {LENGTH_MAX} "
                                 f"for group {group} command {command}")
            if f.body > <size_t>0xFFFFFFFF:
                raise ValueError(f"frame {i}: body of {f.body} bytes is above the limit of {0xFFFFFFFF}")
        for i in range(n):      # nothing is allocated before everything is checked
            f = frames + i
            frame = PyByteArray_FromStringAndSize(NULL, what.header + f.body)
            f.out = <uint8_t *>PyByteArray_AS_STRING(frame)
            total += what.header + f.body
            out.append(frame)
        if not aes_native:
            for i in range(n):
                write_frame(&what, frames + i, False, False)
                if enc != 0:
                    seal_by_openssl(&what, frames + i, out[i])
        elif total > PACK_INLINE_MAX:
            with nogil:
                write_frames(&what, frames, n, jobs)
        else:
            write_frames(&what, frames, n, jobs)
    finally:
        let_go(&held)
        PyMem_Free(frames)
        PyMem_Free(jobs)
    return out


# ---- answers

cdef bint is_success(int status) noexcept nogil:
    return status == 0 or status == 241 or status == 250


cdef object distrust(int node, str why):
    raise ValueError(f"node {node}: {why}")


cdef object unpack_short(object frame, uint8_t *p, Py_ssize_t size, int node, int enc, const uint8_t *key,
                         const uint8_t *draw):
    cdef uint8_t expected[16]
    cdef uint8_t counter[16]
    cdef Py_ssize_t i, plain
    cdef int status = p[2]
    cdef uint32_t micros = qm_get_be32(p + 12)
    if enc == 4:
        # a 32-byte header answers a type 4 request only when the node refused it before reading the type
        if is_success(status):
            distrust(node, "success without proof of the key")
        return status, micros, b""
    if is_success(status) or size > 32:
        # other bare statuses may be refusals made before the key was known: unsigned, and good for nothing but failing
        memcpy(expected, draw + 8, 12)
        qm_put_be32(expected + 12, qm_crc32(0, expected, 12))
        if enc != 0:
            for i in range(16):
                expected[i] ^= key[i]
        if not qm_equal(p + 16, expected, 16):
            distrust(node, "answer is not signed for this request")
    if size == 32:
        return status, micros, b""
    if size < 34 or p[size - 2] != TRAILER or p[size - 1] != TRAILER:
        distrust(node, "answer without trailer")
    plain = size - 34
    if enc != 0 and plain:
        memset(counter, 0, 16)
        memcpy(counter, draw, 8)
        decrypt(frame, key, 16, counter, p, 32, plain)
    return status, micros, PySequence_GetSlice(frame, 32, size - 2)


cdef object unpack_long(object frame, uint8_t *p, Py_ssize_t size, int node, const uint8_t *key, const uint8_t *draw):
    cdef qm_hmac state
    cdef uint8_t mac[32]
    cdef Py_ssize_t plain = size - 82
    cdef int status = p[2]
    cdef uint32_t micros = qm_get_be32(p + 4)
    if p[46] != draw[22] or p[47] != draw[23]:
        distrust(node, "answer belongs to another request")
    if size == 48:
        return status, micros, b""
    if plain < 0 or p[size - 2] != TRAILER or p[size - 1] != TRAILER:
        distrust(node, "answer without trailer")
    qm_hmac_init(&state, key, 32)
    if plain > INLINE_MAX:
        with nogil:
            qm_hmac_update(&state, p + 48, plain)
    else:
        qm_hmac_update(&state, p + 48, plain)
    qm_hmac_final(&state, mac)
    if not qm_equal(mac, p + size - 34, 32):
        distrust(node, "answer fails its HMAC")
    if plain:
        decrypt(frame, key, 32, p + 24, p, 48, plain)
    return status, micros, PySequence_GetSlice(frame, 48, size - 34)


cdef int decrypt(object frame, const uint8_t *key, size_t key_size, const uint8_t *iv, uint8_t *p, Py_ssize_t start,
                 Py_ssize_t size) except -1:
    if not aes_native:
        part = PyMemoryView_FromMemory(<char *>p + start, size, PyBUF_WRITE)
        _openssl_ctr(key[:key_size], iv[:16], part, part)
    elif size > INLINE_MAX:
        with nogil:
            ctr(key, key_size, iv, p + start, p + start, size)
    else:
        ctr(key, key_size, iv, p + start, p + start, size)
    return 0


def unpack(frame, int node, int enc, key, draw):
    """Check one answer and decrypt it in place.

    frame    the whole answer, a writable memoryview of single bytes
    node     index of the node that was asked, 0..255
    enc      encryption type of the request: 0, 1, 2 or 4
    key      its key: 16 bytes for enc 1 and 2, 32 for enc 4; not looked at for enc 0
    draw     the entropy its frame was made with: 20 bytes, 36 for enc 4
    returns  (status, execution microseconds, payload); the payload is a view into frame, or b"" if there is no body
    raises   ValueError naming the node if the answer is not from it, not to this request, altered, or not of the size
             its header says; the frame is then as it was
    cost     O(bytes); compares in constant time; releases the GIL above 16 KiB
    source   QMail wire A.5
    """
    cdef Held held = Held(NULL, 2, 0)
    cdef Py_buffer view
    cdef const uint8_t *k = NULL
    cdef const uint8_t *d
    cdef uint8_t *p
    cdef Py_ssize_t k_size, d_size, size
    cdef Py_ssize_t header = 32
    if enc != 0 and enc != 1 and enc != 2 and enc != 4:
        raise ValueError(f"enc must be 0, 1, 2 or 4, got {enc}")
    PyObject_GetBuffer(frame, &view, PyBUF_WRITABLE)
    try:
        p = <uint8_t *>view.buf
        size = view.len
        hold(&held, draw, &d, &d_size)
        if d_size != (36 if enc == 4 else 20):
            raise ValueError(f"draw must be {36 if enc == 4 else 20} bytes, got {d_size}")
        if enc != 0:
            hold(&held, key, &k, &k_size)
            if k_size != (32 if enc == 4 else 16):
                raise ValueError(f"key must be {32 if enc == 4 else 16} bytes for type {enc}, got {k_size}")
        if size >= 1 and p[0] != node:
            raise ValueError(f"node {node} answered as node {p[0]}")
        if size > 16 and enc == 4 and p[16] == 4:
            header = 48
        if size < header or size != header + (p[9] << 16 | p[10] << 8 | p[11]):
            distrust(node, "answer is not as long as its header says")
        if header == 48:
            return unpack_long(frame, p, size, node, k, d)
        return unpack_short(frame, p, size, node, enc, k, d)
    finally:
        let_go(&held)
        PyBuffer_Release(&view)


# ---- sealing and digest trees (docs/erasure.md)

cdef int take_shards(Held *held, tuple sources, qm_shards *out, bint writable) except -1:
    """Find the memory of all shards; `held` has room for one view each."""
    cdef Py_ssize_t i, size
    cdef const uint8_t *p
    cdef Py_ssize_t count = len(sources)
    if count < 1 or count > QM_SHARDS:
        raise ValueError(f"there must be 1..{QM_SHARDS} shards, got {count}")
    out.count = count
    for i in range(count):
        hold(held, sources[i], &p, &size, writable)
        out.at[i] = <uint8_t *>p
        if i == 0:
            out.size = size
        elif <size_t>size != out.size:
            raise ValueError(f"shard {i} has {size} bytes, the first has {out.size}")
    return 0


cdef int take(Held *held, object source, Py_ssize_t want, str name, const uint8_t **data) except -1:
    cdef Py_ssize_t size
    hold(held, source, data, &size)
    if size != want:
        raise ValueError(f"{name} must be {want} bytes, got {size}")
    return 0


cdef int check_text(const qm_shards *shards, Py_ssize_t k, Py_ssize_t text, Py_ssize_t behind) except -1:
    """A text of `text` bytes, and `behind` bytes behind it, must lie in the first k shards."""
    if k < 1 or <size_t>k > shards.count:
        raise ValueError(f"k must be 1..{shards.count}, got {k}")
    if text < 0 or shards.size == 0 or <size_t>(text + behind) > <size_t>k * shards.size:
        raise ValueError(f"{text} + {behind} bytes are not inside {k} shards of {shards.size} bytes")
    return 0


def raw_buffer(Py_ssize_t size):
    """Make a bytearray whose content is undefined, for callers that fill all of it before anybody sees it.

    size     bytes, >= 0
    raises   ValueError if size is negative
    """
    if size < 0:
        raise ValueError(f"size must not be negative, got {size}")
    return PyByteArray_FromStringAndSize(NULL, size)


def seal_text(plain, key, canary, shards):
    """Encrypt a segment into its data shards: AES-256-CTR of plain and canary, zeros to the end.

    plain    n bytes
    key      32 bytes, used for this segment only
    canary   16 bytes
    shards   k writable buffers of one size, together at least n + 48 bytes, none overlapping another or plain
    returns  None
    raises   ValueError for wrong sizes
    cost     one pass, constant time; releases the GIL
    source   docs/erasure.md, Sealing
    """
    cdef tuple sources = tuple(shards)
    cdef Held held = Held(NULL, len(sources) + 3, 0)
    cdef qm_shards s
    cdef const uint8_t *p
    cdef const uint8_t *k
    cdef const uint8_t *mark
    cdef Py_ssize_t size, at, part
    try:
        take_shards(&held, sources, &s, True)
        hold(&held, plain, &p, &size)
        take(&held, key, 32, "key", &k)
        take(&held, canary, QM_CANARY, "canary", &mark)
        check_text(&s, s.count, size, QM_CANARY + 32)
        if aes_native:
            with nogil:
                qm_seal_text(&s, s.count, k, p, size, mark)
            return
        body = bytearray(<Py_ssize_t>(s.count * s.size))
        body[:size] = PyMemoryView_FromMemory(<char *>p, size, PyBUF_READ) if size else b""
        body[size:size + QM_CANARY] = mark[:QM_CANARY]
        with memoryview(body)[:size + QM_CANARY] as text:
            _openssl_ctr(k[:32], bytes(16), text, text)
        for at in range(<Py_ssize_t>s.count):
            memcpy(s.at[at], PyByteArray_AS_STRING(body) + at * s.size, s.size)
    finally:
        let_go(&held)


def seal_key(shards, Py_ssize_t text, key, digest):
    """Hide the key of a sealed segment behind its text: key XOR digest, 32 bytes.

    shards   the k data shards, writable
    text     bytes of the text, canary included
    raises   ValueError for wrong sizes
    source   docs/erasure.md, Sealing
    """
    cdef tuple sources = tuple(shards)
    cdef Held held = Held(NULL, len(sources) + 2, 0)
    cdef qm_shards s
    cdef const uint8_t *k
    cdef const uint8_t *d
    try:
        take_shards(&held, sources, &s, True)
        take(&held, key, 32, "key", &k)
        take(&held, digest, 32, "digest", &d)
        check_text(&s, s.count, text, 32)
        qm_seal_key(&s, text, k, d)
    finally:
        let_go(&held)


def text_digests(rows, Py_ssize_t k, texts, columns):
    """Hash the texts of segments and, in the gaps of that, as much of all leaves as is final already.

    rows     per segment at least k buffers of one size, data first
    k        how many of them hold the text
    texts    per segment the bytes of its text, which starts shard 0 and runs on through the others
    columns  per segment how many bytes at the start of each shard may be hashed into its leaf; 0 for none
    returns  per segment (SHA-256 of the text, state of the leaves for `leaf_digests`)
    raises   ValueError for wrong sizes
    cost     one pass; two texts take little longer than one: a text is a chain that two can share the processor with;
             releases the GIL
    source   docs/erasure.md, Sealing and Integrity
    """
    cdef list sources = [tuple(row) for row in rows]
    cdef Py_ssize_t n = len(sources), i, total = sum(map(len, sources)), text, column
    cdef Held held = Held(NULL, total, 0)
    cdef qm_segment *segments = <qm_segment *>PyMem_Malloc((n + 1) * sizeof(qm_segment))
    cdef qm_stream *streams = <qm_stream *>PyMem_Malloc((n + total + 1) * sizeof(qm_stream))
    cdef qm_segment *s
    try:
        if segments == NULL or streams == NULL:
            raise MemoryError
        i = 0
        for row, text, column in zip(sources, texts, columns, strict=True):
            s = segments + i
            take_shards(&held, row, &s.shards, False)
            check_text(&s.shards, k, text, 0)
            if column < 0 or <size_t>column > s.shards.size:
                raise ValueError(f"columns must be 0..{s.shards.size}, got {column}")
            s.text, s.columns = text, column
            i += 1
        with nogil:
            qm_seal_digests(segments, n, streams)
        out = []
        for i in range(n):
            s = segments + i
            state = PyBytes_FromStringAndSize(<char *>s.leaf, 32 * s.shards.count) if s.blocks else b""
            out.append((s.digest[:32], (s.blocks, state)))
        return out
    finally:
        let_go(&held)
        PyMem_Free(segments)
        PyMem_Free(streams)


def leaf_digests(shards, state=(0, b"")):
    """SHA-256(0x00 || shard) of every shard.

    shards   1..255 buffers of one size
    state    from `text_digests` of the same shards
    returns  32 bytes for each
    raises   ValueError for a wrong count, different sizes, or the state of something else
    cost     one pass, sixteen shards at a time where the processor can; releases the GIL
    source   docs/erasure.md, Integrity
    """
    cdef tuple sources = tuple(shards)
    cdef Held held = Held(NULL, len(sources) + 1, 0)
    cdef qm_segment s
    cdef qm_stream streams[QM_SHARDS]
    cdef uint8_t digest[QM_SHARDS][32]
    cdef const uint8_t *before
    cdef Py_ssize_t blocks = state[0]
    cdef Py_ssize_t i
    try:
        take_shards(&held, sources, &s.shards, False)
        if blocks < 0 or <size_t>blocks > (s.shards.size + 1) // 64:
            raise ValueError(f"the state is {blocks} blocks into shards of {s.shards.size} bytes")
        s.blocks = blocks
        if blocks:
            take(&held, state[1], 32 * s.shards.count, "the state of the leaves", &before)
            memcpy(s.leaf, before, 32 * s.shards.count)
        with nogil:
            qm_leaf_digests(&s, streams, digest)
        return [digest[i][:32] for i in range(<Py_ssize_t>s.shards.count)]
    finally:
        let_go(&held)


def unseal(rows, sizes, digests, canary):
    """Open sealed segments: the inverse of `seal_text` and `seal_key`.

    rows     per segment its k data shards
    sizes    per segment its plaintext bytes
    digests  per segment the SHA-256 of its text
    canary   16 bytes
    returns  the plaintext of all segments, one after the other
    raises   ValueError for wrong sizes, or if a canary is not there: some byte of that segment was wrong
    cost     one pass; releases the GIL
    source   docs/erasure.md, Sealing
    """
    cdef tuple row
    cdef Held held
    cdef qm_shards s
    cdef const uint8_t *mark
    cdef const uint8_t *d
    cdef uint8_t *out
    cdef Py_ssize_t size
    cdef int bad = 0
    plain = PyBytes_FromStringAndSize(NULL, sum(sizes))
    out = <uint8_t *>PyBytes_AS_STRING(plain)
    for shards, size, digest in zip(rows, sizes, digests, strict=True):
        row = tuple(shards)
        held = Held(NULL, len(row) + 2, 0)
        try:
            take_shards(&held, row, &s, False)
            take(&held, canary, QM_CANARY, "canary", &mark)
            check_text(&s, s.count, size, QM_CANARY + 32)
            if size < 0 or out + size > <uint8_t *>PyBytes_AS_STRING(plain) + PyBytes_GET_SIZE(plain):
                raise ValueError(f"a segment of {size} bytes has no place")
            take(&held, digest, 32, "digest", &d)
            if aes_native:
                with nogil:
                    bad = qm_unseal(&s, d, out, size, mark)
            else:
                bad = unseal_by_openssl(&s, d, out, size, mark)
            if bad:
                raise ValueError("a sealed segment does not open: its bytes are not what was stored")
            out += size
        finally:
            let_go(&held)
    return plain


cdef int unseal_by_openssl(const qm_shards *s, const uint8_t *digest, uint8_t *out, Py_ssize_t size,
                           const uint8_t *canary) except? -2:
    cdef size_t i
    cdef uint8_t *p
    cdef uint8_t key[32]
    body = bytearray().join([PyMemoryView_FromMemory(<char *>s.at[i], s.size, PyBUF_READ) for i in range(s.count)])
    p = <uint8_t *>PyByteArray_AS_STRING(body)
    for i in range(32):
        key[i] = digest[i] ^ p[size + QM_CANARY + i]
    with memoryview(body)[:size + QM_CANARY] as text:
        _openssl_ctr(key[:32], bytes(16), text, text)
    if not qm_equal(p + size, canary, QM_CANARY):
        return -1
    memcpy(out, p, size)
    return 0


def tree_level(digests):
    """The level above a level of a digest tree: SHA-256(0x01 || left || right) of each pair.

    digests  an even number of 32-byte digests
    raises   ValueError for an odd number or a wrong size
    source   docs/erasure.md, Integrity
    """
    cdef tuple level = tuple(digests)
    cdef Held held = Held(NULL, len(level), 0)
    cdef const uint8_t *left
    cdef const uint8_t *right
    cdef uint8_t node[32]
    cdef Py_ssize_t i
    cdef list out = []
    if len(level) % 2:
        raise ValueError(f"a level has an even number of digests, got {len(level)}")
    try:
        for i in range(0, len(level), 2):
            take(&held, level[i], 32, "digest", &left)
            take(&held, level[i + 1], 32, "digest", &right)
            qm_tree_node(left, right, node)
            out.append(node[:32])
    finally:
        let_go(&held)
    return out


def climb(digest, Py_ssize_t index, siblings):
    """The root that a leaf digest leads to along its siblings.

    digest    32 bytes
    index     position of the leaf, >= 0
    siblings  32 bytes per level, bottom up
    raises    ValueError for a wrong size
    source    docs/erasure.md, Integrity
    """
    cdef Held held = Held(NULL, 2, 0)
    cdef const uint8_t *p
    cdef Py_ssize_t size, at
    cdef uint8_t node[32]
    try:
        take(&held, digest, 32, "digest", &p)
        memcpy(node, p, 32)
        hold(&held, siblings, &p, &size)
        if size % 32 or index < 0:
            raise ValueError(f"siblings must be 32 bytes each, got {size} in all")
        for at in range(0, size, 32):
            if index & 1:
                qm_tree_node(p + at, node, node)
            else:
                qm_tree_node(node, p + at, node)
            index >>= 1
    finally:
        let_go(&held)
    return node[:32]


# ---- the node's side: requests opened, answers built

cdef enum:
    PROOF = 6               # bytes of proof at 40..45 of a 48-byte answer header (docs/protocol.md)


cdef void answer_proof(const uint8_t *frame, Py_ssize_t size, const uint8_t *nonce, const uint8_t *key,
                       uint8_t *proof) noexcept nogil:
    """Bind status, length and time of a 48-byte answer to its body and to the nonce of the request it answers."""
    cdef qm_hmac state
    cdef uint8_t mac[32]
    qm_hmac_init(&state, key, 32)
    qm_hmac_update(&state, b"QMail answer", 12)
    qm_hmac_update(&state, frame, 40)
    qm_hmac_update(&state, nonce, 24)
    if size > 48:
        qm_hmac_update(&state, frame + size - 34, 32)
    qm_hmac_final(&state, mac)
    memcpy(proof, mac, PROOF)


def open_short(frame, key):
    """Decrypt the body of a request of type 0, 1 or 2 in place and check its challenge.

    frame    the whole request: 32-byte header, body of at least 18 bytes; writable
    key      16 bytes; empty for type 0
    returns  whether the challenge's CRC-32 is right
    raises   ValueError for a wrong size
    cost     O(bytes); releases the GIL above 16 KiB
    source   QMail wire A.3.2, A.4
    """
    cdef Held held = Held(NULL, 1, 0)
    cdef Py_buffer view
    cdef uint8_t counter[16]
    cdef const uint8_t *k
    cdef uint8_t *p
    cdef Py_ssize_t k_size
    PyObject_GetBuffer(frame, &view, PyBUF_WRITABLE)
    try:
        p = <uint8_t *>view.buf
        hold(&held, key, &k, &k_size)
        if view.len < 50 or k_size not in (0, 16):
            raise ValueError(f"a request of {view.len} bytes or a key of {k_size} is of no use here")
        if k_size:
            memset(counter, 0, 16)
            memcpy(counter, p + 24, 8)
            decrypt(frame, k, 16, counter, p, 32, view.len - 34)
        return qm_crc32(0, p + 32, 12) == qm_get_be32(p + 44)
    finally:
        let_go(&held)
        PyBuffer_Release(&view)


def open_long(frame, key):
    """Check the body of a request of type 4 or 5 against its HMAC and decrypt it in place.

    frame    the whole request: 48-byte header, body of at least 34 bytes; writable
    key      32 bytes
    returns  whether the HMAC is right; if not, the frame is as it was
    raises   ValueError for a wrong size
    cost     O(bytes); compares in constant time; releases the GIL above 16 KiB
    source   QMail wire A.3.3
    """
    cdef Held held = Held(NULL, 1, 0)
    cdef Py_buffer view
    cdef qm_hmac state
    cdef uint8_t mac[32]
    cdef const uint8_t *k
    cdef uint8_t *p
    cdef Py_ssize_t k_size, plain
    PyObject_GetBuffer(frame, &view, PyBUF_WRITABLE)
    try:
        p = <uint8_t *>view.buf
        plain = view.len - 82
        hold(&held, key, &k, &k_size)
        if plain < 0 or k_size != 32:
            raise ValueError(f"a request of {view.len} bytes or a key of {k_size} is of no use here")
        qm_hmac_init(&state, k, 32)
        if plain > INLINE_MAX:
            with nogil:
                qm_hmac_update(&state, p + 48, plain)
        else:
            qm_hmac_update(&state, p + 48, plain)
        qm_hmac_final(&state, mac)
        if not qm_equal(mac, p + 48 + plain, 32):
            return False
        if plain:
            decrypt(frame, k, 32, p + 24, p, 48, plain)
        return True
    finally:
        let_go(&held)
        PyBuffer_Release(&view)


cdef bytearray new_answer(Py_ssize_t header, Py_ssize_t body, int raida, int group, int status, uint8_t **at):
    cdef uint8_t *p
    if body > 0xFFFFFF:
        raise ValueError(f"an answer of {body} bytes does not fit its length field")
    answer = PyByteArray_FromStringAndSize(NULL, header + body)
    p = <uint8_t *>PyByteArray_AS_STRING(answer)
    memset(p, 0, header)
    p[0], p[2], p[3] = <uint8_t>raida, <uint8_t>status, <uint8_t>group
    p[9], p[10], p[11] = <uint8_t>(body >> 16), <uint8_t>(body >> 8), <uint8_t>body
    if body:
        p[header + body - 2] = p[header + body - 1] = TRAILER
    at[0] = p
    return answer


def answer_short(int raida, int group, int status, uint32_t micros, nonce, challenge, key, payload,
                 uint32_t blocks=0):
    """Build a node's answer to a request of type 0, 1 or 2.

    nonce      the request's bytes 24..31; the last two are its echo
    challenge  16 bytes, as decrypted
    key        16 bytes; empty for type 0
    payload    clear bytes, at most 2^24 - 3
    blocks     keystream blocks to skip: 0 restarts at the request's nonce
    raises     ValueError for a wrong size
    cost       O(bytes); releases the GIL above 16 KiB
    source     QMail wire A.5, A.6
    """
    cdef Held held = Held(NULL, 4, 0)
    cdef uint8_t counter[16]
    cdef const uint8_t *n
    cdef const uint8_t *c
    cdef const uint8_t *k
    cdef const uint8_t *data
    cdef uint8_t *p
    cdef Py_ssize_t size, k_size, i
    try:
        take(&held, nonce, 8, "nonce", &n)
        take(&held, challenge, 16, "challenge", &c)
        hold(&held, key, &k, &k_size)
        hold(&held, payload, &data, &size)
        if k_size not in (0, 16):
            raise ValueError(f"key must be 0 or 16 bytes, got {k_size}")
        answer = new_answer(32, size + 2 if size else 0, raida, group, status, &p)
        p[5] = 1
        memcpy(p + 6, n + 6, 2)
        qm_put_be32(p + 12, micros)
        for i in range(16):
            p[16 + i] = c[i] ^ k[i] if k_size else c[i]
        if size:
            memcpy(p + 32, data, size)
        if k_size and size:
            memset(counter, 0, 16)
            memcpy(counter, n, 8)
            qm_put_be32(counter + 12, blocks)
            decrypt(answer, k, 16, counter, p, 32, size)
        return answer
    finally:
        let_go(&held)


def answer_long(int raida, int group, int status, uint32_t micros, int enc, selector, iv, nonce, key, payload):
    """Build a node's answer to a request of type 4 or 5, with the proof of docs/protocol.md.

    selector  the 5 bytes of the first coin
    iv        16 bytes, never used before under this key; for type 5 they begin with the second coin's selector
    nonce     the request's 24 bytes
    key       32 bytes
    payload   clear bytes, at most 2^24 - 35
    raises    ValueError for a wrong size
    cost      O(bytes); releases the GIL above 16 KiB
    source    QMail wire A.5.1, A.5.2
    """
    cdef Held held = Held(NULL, 5, 0)
    cdef qm_hmac state
    cdef const uint8_t *s
    cdef const uint8_t *v
    cdef const uint8_t *n
    cdef const uint8_t *k
    cdef const uint8_t *data
    cdef uint8_t *p
    cdef Py_ssize_t size
    try:
        take(&held, selector, 5, "selector", &s)
        take(&held, iv, 16, "iv", &v)
        take(&held, nonce, 24, "nonce", &n)
        take(&held, key, 32, "key", &k)
        hold(&held, payload, &data, &size)
        answer = new_answer(48, size + 34 if size else 0, raida, group, status, &p)
        qm_put_be32(p + 4, micros)
        p[16] = <uint8_t>enc
        memcpy(p + 17, s, 5)
        memcpy(p + 24, v, 16)
        memcpy(p + 46, n + 22, 2)
        if size:
            memcpy(p + 48, data, size)
            decrypt(answer, k, 32, v, p, 48, size)
            qm_hmac_init(&state, k, 32)
            if size > INLINE_MAX:
                with nogil:
                    qm_hmac_update(&state, p + 48, size)
            else:
                qm_hmac_update(&state, p + 48, size)
            qm_hmac_final(&state, p + 48 + size)
        answer_proof(p, len(answer), n, k, p + 40)
        return answer
    finally:
        let_go(&held)


def proven(frame, nonce, key):
    """Whether an answer with a 48-byte header carries the proof that its status belongs to this request.

    frame    the whole answer, as it came or already decrypted
    nonce    the request's 24 bytes
    key      32 bytes
    raises   ValueError for a wrong size
    source   docs/protocol.md, Which answers are believed
    """
    cdef Held held = Held(NULL, 3, 0)
    cdef const uint8_t *p
    cdef const uint8_t *n
    cdef const uint8_t *k
    cdef uint8_t proof[PROOF]
    cdef Py_ssize_t size
    try:
        hold(&held, frame, &p, &size)
        take(&held, nonce, 24, "nonce", &n)
        take(&held, key, 32, "key", &k)
        if size < 48 or 48 < size < 82:
            raise ValueError(f"an answer of {size} bytes is of no use here")
        answer_proof(p, size, n, k, proof)
        return bool(qm_equal(proof, p + 40, PROOF))
    finally:
        let_go(&held)


def first_frame(data, Py_ssize_t have, Py_ssize_t limit):
    """Copy the first request out of received bytes, if it is whole.

    data     the buffer they were received into
    have     how many of them there are
    limit    largest body a node accepts
    returns  the frame, or None: it is not whole, or not of a type or size that can be taken without looking closer
    raises   ValueError if `have` is more than data holds
    source   QMail wire A.2.1, A.3; the close look is codec.exchange.request_size
    """
    cdef Held held = Held(NULL, 1, 0)
    cdef const uint8_t *p
    cdef Py_ssize_t size, body
    cdef Py_ssize_t header = 32
    try:
        hold(&held, data, &p, &size)
        if have > size:
            raise ValueError(f"{have} bytes cannot be in a buffer of {size}")
        if have < header:
            return None
        if p[16] > 2:
            header = 48
            if have < header or (p[16] != 4 and p[16] != 5):
                return None
        if p[4] == 6 and 75 <= p[5] <= 84:
            body = qm_get_be32(p + 10)
        elif header == 32:
            body = p[22] << 8 | p[23]
        else:
            body = p[17] << 8 | p[18]
        if body > limit or header + body > have:
            return None
        return PyByteArray_FromStringAndSize(<char *>p, header + body)
    finally:
        let_go(&held)


def first_answer(data, Py_ssize_t have, int enc):
    """Copy the first answer out of received bytes, if it is whole.

    data     the buffer they were received into
    have     how many of them there are
    enc      encryption type of the request it answers
    returns  the answer, or None: it is not whole
    raises   ValueError if `have` is more than data holds
    source   QMail wire A.5; the rule is codec.exchange.reply_size
    """
    cdef Held held = Held(NULL, 1, 0)
    cdef const uint8_t *p
    cdef Py_ssize_t size, whole
    cdef Py_ssize_t header = 32
    try:
        hold(&held, data, &p, &size)
        if have > size:
            raise ValueError(f"{have} bytes cannot be in a buffer of {size}")
        if have < header:
            return None
        if enc > 2 and p[16] == enc:
            header = 48
        whole = header + (p[9] << 16 | p[10] << 8 | p[11])
        if whole > have:
            return None
        return PyByteArray_FromStringAndSize(<char *>p, whole)
    finally:
        let_go(&held)
