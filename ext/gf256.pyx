# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Reed-Solomon over GF(256), byte column by byte column; -> qmail_core._gf256.

This file only takes buffers, checks their number, lengths and overlap, and names what is wrong; all arithmetic is
plain C (gf256.h). Every output is either a new bytes object or a buffer the caller hands in.
From GIL_LIMIT bytes of work on, the GIL is released. Buffers stay exported until the call ends, so nobody can resize
them meanwhile; a caller who changes their bytes during a call gets stripes that match neither state.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t
from libc.string cimport memset

cdef extern from "Python.h":
    # Declared without `except`: the callers below turn a failure into a message that names the stripe.
    int PyObject_GetBuffer(object stripe, Py_buffer *view, int flags)
    void PyErr_Clear()
    # With NULL for the exception a huge integer is clipped, so that it becomes an ordinary range error.
    Py_ssize_t PyNumber_AsSsize_t(object number, void *overflow) except? -1

cdef extern from "gf256.h" nogil:
    enum:
        GF256_STRIPES
        GF256_LEVELS
        GF256_THREADS
    ctypedef struct gf256_code:
        int k
        int m
        int n
        int threads
        uint8_t *matrix
    ctypedef struct gf256_kernels:
        const char *name
    ctypedef struct gf256_work:
        pass
    void gf256_init()
    int gf256_levels(const char **names)
    int gf256_use(const char *name)
    const gf256_kernels *gf256_active()
    size_t gf256_stream_above(size_t size)
    void gf256_code_init(gf256_code *code, int k, int m, int threads, uint8_t *matrix)
    bint gf256_overlap(int n, size_t size, const uint8_t **stripe, const uint8_t *written)
    void gf256_encode(const gf256_code *code, size_t size, const uint8_t **data, uint8_t **parity)
    void gf256_split(const gf256_code *code, size_t size, size_t each, const uint8_t *data, uint8_t **stripe)
    void gf256_reconstruct(const gf256_code *code, size_t size, uint8_t **stripe, const uint8_t *lost)
    bint gf256_verify(const gf256_code *code, size_t size, const uint8_t **stripe)
    int gf256_locate(const gf256_code *code, size_t size, const uint8_t **stripe, uint8_t *wrong, gf256_work *work)
    void gf256_update(
        const gf256_code *code, int index, size_t size, const uint8_t *was, const uint8_t *now, uint8_t **parity)

# Bytes read below which dropping and retaking the GIL (about 50 ns, and perhaps a wait) costs more than it gives.
cdef enum:
    GIL_LIMIT = 16384


# ---- buffers ----

cdef struct Held:
    int count                           # views to release
    Py_ssize_t size                     # of every stripe; -1 until the first is known
    Py_buffer view[GF256_STRIPES + 2]
    uint8_t *at[GF256_STRIPES + 2]      # start of each stripe; NULL where missing
    uint8_t mark[GF256_STRIPES + 2]     # 1 where the stripe is to be written


cdef inline void open_held(Held *held) noexcept:
    held.count = 0
    held.size = -1
    memset(held.mark, 0, sizeof(held.mark))


cdef inline void release(Held *held) noexcept:
    for i in range(held.count):
        PyBuffer_Release(&held.view[i])


cdef refuse(object stripe, str name, bint writable):
    """Raise what is wrong with an object that gave no buffer."""
    cdef Py_buffer view
    PyErr_Clear()
    if not PyObject_CheckBuffer(stripe):
        raise TypeError(f"{name} must be a bytes-like object, not {type(stripe).__name__}")
    if writable and PyObject_GetBuffer(stripe, &view, PyBUF_SIMPLE) == 0:
        PyBuffer_Release(&view)
        raise ValueError(f"{name} is read-only, but it is an output")
    PyErr_Clear()
    raise ValueError(f"{name} is not one C-contiguous block of bytes")


cdef inline int hold(Held *held, object stripe, int slot, str kind, int number, bint writable) except -1:
    """Export a buffer into `slot`; `kind` and `number` are for the error message only."""
    cdef Py_buffer *view
    cdef Py_ssize_t size
    if not writable and PyBytes_CheckExact(stripe):
        # nothing to export: bytes never move, and the caller of the method keeps them alive
        held.at[slot] = <uint8_t *>PyBytes_AS_STRING(stripe)
        size = PyBytes_GET_SIZE(stripe)
    else:
        view = &held.view[held.count]
        if PyObject_GetBuffer(stripe, view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE) < 0:
            refuse(stripe, f"{kind} {number}" if number >= 0 else kind, writable)
        held.count += 1
        held.at[slot] = <uint8_t *>view.buf
        held.mark[slot] = writable
        size = view.len
    if held.size < 0:
        held.size = size
    elif held.size != size:
        raise ValueError(
            f"{f'{kind} {number}' if number >= 0 else kind} has {size} bytes, the first stripe has {held.size}")
    return 0


