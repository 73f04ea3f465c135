"""Archives: many recordings to fused files, over the processes of a Dask cluster.

    manifest ─► clips ─► what of them is done already (receipts) ─► run: units ─► workers ─► outputs, report

A unit is a clip, or a part of a long one; its description travels, never a frame.  Whatever is killed, and when, an
output is whole or absent, and a later run makes only what is missing.
"""
