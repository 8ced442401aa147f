"""Mail between users and the world around the network: submitted, relayed, sorted on arrival, told of."""

from qmail_core.codec.mime import Person
from qmail_core.engine.post.facade import Post
from qmail_core.engine.post.submit import Attached, Reference, Submission, Submitted
from qmail_core.engine.post.webhooks import RECEIVED
from qmail_core.store.post import Autoreply, Filter, Usage, Webhook

__all__ = [
    "RECEIVED",
    "Attached",
    "Autoreply",
    "Filter",
    "Person",
    "Post",
    "Reference",
    "Submission",
    "Submitted",
    "Usage",
    "Webhook",
]
