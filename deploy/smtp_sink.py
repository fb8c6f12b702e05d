"""A real SMTP server (aiosmtpd) that keeps what it gets: run it through deploy/smtp-sink.sh.

Into the folder given by --dir it writes each message as 000001.eml, byte for byte as it came, and one JSON line per
message into messages.jsonl: {"file", "mail_from", "rcpt_tos", "peer"}. The line is written before the client gets its
250, so whoever has seen the 250 finds the line. --fail PATTERN answers 550 to recipients that contain the pattern.
"""

import argparse
import asyncio
import json
import pathlib
import signal
import sys

from aiosmtpd.smtp import SMTP


class Keep:
    """Writes every message into one folder."""

    def __init__(self, folder, fail):
        self.folder = folder
        self.fail = fail
        self.count = 0
        self.lines = (folder / "messages.jsonl").open("a", encoding="utf-8")

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.fail and self.fail in address:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        name = f"{self.count:06}.eml"
        (self.folder / name).write_bytes(envelope.original_content)
        line = {"file": name, "mail_from": envelope.mail_from, "rcpt_tos": envelope.rcpt_tos, "peer": session.peer[1]}
        self.lines.write(json.dumps(line) + "\n")
        self.lines.flush()
        return f"250 kept as {name}"


async def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dir", type=pathlib.Path, required=True, help="folder for the messages; made if missing")
    arguments.add_argument("--port", type=int, default=0, help="port on the loopback (default: any free one)")
    arguments.add_argument("--fail", default="", metavar="PATTERN", help="refuse recipients that contain this")
    given = arguments.parse_args()
    given.dir.mkdir(parents=True, exist_ok=True)
    keep = Keep(given.dir, given.fail)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(keep, enable_SMTPUTF8=True, data_size_limit=50_000_000, loop=loop), "127.0.0.1", given.port
    )
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    await stop.wait()
    server.close()
    print(f"kept {keep.count} messages", file=sys.stderr)


asyncio.run(main())
