"""Run as a program: decode the AEDAT 4 file named on the command line, as far as it goes, onto standard output.

One line of JSON, {"sensor": [height, width] or null, "packets": decoded of all streams}, then the events' bytes. The
rest of the package is not imported: that would take longer than the decoding.
"""

import json
import sys

import aedat
import numpy as np

EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])


def main(path: str) -> None:
    decoder = aedat.Decoder(path)
    streams = {i: stream for i, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
    first = min(streams, default=None)
    count, packets = 0, [np.empty(0, EVENT)]
    try:
        for packet in decoder:
            count += 1
            if packet["stream_id"] == first:
                packets.append(np.asarray(packet["events"]).astype(EVENT))
    except BaseException as error:  # a panic in Rust is no Exception
        print(error, file=sys.stderr)
    sensor = None if first is None else [streams[first]["height"], streams[first]["width"]]
    sys.stdout.buffer.write(json.dumps({"sensor": sensor, "packets": count}).encode() + b"\n")
    sys.stdout.buffer.write(np.concatenate(packets).tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
