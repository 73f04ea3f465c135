"""Print the frames that a run publishes, in ten lines: python examples/subscriber.py tcp://127.0.0.1:5556"""

import sys

from streamfuse import Subscriber

with Subscriber(sys.argv[1]) as subscriber:
    for frame in subscriber:
        h = frame.header
        print(h.stream, h.seq, h.content, f"{h.width}x{h.height}, {(frame.age_ns or 0) / 1e6:.1f} ms old", flush=True)
