"""Downloads: their records, their keys, their bytes."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp

from qmail_core.engine.files.downloads import KeyRefused
from qmail_core.engine.files.tokens import Owner
from qmail_core.errors import NotFound
from qmail_core.model import DownloadRow
from qmail_server.http.errors import Failed
from qmail_server.http.respond import Call
from qmail_server.http.transfer import files, schema
from qmail_server.http.transfer.given import body, header, invalid, owner_of, path_id, query, text, uid, wrong
from qmail_server.http.transfer.serve import Bytes, is_preview

PATH = "/api/downloads"


def url(call: Call, download: bytes, key: str = "") -> str:
    """Where the bytes of a download are."""
    place = f"{call.scope['scheme']}://{header(call, b'host')}{PATH}/{schema.identity(download)}"
    return f"{place}?key={key}" if key else place


def _shown(call: Call, row: DownloadRow) -> dict[str, Any]:
    found = call.engine.transfer.downloads.files(row)
    return {
        "data": {
            "id": schema.identity(row.id),
            "files": [files.shown(call, file) for file in found],
            "created_at": schema.moment(row.created_at),
            "expires_at": schema.moment(row.expires_at),
            "url": url(call, row.id),
        }
    }


def file_ids(value: object, *, required: bool = True) -> list[bytes]:
    """The ids of a `files` field; Failed if it is none."""
    if value is None or value in ("", []):
        if required:
            raise invalid(files="The files field is required.")
        return []
    if not isinstance(value, list):
        raise invalid(files="The files must be an array.")
    if len(value) > 1000:
        raise invalid(files="The files may not have more than 1000 items.")
    found = [uid(one) for one in value]
    bad = {f"files.{at}": f"The selected files.{at} is invalid." for at, one in enumerate(found) if one is None}
    if bad:
        raise wrong(bad)
    return [one for one in found if one is not None]


def own_files(call: Call, owner: Owner, ids: list[bytes]) -> None:
    """Failed unless all files are the owner's and not in the trash."""
    bad = {}
    for at, one in enumerate(ids):
        try:
            trashed = call.engine.transfer.library.get(owner, one).trashed
        except NotFound:
            trashed = True
        if trashed:
            bad[f"files.{at}"] = f"The selected files.{at} is invalid."
    if bad:
        raise wrong(bad)


async def add_download(call: Call, owner: Owner) -> dict[str, Any]:
    """A download of files, for one minute and one use."""
    ids = file_ids((await body(call)).get("files"))
    own_files(call, owner, ids)
    return _shown(call, await call.engine.transfer.downloads.create(owner, ids))


async def add_key(call: Call, owner: Owner) -> dict[str, Any]:
    """The key of a download, made with a temporary key."""
    download = path_id(call, "Download")
    pin_key = text(await body(call), "pinKey", required=True)
    try:
        found = await call.engine.transfer.downloads.make_key(owner, download, pin_key)
    except KeyRefused as error:
        raise invalid(pinKey=error.message) from None
    except NotFound:
        raise NotFound("Download not found.") from None
    link = url(call, download, found.key)
    return {"data": {"key": found.key, "expires_at": schema.moment(found.expires_at), "url": link}}


async def delete_download(call: Call, owner: Owner) -> Response:
    """End a download."""
    await call.engine.transfer.downloads.delete(owner, path_id(call, "Download"))
    return Response(status_code=204)


async def get_download(call: Call) -> dict[str, Any] | ASGIApp:
    """The bytes for whoever has the key; without a key, the record for its owner."""
    key = query(call).get("key")
    if key is None:
        owner = owner_of(call)
        return _shown(call, call.engine.transfer.downloads.get(owner, path_id(call, "Download")))
    download = path_id(call, "Download")
    if is_preview(call.scope):
        raise Failed(403, "Downloads are neither fetched ahead nor previewed.")
    return Bytes(call, await call.engine.transfer.downloads.open(download, key))