cdef int check_overlap(Held *held, int count) except -1:
    if gf256_overlap(count, held.size, <const uint8_t **>held.at, held.mark):
        raise ValueError("an output overlaps an input or another output")
    return 0


cdef tuple stripes_of(object stripes, int count, str kind):
    """The entries as a tuple, so that no foreign code can change the list while buffers are taken."""
    cdef tuple entries = tuple(stripes)
    if len(entries) != count:
        raise ValueError(f"need {count} {kind}, got {len(entries)}")
    return entries


cdef int number_in(object value, Py_ssize_t low, Py_ssize_t high, str name) except -1:
    cdef Py_ssize_t number = PyNumber_AsSsize_t(value, NULL)
    if not low <= number <= high:
        raise ValueError(f"{name} must be {low}..{high}, got {value}")
    return <int>number


# ---- the code ----

@cython.final
cdef class ReedSolomon:
    """Systematic Reed-Solomon code of k data and m parity stripes over GF(256).

    Field polynomial 0x11D, alpha = 2; byte column by byte column; any m of the k + m stripes may be lost.
    Stripe order: data 0 .. k-1, then parity, highest coefficient of the remainder first. For m = 1 the parity is the
    XOR of all data. Objects never change after construction and may be shared by threads.

    k, m     data and parity stripes; k >= 1, m >= 1, k + m <= 255
    threads  most threads of one call, 1..16, the caller included; with 4 MiB of data for each
    raises   ValueError if one of them is out of range
    cost     O(m * (k + m)) once; about 1 us for 20 + 5
    source   docs/erasure.md, The Reed-Solomon code
    """

    cdef gf256_code code

    def __cinit__(self, k, m, threads=1):
        cdef int data = number_in(k, 1, GF256_STRIPES - 1, "k")
        cdef int parity = number_in(m, 1, GF256_STRIPES - 1, "m")
        if data + parity > GF256_STRIPES:
            raise ValueError(f"k + m must be at most {GF256_STRIPES}, got {data} + {parity}")
        cdef int workers = number_in(threads, 1, GF256_THREADS, "threads")
        cdef uint8_t *matrix = <uint8_t *>PyMem_Malloc(data * parity)
        if matrix is NULL:
            raise MemoryError
        gf256_code_init(&self.code, data, parity, workers, matrix)

    def __dealloc__(self):
        PyMem_Free(self.code.matrix)

    def __reduce__(self):
        return ReedSolomon, (self.code.k, self.code.m, self.code.threads)

    def __repr__(self):
        threads = f", threads={self.code.threads}" if self.code.threads > 1 else ""
        return f"ReedSolomon(k={self.code.k}, m={self.code.m}{threads})"

    @property
    def k(self):
        """Data stripes."""
        return self.code.k

    @property
    def m(self):
        """Parity stripes: how many losses are survived."""
        return self.code.m

    @property
    def n(self):
        """All stripes, k + m."""
        return self.code.n

    @property
    def threads(self):
        """Most threads of one call, the caller included."""
        return self.code.threads

    def encode(self, data):
        """Cut an object into k stripes and add m parity stripes.

        data     any bytes-like object of s >= 0 bytes; stripe i takes bytes i*c .. (i+1)*c - 1, c = ceil(s / k)
        returns  k + m new bytes objects of c bytes, data first; the tail is padded with zeros
        raises   TypeError, ValueError if data is no contiguous buffer
        cost     one pass; memory for all stripes; releases the GIL above 16 KiB
        source   docs/erasure.md, The Reed-Solomon code
        """
        cdef Held held
        cdef Py_ssize_t size, each
        cdef list stripes = []
        cdef bytes stripe
        cdef const uint8_t *source
        open_held(&held)
        try:
            hold(&held, data, 0, "data", -1, False)
            size = held.size
            each = size // self.code.k + (size % self.code.k != 0)
            source = held.at[0]
            for i in range(self.code.n):
                stripe = PyBytes_FromStringAndSize(NULL, each)
                stripes.append(stripe)
                held.at[i] = <uint8_t *>PyBytes_AS_STRING(stripe)
            if size >= GIL_LIMIT:
                with nogil:
                    gf256_split(&self.code, size, each, source, held.at)
            else:
                gf256_split(&self.code, size, each, source, held.at)
        finally:
            release(&held)
        return stripes

    def encode_into(self, stripes):
        """Fill the parity stripes of a full set of buffers; nothing is copied.

        stripes  k inputs, then m writable outputs, all of one length >= 0
        raises   ValueError for a wrong number, unequal lengths, a read-only or overlapping output, a buffer with gaps;
                 TypeError for an object without a buffer
        cost     each input byte is read once; releases the GIL above 16 KiB of data
        source   docs/erasure.md, The Reed-Solomon code
        """
        cdef tuple entries = stripes_of(stripes, self.code.n, "stripes")
        cdef Held held
        open_held(&held)
        try:
            for i in range(self.code.n):
                hold(&held, entries[i], i, "stripe", i, i >= self.code.k)
            check_overlap(&held, self.code.n)
            if held.size * self.code.k >= GIL_LIMIT:
                with nogil:
                    gf256_encode(&self.code, held.size, <const uint8_t **>held.at, held.at + self.code.k)
            else:
                gf256_encode(&self.code, held.size, <const uint8_t **>held.at, held.at + self.code.k)
        finally:
            release(&held)

    def reconstruct(self, stripes):
        """Fill in every missing stripe, data and parity.

        stripes  k + m entries in stripe order, None where missing; those present have one length
        returns  k + m entries; those given are the same objects, the missing ones new bytes objects
        raises   ValueError if fewer than k are present, or lengths differ; TypeError for an object without a buffer
        cost     missing * k products per column; one loss with odd m is a plain XOR; releases the GIL above 16 KiB
        source   docs/erasure.md, The Reed-Solomon code
        """
        cdef tuple entries = stripes_of(stripes, self.code.n, "stripes")
        cdef list whole = list(entries)
        cdef bytes stripe
        cdef Held held
        cdef int missing = 0
        open_held(&held)
        try:
            for i in range(self.code.n):
                if entries[i] is None:
                    missing += 1
                else:
                    hold(&held, entries[i], i, "stripe", i, False)
            self.enough(missing)
            if missing:
                for i in range(self.code.n):
                    if entries[i] is None:
                        stripe = PyBytes_FromStringAndSize(NULL, held.size)
                        whole[i] = stripe
                        held.at[i] = <uint8_t *>PyBytes_AS_STRING(stripe)
                        held.mark[i] = 1
                self.fill(&held)
        finally:
            release(&held)
        return whole

    def reconstruct_into(self, stripes, missing):
        """Fill the buffers at the missing positions from the others; nothing is copied.

        stripes  k + m buffers of one length; those at the missing positions are writable, their content is ignored
        missing  positions 0 .. k+m-1, each once, in any order; at most m of them
        raises   as encode_into; ValueError too for a bad position, or if fewer than k stripes are left
        cost     as reconstruct, without new memory
        source   docs/erasure.md, The Reed-Solomon code
        """
        cdef tuple entries = stripes_of(stripes, self.code.n, "stripes")
        cdef uint8_t lost[GF256_STRIPES]
        cdef int number, count = 0
        cdef Held held
        memset(lost, 0, sizeof(lost))
        for position in missing:
            number = number_in(position, 0, self.code.n - 1, "a missing position")
            if lost[number]:
                raise ValueError(f"missing names stripe {number} twice")
            lost[number] = 1
            count += 1
        self.enough(count)
        open_held(&held)
        try:
            for i in range(self.code.n):
                hold(&held, entries[i], i, "stripe", i, lost[i])
            check_overlap(&held, self.code.n)
            self.fill(&held)
        finally:
            release(&held)

    def verify(self, stripes):
        """Tell whether the parity stripes agree with the data stripes.

        stripes  k + m buffers of one length
        returns  False if any byte column is not a codeword; True for stripes of length 0
        raises   ValueError for a wrong number or unequal lengths; TypeError for an object without a buffer
        cost     one encode plus one comparison, without new memory; releases the GIL above 16 KiB of data
        source   docs/erasure.md, The Reed-Solomon code
        """
        cdef tuple entries = stripes_of(stripes, self.code.n, "stripes")
        cdef Held held
        cdef bint agrees
        open_held(&held)
        try:
            for i in range(self.code.n):
                hold(&held, entries[i], i, "stripe", i, False)
            if held.size * self.code.k >= GIL_LIMIT:
                with nogil:
                    agrees = gf256_verify(&self.code, held.size, <const uint8_t **>held.at)
            else:
                agrees = gf256_verify(&self.code, held.size, <const uint8_t **>held.at)
        finally:
            release(&held)
        return agrees

    def locate(self, stripes):
        """Name the stripes that hold wrong bytes, without any checksum.

        In each byte column up to floor((m - missing) / 2) wrong bytes are found; the answer is the union over columns.
        More wrong bytes than that in one column are mostly noticed (ValueError), but a single column can also be
        mistaken for another codeword, so short stripes with many liars deserve a checksum as well.

        stripes  k + m entries in stripe order, None where missing; those present have one length
        returns  positions of wrong stripes, ascending; empty if all columns agree or all m spares are used up
        raises   ValueError if fewer than k are present, or a column cannot be explained; TypeError without a buffer
        cost     clean columns: one verify; each newly caught stripe one more; releases the GIL
        source   docs/erasure.md, The Reed-Solomon code
        """
        cdef tuple entries = stripes_of(stripes, self.code.n, "stripes")
        cdef Held held
        cdef uint8_t wrong[GF256_STRIPES]
        cdef int missing = 0, found
        cdef gf256_work *work = NULL
        open_held(&held)
        try:
            for i in range(self.code.n):
                if entries[i] is None:
                    held.at[i] = NULL
                    missing += 1
                else:
                    hold(&held, entries[i], i, "stripe", i, False)
            self.enough(missing)
            work = <gf256_work *>PyMem_Malloc(sizeof(gf256_work))
            if work is NULL:
                raise MemoryError
            with nogil:
                found = gf256_locate(&self.code, held.size, <const uint8_t **>held.at, wrong, work)
            if found < 0:
                raise ValueError(f"no {(self.code.m - missing) // 2} or fewer wrong stripes explain the difference")
        finally:
            PyMem_Free(work)
            release(&held)
        return [i for i in range(self.code.n) if wrong[i]]

    def update_into(self, parity, index, old, new):
        """Adjust the parity stripes to one changed data stripe, without the other data.

        parity   m writable buffers, changed in place
        index    position of the data stripe, 0 .. k-1
        old, new its content before and after; all buffers have one length
        raises   as encode_into; ValueError too if index is out of range
        cost     m products per column; releases the GIL above 16 KiB of parity
        source   docs/erasure.md, The Reed-Solomon code
        """
        cdef tuple entries = stripes_of(parity, self.code.m, "parity stripes")
        cdef int number = number_in(index, 0, self.code.k - 1, "index")
        cdef Held held
        open_held(&held)
        try:
            hold(&held, old, 0, "old", -1, False)
            hold(&held, new, 1, "new", -1, False)
            for i in range(self.code.m):
                hold(&held, entries[i], 2 + i, "parity", i, True)
            check_overlap(&held, 2 + self.code.m)
            if held.size * self.code.m >= GIL_LIMIT:
                with nogil:
                    gf256_update(&self.code, number, held.size, held.at[0], held.at[1], held.at + 2)
            else:
                gf256_update(&self.code, number, held.size, held.at[0], held.at[1], held.at + 2)
        finally:
            release(&held)

    def generator_matrix(self):
        """Give the same code as a matrix, for cross-checks with other libraries.

        returns  m rows of k coefficients; parity stripe r is the sum over c of row[r][c] * data stripe c
        source   docs/erasure.md, The Reed-Solomon code
        """
        cdef int k = self.code.k
        return [(<char *>self.code.matrix)[r * k:(r + 1) * k] for r in range(self.code.m)]

    cdef int enough(self, int missing) except -1:
        if missing > self.code.m:
            raise ValueError(f"have {self.code.n - missing} stripes of {self.code.n}, need {self.code.k}")
        return 0

    cdef void fill(self, Held *held):
        if held.size * self.code.k >= GIL_LIMIT:
            with nogil:
                gf256_reconstruct(&self.code, held.size, held.at, held.mark)
        else:
            gf256_reconstruct(&self.code, held.size, held.at, held.mark)


