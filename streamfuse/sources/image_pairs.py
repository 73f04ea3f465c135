"""Pairs of images from two or three directories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamfuse.errors import InputError
from streamfuse.sources.sequence import list_images, match_images


@dataclass(frozen=True, slots=True)
class ImagePaths:
    """The image files of one scene."""

    ir: Path
    vis: Path
    fused: Path | None
    """None: still to be fused."""

    @property
    def name(self) -> str:
        return self.vis.stem


def pair_images(ir: str, vis: str, fused: str | None) -> tuple[list[ImagePaths], list[str]]:
    """Pair two or three lists of images, in the order of the visible one; the second list has notes for the user.

    Each list is a directory, a pattern or an image.  Images belong together by equal numbers in their names, or by
    equal names whatever the suffix, as `streamfuse fuse` takes them.  Raises InputError where a list is empty, no
    image has a partner, or a scene has no fused image.
    """
    try:
        ir_images, vis_images = list_images(ir), list_images(vis)
        fused_images = list_images(fused) if fused is not None else None
    except OSError as error:
        raise InputError(f"{error.filename or ir} cannot be read: {error.strerror}") from None
    scenes = list(_match(ir, ir_images, vis, vis_images))
    notes = [f"{text}: {len(images) - len(scenes)} of {len(images)} images have no partner and are left out"
             for text, images in ((ir, ir_images), (vis, vis_images)) if len(images) > len(scenes)]  # fmt: skip
    if fused is None or fused_images is None:
        return [ImagePaths(a, b, None) for a, b in scenes], notes
    fused_of = {b: f for f, b in _match(fused, fused_images, vis, [b for _, b in scenes])}
    if missing := [b.name for _, b in scenes if b not in fused_of]:
        some = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise InputError(f"{fused} has no fused image for {len(missing)} of {len(scenes)} pairs: {some}")
    if len(fused_images) > len(scenes):
        extra = len(fused_images) - len(scenes)
        notes.append(f"{fused}: {extra} of {len(fused_images)} images belong to no pair and are left out")
    return [ImagePaths(a, b, fused_of[b]) for a, b in scenes], notes


def _match(one: str, ones: Sequence[Path], other: str, others: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield pairs in the order of `others`."""
    if len(ones) == len(others) == 1:
        yield ones[0], others[0]
        return
    indices, other_indices, by_name = match_images(ones, others)
    if not by_name:
        raise InputError(f"no image of {one} has the name or the number of one of {other}")
    for text, found, paths in ((one, indices, ones), (other, other_indices, others)):
        if len(set(found)) < len(found):
            twice = next(path for path, index in zip(paths, found, strict=True) if found.count(index) > 1)
            raise InputError(f"{text} has several images named {twice.stem}: keep one of them")
    partner = dict(zip(indices, ones, strict=True))
    for index, path in zip(other_indices, others, strict=True):
        if index in partner:
            yield partner[index], path
