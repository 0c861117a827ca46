"""Codes over UDP: a sink that sends packets, a source that receives them, counted loss between.

Both ends have the model; only codes travel. Nothing is encrypted; beyond this machine packets carry
a keyed check unless that is turned off, so that strangers cannot speak.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prunus.runtime.audio.packets import Group, Packetizer, Receiver
from prunus.runtime.errors import HostError, SourceError, UsageError

HEADER_BYTES = 28  # IPv4 and UDP, per packet
LOCAL = "127.0.0.1"
NO_KEY = "none"
TAKEOVER_SECONDS = 0.5  # after so long without anything new, another stream is a new sender
_SHORTEST_KEY = 8
_POLL_SECONDS = 0.1
_LARGEST = 65535
_KIND_AT, _END = 3, 3  # where a packet says what it is, and what the last ones are


def parse_address(text: str, *, listen: bool) -> tuple[str, int]:
    """Return host and port of what stands after ``udp:``.

    >>> parse_address("5004", listen=True), parse_address("10.0.0.2:5004", listen=False)
    (('127.0.0.1', 5004), ('10.0.0.2', 5004))

    Raises:
        UsageError: another form.
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not (0 if listen else 1) <= int(port) <= 65535:
        raise UsageError(
            f"Got udp:{text}; expected {'udp:PORT or udp:HOST:PORT' if listen else 'udp:HOST:PORT'}"
            " with a port up to 65535.",
            "Example: udp:127.0.0.1:5004",
        )
    return host or LOCAL, int(port)


def packet_key(text: str | None, host: str) -> bytes | None:
    """Return the secret that packets to or from this address are checked with.

    Args:
        text: What the user gave: a secret, ``@FILE`` that holds it, ``none``, or None.
        host: Other end's address, or the one that is listened on.

    Returns:
        The secret; None for a mere checksum, which is the default on this machine only.

    Raises:
        UsageError: the address is beyond this machine and nothing was given, or too short a secret.
        SourceError: the file cannot be read.
    """
    if text is None and not _loopback(host):
        raise UsageError(
            f"Packets by way of {host} need a --key: whoever reaches the port could speak.",
            f"Give both ends the same --key SECRET or --key @FILE; --key {NO_KEY} goes without.",
        )
    if text is None or text == NO_KEY:
        return None
    if text.startswith("@"):
        try:
            key = Path(text[1:]).read_bytes().strip()
        except OSError as error:
            raise SourceError(
                f"Cannot read the key in {text[1:]}: {error.strerror}.", "Give --key @FILE."
            ) from None
    else:
        key = text.encode()
    if len(key) < _SHORTEST_KEY:
        raise UsageError(
            f"Got a key of {len(key)} bytes; expected {_SHORTEST_KEY} or more.",
            "Make one with: openssl rand -hex 16",
        )
    return key


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class UdpSender:
    """Sends codes in packets.

    Attributes:
        name: For messages.
        packets: Sent so far.
        bytes: Of packets and their headers.

    Args:
        address: Host and port.
        packetizer: Makes the packets.
        pace: Real time (1.0), a multiple of it, or 0 for as fast as codes come. A microphone has
            its own pace.

    Raises:
        SourceError: there is no such host.
    """

    def __init__(self, address: tuple[str, int], packetizer: Packetizer, pace: float) -> None:
        self.name = f"udp:{address[0]}:{address[1]}"
        self.packets = self.bytes = 0
        self._packetizer, self._pace = packetizer, pace
        self._to: tuple[Any, ...]
        try:
            family, kind, _, _, self._to = socket.getaddrinfo(
                *address, family=socket.AF_INET, type=socket.SOCK_DGRAM
            )[0]
        except OSError as error:
            raise SourceError(
                f"Cannot send to {self.name}: {error.strerror}.", "Give udp:HOST:PORT."
            ) from None
        self._socket = socket.socket(family, kind)
        self._begun = 0.0
        self._frames = 0

    def write(self, group: Group) -> None:
        """Send what is complete by now; lost groups of a relay are not sent."""
        if group.codes is None:
            return
        self._send(self._packetizer.push(group.codes))
        self._frames += group.frames
        self._wait()

    def finish(self, samples: int) -> None:
        """Send the rest and the end."""
        self._send(self._packetizer.flush(samples))

    def close(self) -> None:
        """Close the socket; safe to call twice."""
        self._socket.close()

    def _send(self, packets: list[bytes]) -> None:
        for packet in packets:
            try:
                self._socket.sendto(packet, self._to)
            except ConnectionRefusedError:  # nobody listens yet, or any more: that is loss
                pass
            except OSError as error:
                raise SourceError(
                    f"Cannot send to {self.name}: {error.strerror}.", "Is the network up?"
                ) from None
            self.packets += 1
            self.bytes += len(packet) + HEADER_BYTES

    def _wait(self) -> None:
        if not self._pace:
            return
        codec = self._packetizer.codec
        self._begun = self._begun or time.monotonic()
        due = self._begun + self._frames * codec.hop / codec.sample_rate_hz / self._pace
        time.sleep(max(0.0, due - time.monotonic()))


