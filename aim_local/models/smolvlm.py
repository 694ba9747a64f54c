"""SmolVLM2 and other Idefics3 models: pictures cut into rows and columns of squares, each named, and all of it last.

A frame of a video is one square with its time, behind a sentence that counts them. Times of frames that nobody knows
are a second apart, which is how often the model was shown one in training.
ref: transformers 5, models/smolvlm: processing_smolvlm.py, image_processing_pil_smolvlm.py, video_processing_smolvlm.py
"""

from __future__ import annotations

import math
from datetime import timedelta

from ..media import MediaShape
from .base import Fit, TowerFile
from .card import Card
from .number_words import in_words
from .parts import Arranged
from .pixels import LANCZOS, Pixels, resize
from .squares import SquareTower, cut

_AROUND, _WHOLE, _VIDEO = "<fake_token_around_image>", "<global-img>", "<video>"
_LARGEST = 4096  # pixels of a picture's longer side, whatever the file says
# for the same messages the text of the template that the processor takes for videos; the published one loses them
_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'] is string %}{{ ': ' + m['content'] }}{% else %}"
    "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}{% for c in m['content'] %}"
    "{{ c['text'] if c['type'] == 'text' else '<video>' if c['type'] == 'video' else '<image>' }}"
    "{% endfor %}{% endif %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


class SmolVLM(SquareTower):
    """projector "idefics3"."""

    cards = (
        Card(
            title="SmolVLM, SmolVLM2, Idefics3",
            checkpoints="HuggingFaceTB's releases",
            text=("llama",),
            video="`Frame from 00:01:` before each frame, one square each",
            merging="yes",
            converters=("smolvlm",),
        ),
    )

    scale = 4
    resample = LANCZOS
    frames = 32

    def __init__(self, file: TowerFile) -> None:
        super().__init__(file)
        self.longest = file.number("clip.vision.preproc_image_size", 4 * self.side)
        self.frame_longest = file.number("aim.video.longest_edge", self.side)
        self.splits = bool(file.number("aim.vision.do_image_splitting", 1))
        self._template = file.text.chat_template or ""
        if self._template.startswith("<|im_start|>") and "video" not in self._template:
            self._template = self.chat_template = _TEMPLATE

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        return file.projector == "idefics3"

    @property
    def media_tokens(self) -> tuple[str, str] | None:
        """A template that knows no videos is given a picture, in whose place the video then stands."""
        return "<image>", _VIDEO if "video" in self._template else ""

    # --- pictures --------------------------------------------------------------------------------------------------

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Sides of a picture before it is cut, multiples of a square's."""
        return whole_squares(*longest_to(height, width, self.longest), self.side)

    def grid(self, shape: MediaShape) -> tuple[int, int]:
        """Rows and columns of squares, (0, 0) where there is one alone."""
        if not self.splits:
            return 0, 0
        height, width = self.fitted(shape.height, shape.width)
        grid = height // self.side, width // self.side
        return grid if grid != (1, 1) else (0, 0)

    def picture_tiles(self, image: Pixels) -> list[Pixels]:
        height, width = image.shape[:2]
        image = resize(image, *longest_to(height, width, self.longest), self.filter)
        if self.splits:
            image = resize(image, *self.fitted(height, width), self.filter)
        whole = self.squared(image, self.filter)
        return [whole] if max(image.shape[:2]) == self.side or not self.splits else [*cut(image, self.side), whole]

    # --- the prompt ------------------------------------------------------------------------------------------------

    def arrange(self, shape: MediaShape) -> Arranged:
        return self._video(shape) if shape.kind == "video" else self._picture(shape)

    def _picture(self, shape: MediaShape) -> Arranged:
        rows, cols = self.grid(shape)
        found: Arranged = []
        for i in range(rows * cols):
            row, col = i // cols + 1, i % cols + 1
            begin = "\n" if col == 1 and row > 1 else ""
            found += [f"{begin}{_AROUND}<row_{row}_col_{col}>", (self.square(i, f"row {row}, column {col}"),)]
        begin = "\n\n" if found else ""
        return [*found, f"{begin}{_AROUND}{_WHOLE}", (self.square(rows * cols, "image"),), _AROUND]

    def _video(self, shape: MediaShape) -> Arranged:
        times, lasts = times_of(shape)
        found: Arranged = [
            f"You are provided the following series of {in_words(shape.n_frames)} frames from a "
            f"{timedelta(seconds=lasts)} [H:MM:SS] video.\n"
        ]
        for i, seconds in enumerate(times):
            at = f"{seconds // 60:02d}:{seconds % 60:02d}"
            found += [f"\nFrame from {at}:{_AROUND}{_WHOLE}", (self.square(i, "frame"),), _AROUND]
        return [*found, "\n\n"]

    # --- frames ----------------------------------------------------------------------------------------------------

    def fit_for(self, shape: MediaShape) -> Fit:
        """Resized twice, as the processor does."""
        height, width = longest_to(shape.height, shape.width, self.frame_longest)
        return lambda frame: self.squared(resize(frame, height, width, self.frame_filter), self.frame_filter)


def times_of(shape: MediaShape) -> tuple[list[int], int]:
    """Whole seconds of the frames, and of the video."""
    if any(math.isnan(seconds) for seconds in shape.timestamps):
        return list(range(shape.n_frames)), shape.n_frames
    times = [int(seconds) for seconds in shape.timestamps]
    return times, times[-1] if math.isnan(shape.duration) else int(shape.duration)


def longest_to(height: int, width: int, longest: int) -> tuple[int, int]:
    """The longer side becomes `longest`, the other one even.

    ref: transformers 5, models/smolvlm/image_processing_pil_smolvlm.py: get_resize_output_image_size
    """
    longest = min(longest, _LARGEST)
    ratio = width / height
    if width >= height:
        height = int(longest / ratio)
        return max(1, height + height % 2), longest
    width = int(longest * ratio)
    return longest, max(1, width + width % 2)


def whole_squares(height: int, width: int, side: int) -> tuple[int, int]:
    """ref: transformers 5, models/smolvlm/image_processing_pil_smolvlm.py: resize_for_vision_encoder"""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return math.ceil(int(width / ratio) / side) * side, width
    height = math.ceil(height / side) * side
    return height, math.ceil(int(height * ratio) / side) * side
