"""TCP and UDP around RAIDA nodes."""

from qmail_server.raida.host import RaidaHost, flip
from qmail_server.raida.peers import BEHIND, DRAIN_LIMIT, Mode
from qmail_server.raida.thread import HostThread

__all__ = ["BEHIND", "DRAIN_LIMIT", "HostThread", "Mode", "RaidaHost", "flip"]
