"""Fusing archives: many recordings into files, by the processes of a Dask cluster.

    manifest ─► recordings ─► which are done already (receipts) ─► run: units ─► workers ─► outputs, report

A unit is a recording, or a segment of a long one; its description is sent to a worker, never a frame.  Whatever process
is killed, an output is whole or absent, and a later run makes only those that are missing.
"""
