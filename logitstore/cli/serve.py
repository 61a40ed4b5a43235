"""``logitstore serve``."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Annotated

from logitstore.cli.command import command, echo, note
from logitstore.cli.progress import of_total
from logitstore.jobs.serve.job import ServeOptions, Serving, serve
from logitstore.options import Option, only


@dataclass(frozen=True, kw_only=True)
class _Serve(ServeOptions):
    open: Annotated[bool, Option("Open the page in the browser.", group="Running")] = False


@command("serve", _Serve)
def serve_command(options: _Serve) -> None:
    """Serve a page on which the clips of STORE can be searched, heard and judged; Ctrl-C ends it.

    Every view sounds exactly as the teachers heard it. Verdicts (right, wrong, unsure, a note) are kept in a file
    beside the store, which itself is never written to. The page is for this machine alone unless --host says otherwise,
    and for whoever has the token in its address.

    \b
    Example:
      logitstore serve store --audio-root audio --open
      logitstore serve store --audio-root audio --label-column label --person ann --port 8000
    """
    shown = ExitStack()

    def ready(serving: Serving) -> None:
        shown.close()
        say(serving)
        if options.open:
            import webbrowser

            webbrowser.open(serving.url)

    with shown, suppress(KeyboardInterrupt):
        serve(only(options, ServeOptions), ready, shown.enter_context(of_total("reading the stored views", "blocks")))
    note("the server has ended")
    sys.stdout.flush()
    if any(
        each.is_alive() and not each.daemon for each in threading.enumerate() if each is not threading.main_thread()
    ):
        os._exit(0)  # a query that does not end: Python would wait for it


def say(serving: Serving) -> None:
    """Print where the page is, what it shows, and how it ends."""
    listening = serving.listening
    store, index = listening.store, listening.index
    echo(serving.url)
    sys.stdout.flush()
    labels = f"labels: {index.label_column}" if index.label_column else "no column of labels"
    note(f"{store.location}: {len(index):,} clips, {store.view_count():,} views; {labels}")
    if listening.verdicts is None:
        note("no verdicts are taken: --read-only")
    else:
        counts = ", ".join(f"{count:,} {verdict}" for verdict, count in listening.counts().items())
        note(f"verdicts of {listening.person} go to {listening.verdicts.file} ({counts})")
    if serving.exposed:
        note(
            f"warning: other machines can reach this server at {socket.gethostname()}, over an unencrypted connection; "
            "whoever has the token can hear the audio and give verdicts"
        )
    note("Ctrl-C ends the server")