# ---- instruction level ----

def isa_levels():
    """Instruction levels this CPU can run, slowest first; the last is the default."""
    cdef const char *names[GF256_LEVELS]
    cdef int count = gf256_levels(names)
    return tuple([names[i].decode() for i in range(count)])


def set_isa(level):
    """Switch the whole process to another instruction level; for tests only, no call may be running.

    level    one of isa_levels()
    raises   ValueError if this CPU cannot run it
    """
    global isa
    if gf256_use(level.encode()) < 0:
        raise ValueError(f"no GF(256) kernel {level!r} on this CPU; there are {', '.join(isa_levels())}")
    isa = gf256_active().name.decode()


def _stream_above(size):
    """Set from how many bytes per call on stores bypass the cache; for tests only. Returns the limit there was."""
    return gf256_stream_above(size)


def _choose():
    """Take the best level, or the one the environment asks for: QMAIL_ISA=<level>, QMAIL_SCALAR=1."""
    wanted = os.environ.get("QMAIL_ISA") or ("scalar" if os.environ.get("QMAIL_SCALAR", "0") not in ("", "0") else None)
    try:
        set_isa(wanted or gf256_active().name.decode())
    except ValueError as error:
        raise ImportError(f"QMAIL_ISA: {error}") from None


gf256_init()
isa = ""
_choose()
