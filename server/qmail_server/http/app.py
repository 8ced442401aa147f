"""The application of one port: access line and request id, then the guard, then the routes.

Static paths are found in a dict; only what is not there reaches Starlette's router, whose search is linear. The engine
is given and belongs to whoever built it: the lifespan here neither opens nor closes it.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Awaitable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmail_core.errors import QMailError
from qmail_server import logs
from qmail_server.http import pages
from qmail_server.http import params as parameters
from qmail_server.http.describe import Facts, Surface, text
from qmail_server.http.errors import MAILBOX, NODE, TRANSFER
from qmail_server.http.events import TICKET_LIFE, EventStream, MailEvents, Streams, TicketAnswer, Tickets
from qmail_server.http.guard import OWN_TOKENS, Guard, GuardSettings
from qmail_server.http.mailbox import described as mailbox_described
from qmail_server.http.mailbox import routes as mailbox
from qmail_server.http.params import ClientGone
from qmail_server.http.paths import Paths, Resource
from qmail_server.http.qmail import described as node_described
from qmail_server.http.qmail import routes as node
from qmail_server.http.respond import Answers, Call, Route, failure, response_of
from qmail_server.http.transfer import described as transfer_described
from qmail_server.http.transfer import routes as transfer
from qmail_server.http.transfer.limits import RateLimit

if TYPE_CHECKING:
    from qmail_core.engine.engine import Engine

HOME = 1  # the user whose mailboxes the node API shows
EVENTS = ("/api/events", "/events")  # the second is what clients look for on the port a hundred above
EVENT_PORT = 100
_LONG = 200  # bytes of a query; answers to longer ones are not kept


def build_app(engine: Engine, guard: GuardSettings, *, extra_routes: Sequence[BaseRoute | Route] = ()) -> App:
    """The whole surface of one engine on one port.

    extra_routes   routes of this project's kind (static path, Call) or of Starlette's (path parameters, Request)
    """
    streams, tickets = Streams(), Tickets()
    own = [route for route in extra_routes if isinstance(route, Route)]
    found = [*surfaces(), _event_surface(engine, tickets), *([_extra_surface(own)] if own else [])]
    found.append(pages.surface(found))
    static = [*pages.TYPED, *(route for surface in found for route in surface.routes)]
    unguarded = [*pages.TYPED, *(route for surface in found if not surface.security for route in surface.routes)]
    resources = [resource for surface in found for resource in surface.resources]
    router = Router([route for route in extra_routes if isinstance(route, BaseRoute)], redirect_slashes=False)
    dispatch = Dispatch(engine, static, Paths(resources), router, streams)
    paths = [route.path for route in static]
    inner = Guard(
        RateLimit(dispatch, transfer.OWN_TOKEN, free=paths),
        guard,
        pages=[route.path for route in unguarded],
        readable=[route.path for route in static if not route.effects],
        streams=EVENTS,
        tickets=tickets,
        apart=transfer.OWN_TOKEN,
        links=transfer.LINKS,
    )
    return App(inner, router, streams, paths)


def surfaces() -> list[Surface]:
    """What every port serves."""
    return [
        Surface(
            name="node",
            about="The QMail node API",
            routes=node.ROUTES,
            facts=node_described.FACTS,
            everywhere=(node_described.DEBUG,),
        ),
        Surface(
            name="mailbox",
            about="The mailbox API",
            resources=mailbox.RESOURCES,
            facts=mailbox_described.FACTS,
            security=("token", "accessToken"),
        ),
        Surface(
            name="transfer",
            about="The file-transfer API",
            resources=transfer.RESOURCES,
            facts=transfer_described.FACTS,
            refusals=(412, 416, 422, 460),
            security=("transferToken",),
        ),
    ]


def _event_surface(engine: Engine, tickets: Tickets) -> Surface:
    render = MailEvents(engine)

    async def events(call: Call) -> ASGIApp:
        """Listen to new mail.

        A stream of `new-mail` events, which `Last-Event-ID` resumes. A `ticket` opens it where no token can be sent.
        """
        return EventStream(engine, HOME, render, call.streams)

    async def ticket(call: Call) -> TicketAnswer:
        """Leave to open one stream within a minute."""
        return TicketAnswer(ticket=tickets.issue(), expires_in=int(TICKET_LIFE))

    listening = Facts(
        takes=(text("ticket", "Opens one stream instead of a token"),), media="text/event-stream", endless=True
    )
    return Surface(
        name="events",
        about="New mail as it comes",
        routes=[*(Route(path, events, effects=False) for path in EVENTS), Route("/api/events/ticket", ticket)],
        facts={events: listening, ticket: Facts()},
    )


def _extra_surface(routes: Sequence[Route]) -> Surface:
    return Surface(name="more", about="Routes of this server alone", routes=routes, facts={})


_drawn: list[str] = []


def _new_id() -> str:
    """A random id of 16 hexadecimal digits; drawn a thousand at a time, as each draw is a system call."""
    if not _drawn:
        raw = os.urandom(8000).hex()
        _drawn.extend(raw[i : i + 16] for i in range(0, len(raw), 16))
    return _drawn.pop()


class App:
    """Outermost: gives every request its id, writes the access line, answers what nobody else could."""

    def __init__(self, app: ASGIApp, lifespan: ASGIApp, streams: Streams, static: Collection[str]) -> None:
        self._app = app
        self._static = frozenset(static)  # paths without anything of the client's in them
        self._lifespan = lifespan
        self._streams = streams

    def drain(self) -> None:
        """End all event streams: the server is about to stop."""
        self._streams.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        request_id = _new_id()
        logs.request_id.set(request_id)
        watched = _Watched(send, request_id)
        start = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        except ClientGone:
            watched.status = 499  # nginx's number for it; only the line below shows it
        except Exception as error:
            if watched.status:
                raise  # half an answer is out: the server cuts the connection, so nobody takes it for a whole one
            await failure(error)(scope, receive, watched)
        finally:
            taken = (time.perf_counter() - start) * 1000
            logs.access.line(request_id, scope["method"], self._shown(scope["path"]), watched.status, taken)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _shown(self, path: str) -> str:
        """A path as the access line names it."""
        return path if path in self._static else transfer.SECRET.sub(r"\1...", path)


class _Watched:
    """A `send` that keeps the status and adds the request's id. It hands on the coroutine instead of awaiting it."""

    __slots__ = ("_header", "_send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._header = (b"x-request-id", request_id.encode())
        self.status = 0

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # not in place: some answers are the same objects for every request
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        return self._send(message)


class Dispatch:
    """Finds the route, reads the parameters, runs the endpoint, answers."""

    def __init__(self, engine: Engine, routes: Iterable[Route], paths: Paths, router: Router, streams: Streams) -> None:
        self._engine = engine
        self._streams = streams
        self._answers = Answers()
        self._paths = paths
        self._routes = {route.path: route for route in routes}
        self._router = router

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        route = self._routes.get(scope["path"])
        if route is None:
            return self._elsewhere(scope, receive, send)
        if route.kept is None or scope["method"] != "GET":
            return self._serve(route, scope, receive, send)
        query: bytes = scope["query_string"]
        if query and (len(query) > _LONG or b"%" in query or b"debug" in query.lower()):
            return self._serve(route, scope, receive, send)
        key, revision = (route.endpoint, query), route.kept(self._engine)
        answer = self._answers.find(key, revision)
        if answer is not None:
            return answer(scope, receive, send)
        return self._serve(route, scope, receive, send, keep=(key, revision))

    async def _serve(
        self, route: Route, scope: Scope, receive: Receive, send: Send, *, keep: tuple[object, object] | None = None
    ) -> None:
        try:
            response = await self._run(route, scope, receive)
            if keep is not None:
                self._answers.keep(*keep, response)
        except ClientGone:
            raise
        except Exception as error:
            response = failure(error, route.dialect)
        await response(scope, receive, send)

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._paths.find(scope["path"])
        if found is None:
            await self._other(scope, receive, send)
        else:
            await self._visit(*found, scope, receive, send)

    async def _run(self, route: Route, scope: Scope, receive: Receive) -> ASGIApp:
        method = scope["method"]
        if method not in route.verbs:
            raise HTTPException(405, "Method not allowed", {"Allow": ", ".join(route.verbs)})
        call = Call(self._engine, scope, receive, logs.request_id.get(), self._streams)
        try:
            if method != "GET" or scope["query_string"]:
                sink = None if route.sink is None else functools.partial(route.sink, call)
                await parameters.read(call.params, scope, receive, sink)
                if call.params.flag("debug"):
                    logs.verbose.set(True)
            return response_of(await route.endpoint(call))
        except Exception:
            # not when cancelled: the acceptance may be on its way to the disk, and the next start sweeps what is not
            if call.guid and not self._engine.receipt_exists(call.guid):
                self._engine.drop_spool(call.guid)
            raise

    async def _visit(
        self, resource: Resource, path: dict[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run the verb of a resource, which reads its body itself."""
        verb = scope["method"]
        if verb == "HEAD" and verb not in resource.verbs:
            verb = "GET"
        try:
            endpoint = resource.verbs.get(verb)
            if endpoint is None:
                raise HTTPException(405, f"{verb} is not allowed", {"Allow": ", ".join(resource.verbs)})
            call = Call(self._engine, scope, receive, logs.request_id.get(), self._streams, path)
            response = response_of(await endpoint(call))
        except ClientGone:
            raise
        except Exception as error:
            response = failure(error, resource.dialect)
        await response(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._router  # makes the router raise instead of answering in a dialect of its own
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            path: str = scope["path"]
            words = {404: "Unknown route", 405: "Method not allowed"}
            dialect = TRANSFER if transfer.OWN_TOKEN.fullmatch(path) else NODE
            if path.startswith(OWN_TOKENS):
                dialect, words[404] = MAILBOX, f"{path} does not exist"
            detail = words.get(error.status_code, error.detail)
            await failure(HTTPException(error.status_code, detail, error.headers), dialect)(scope, receive, send)
        except QMailError as error:
            await failure(error)(scope, receive, send)
