"""Uploaded files."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from qmail_core.engine.files.tokens import Owner
from qmail_core.model import StoredFile
from qmail_server.http.params import file_name
from qmail_server.http.respond import Call
from qmail_server.http.transfer import multipart, paging, schema
from qmail_server.http.transfer.given import body, invalid, path_id, text

SORTS = {"filename_original": "filename", **paging.same("filename", "size", "encrypted_size", "created_at")}


def shown(call: Call, row: StoredFile, category: bool = False) -> dict[str, Any]:
    """A file as the API shows it."""
    answer = schema.file(row, call.engine.transfer.library.person(row.user))
    return answer | {"category": None} if category else answer


async def list_files(call: Call, owner: Owner) -> dict[str, Any]:
    """Files, newest first."""
    category = "category" in paging.included(call, "category")
    asked = paging.listing(call, SORTS)
    rows, total = call.engine.transfer.library.listed(owner, asked)
    return paging.page(call, [shown(call, row, category) for row in rows], asked, total)


async def upload(call: Call, owner: Owner) -> dict[str, Any]:
    """Take in the files of a form; an object for one, a list for several."""
    rows = [shown(call, row) for row in await multipart.receive(call, owner)]
    return {"data": rows[0] if len(rows) == 1 else rows}


async def get_file(call: Call, owner: Owner) -> dict[str, Any]:
    """One file."""
    category = "category" in paging.included(call, "category")
    return {"data": shown(call, call.engine.transfer.library.get(owner, path_id(call, "File")), category)}


async def change_file(call: Call, owner: Owner) -> dict[str, Any]:
    """Rename a file, or take it out of the trash."""
    file, found, library = path_id(call, "File"), await body(call), call.engine.transfer.library
    row = library.get(owner, file)
    name = text(found, "filename", most=200) or text(found, "full_filename", most=200)
    trashed = found.get("trashed")
    if trashed is not None and not isinstance(trashed, bool):
        raise invalid(trashed="The trashed field must be true or false.")
    if name:
        # `filename` is the name without extension, as it is shown; the extension stays
        whole = name if found.get("full_filename") or not row.extension else f"{name}.{row.extension}"
        row = await library.rename(owner, file, file_name(whole))
    if trashed is not None:
        row = await library.trash(owner, file, trashed)
    return {"data": shown(call, row)}


async def delete_file(call: Call, owner: Owner) -> Response:
    """Into the trash; from there for good."""
    await call.engine.transfer.library.remove(owner, path_id(call, "File"))
    return Response(status_code=204)
