"""Show a published run in the rerun viewer, or save it to a file:

    python examples/rerun_viewer.py tcp://127.0.0.1:5556 [FILE.rrd]

`pip install '.[examples]'` installs rerun.  Without a file, its viewer opens; the viewer sends usage statistics to its
makers unless you run `rerun analytics disable` first.
"""

import sys

import cv2
import rerun as rr

from streamfuse import NothingReceived, Subscriber


def main(url: str, file: str | None = None) -> None:
    rr.init("streamfuse", spawn=file is None)
    if file is not None:
        rr.save(file)
    with Subscriber(url) as subscriber:
        try:
            for frame in subscriber:
                header = frame.header
                rr.set_time("run", duration=header.time_ns / 1e9)
                rr.set_time("frame", sequence=header.seq)
                rr.log(header.stream, rr.Image(cv2.cvtColor(frame.to_bgr(), cv2.COLOR_BGR2RGB)).compress(85))
                rr.log(f"{header.stream}/skew_ms", rr.Scalars(header.skew_ns / 1e6))
                if frame.age_ns is not None:
                    rr.log(f"{header.stream}/age_ms", rr.Scalars(frame.age_ns / 1e6))
        except (KeyboardInterrupt, NothingReceived) as end:
            print(f"ended: {end or 'stopped'}; {subscriber.statistics().received} frames", file=sys.stderr)
    rr.disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])
