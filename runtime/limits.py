"""How much of anything is read: one table, checked before the work and named when it is passed.

A limit is far above what honest input needs and far below what hurts a small machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from prunus.runtime.errors import PrunusError, UsageError


@dataclass(frozen=True, slots=True)
class Limit:
    """One row of the table.

    Attributes:
        name: What is counted, for messages.
        most: The largest permitted value.
        unit: Of `most`.
    """

    name: str
    most: int
    unit: str

    def check(self, got: int, subject: str, error: type[PrunusError] = UsageError) -> None:
        """Refuse a value below zero or above the limit.

        Args:
            got: Declared or counted, in `unit`.
            subject: What has it: a file, an address, a tensor.
            error: Class of the error.

        Raises:
            PrunusError: of the class asked for; names subject, value and limit.
        """
        if not 0 <= got <= self.most:
            raise error(
                f"{subject}: {self.name} is {short_number(got)} {self.unit}; "
                f"expected at most {self.most}.",
                "It is damaged, made to do harm, or not meant for this program.",
            )


def short_number(number: int) -> str:
    """Return a number for a message; longer ones than any honest size by their length."""
    bits = number.bit_length()
    return str(number) if bits <= 96 else f"a number of {bits} bits"


# Model files
CARD_BYTES = Limit("the length of the card", 16 << 20, "bytes")
SIDECAR_BYTES = Limit("the length of the sidecar", 16 << 20, "bytes")
SAFETENSORS_HEADER_BYTES = Limit("the length of the header", 16 << 20, "bytes")
JSON_DEPTH = Limit("the nesting of its JSON", 64, "levels")
TENSOR_VALUES = Limit("the size that the card declares", 1 << 30, "values")
UNPACKED_BYTES = Limit("the unpacked size", 1 << 30, "bytes")
ARRAY_BYTES = Limit("the size of its arrays", 8 << 30, "bytes")
ONNX_BYTES = Limit("the size of the file", (1 << 31) - 1, "bytes")  # protobuf's own limit
GRAPH_ITEMS = Limit("the number of nodes, weights and tensors", 1 << 20, "items")
GRAPH_NAME_BYTES = Limit("the length", 1 << 16, "bytes")
PLUGIN_BYTES = Limit("the size of the plugin library", 256 << 20, "bytes")

# Bundles and receipts
MANIFEST_BYTES = Limit("the length of its description", 4 << 20, "bytes")
BUNDLE_FILES = Limit("the number of its files", 1 << 12, "files")
RECEIPT_BYTES = Limit("the length of the receipt", 4 << 20, "bytes")

# Pictures, and maps of labels, which are decoded like them
PICTURE_PIXELS = Limit("the size", 1 << 27, "pixels")

# Network: sizes
DOWNLOAD_BYTES = Limit("the size of the download", 16 << 30, "bytes")
PICTURE_BYTES = Limit("the length of one picture", 32 << 20, "bytes")
PART_HEADER_BYTES = Limit("the header of one picture", 64 << 10, "bytes")
WEB_CONNECTIONS = Limit("the number of open connections", 32, "connections")
WEB_VIEWERS = Limit("the number of viewers", 24, "viewers")  # below: a place for short requests
CONTROL_BYTES = Limit("the length", 4096, "bytes")
OFFER_BYTES = Limit("the length", 32 << 10, "bytes")  # a browser's own have 4 to 10 KiB
CAMERA_PIXELS = Limit("the size", 1920 * 1088, "pixels")  # of a browser
OFFER_PARTS = Limit("the number of its parts", 4, "parts")  # picture, sound, data

# Network: seconds in all, however busily the other side sends
ANSWER_S = 10.0  # from the request to the end of the answer's header
PICTURE_S = 10.0  # from one picture of a stream to the end of the next
BLOCK_S = 60.0  # for one block of a download
BODY_S = 30.0  # the whole body of a request to a served model
REQUEST_S = 10.0  # a browser's whole request, and each picture that it takes
RECONNECT_S = 300.0  # a live source may be away for so long