class UdpReceiver:
    """A source of codes.

    Attributes:
        title: For messages.
        port: Where it listens: what the system chose for port 0.
        dropped: Packets that `loss` threw away.
        silent: Whether it ended because nothing came any more.

    Args:
        address: Host and port to listen on.
        receiver: Puts packets into order.
        loss: Share of packets to throw away on purpose, 0..1: shows what concealment does.
        seed: Of the packets that are thrown away.
        idle_seconds: It ends so long after the last packet that was new, when no end came.
        wait_seconds: How long it waits for the first one.

    Raises:
        HostError: the port is taken.
        UsageError: a loss that is no share.
    """

    def __init__(
        self,
        address: tuple[str, int],
        receiver: Receiver,
        *,
        loss: float = 0.0,
        seed: int = 0,
        idle_seconds: float = 3.0,
        wait_seconds: float = 60.0,
    ) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise HostError(
                f"Cannot listen on udp:{address[0]}:{address[1]}: {error.strerror}.",
                "Choose another port.",
            ) from None
        self._socket.settimeout(_POLL_SECONDS)
        self.port = int(self._socket.getsockname()[1])
        self.title = f"udp:{address[0]}:{self.port}"
        self.receiver, self.dropped, self.silent = receiver, 0, False
        self._lose = losing(loss, seed)
        self._idle, self._wait = idle_seconds, wait_seconds
        self._closed = False

    def groups(self) -> Iterator[Group]:
        """Yield codes and gaps in order until the sender ends, or nothing new comes any more.

        Raises:
            SourceError: nothing of use has come at all.
        """
        begun, last = time.monotonic(), None
        while not self._closed and not self.receiver.ended:
            packet = self._received()
            now = time.monotonic()
            if packet and not self._lost(packet):
                before = self.receiver.accepted
                quiet = last is None or now - last > TAKEOVER_SECONDS
                yield from self.receiver.push(packet, quiet=quiet)
                if self.receiver.accepted > before:
                    last = time.monotonic()  # whoever takes the groups takes time
                    continue
            if last is None and now - begun > self._wait:
                raise self._nothing()
            if last is not None and now - last > self._idle:
                self.silent = True
                break
        yield from self.receiver.flush()

    def _received(self) -> bytes:
        try:
            return self._socket.recv(_LARGEST)
        except TimeoutError:
            return b""
        except OSError:
            self._closed = True  # by another thread
            return b""

    def _lost(self, packet: bytes) -> bool:
        lost = packet[_KIND_AT : _KIND_AT + 1] != bytes([_END]) and self._lose()
        self.dropped += lost
        return lost

    def _nothing(self) -> SourceError:
        refused = self.receiver.seen.refused
        came = f"{refused} packets came, none of them acceptable" if refused else "nothing came"
        return SourceError(
            f"On {self.title} {came} for {self._wait:g} s.",
            "Do both ends have the same --key and --model?" if refused else "Start the sender.",
        )

    def close(self) -> None:
        """Stop listening; safe to call twice and from another thread."""
        self._closed = True
        self._socket.close()


def losing(share: float, seed: int) -> Callable[[], bool]:
    """Return a function that says of each packet whether it is lost, the same for the same seed.

    Raises:
        UsageError: `share` lies outside 0..1.
    """
    if not 0.0 <= share <= 1.0:
        raise UsageError(
            f"Got a loss of {100 * share:g} %; expected 0 to 100.", "Example: --loss 5"
        )
    dice = random.Random(seed)
    return lambda: dice.random() < share
