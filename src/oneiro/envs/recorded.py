"""Recorded video with actions instead of an environment: what it shows and takes is known; it cannot be played."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

from oneiro.envs.config import EnvConfig
from oneiro.errors import OneiroError

if TYPE_CHECKING:
    from oneiro.spaces import Spaces

Kind = Literal["choice", "switches", "numbers"]


@dataclass(frozen=True, kw_only=True)
class RecordedConfig(EnvConfig):
    """A folder of NAME.mp4 with NAME.npz, .jsonl or .csv beside each: the pictures, and the action that led to each.

    Actions: one of several (choice), each on or off (switches), or a number each (numbers, within low and high).
    """

    videos: str = ""  # folder of videos and actions; read once, when the run begins
    fps: float = 8.75  # frames a second, one for each action; a video of another rate is refused
    height: int = 72  # of the stored pictures, pixels
    width: int = 96  # of the stored pictures, pixels
    fit: Literal["stretch", "crop"] = (
        "stretch"  # of larger videos: as they are, or the middle in these proportions
    )
    resample: bool = False  # take every k-th frame of a video that is k times as fast
    kind: Kind = "choice"  # of actions
    actions: tuple[str, ...] = ()  # name of each: what the page shows beside its key
    low: tuple[float, ...] = ()  # smallest value of each, of kind numbers
    high: tuple[float, ...] = ()  # and the largest

    needs: ClassVar = ("av", "video")
    is_playable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in fields(EnvConfig):
            if getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name} has no effect: recorded video is not played, leave it out")
        if min(self.height, self.width) < 1 or self.fps <= 0:
            raise ValueError(
                f"height, width and fps must be positive, got {self.height}, {self.width}, {self.fps}"
            )
        if not self.actions:
            raise ValueError("actions needs a name for each action, for example: none left right")
        bounds = len(self.actions) if self.kind == "numbers" else 0
        if not len(self.low) == len(self.high) == bounds:
            raise ValueError(
                f"low and high need {bounds} values for {len(self.actions)} actions of kind {self.kind}, got "
                f"{self.low} and {self.high}"
            )

    def env(self) -> NoReturn:
        """OneiroError: there is nothing to play."""
        raise OneiroError(
            "there is no environment to play: this world was learned from recorded video. `oneiro dream` compares it "
            "with the video, `oneiro play` opens a page to play in it"
        )

    def make(self, num: int | None = None) -> NoReturn:
        """OneiroError: there is nothing to play."""
        self.env()

    def spaces(self) -> "Spaces":
        """As the fields say; no video is opened."""
        from oneiro.spaces import ActionCodec, Spaces

        count = len(self.actions)
        codec = ActionCodec(count)
        if self.kind == "switches":
            codec = ActionCodec(count, (0.0,) * count, (1.0,) * count)
        elif self.kind == "numbers":
            codec = ActionCodec(count, self.low, self.high)
        return Spaces({"image": (3, self.height, self.width)}, codec)

    @property
    def steps_per_second(self) -> float:
        """See `EnvConfig.steps_per_second`."""
        return self.fps

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        where = f"recorded video in {self.videos}" if self.videos else "recorded video"
        return (
            f"{where}, {self.fps:g} frames a second, {self.height}x{self.width}, {len(self.actions)} actions "
            f"({self.kind})"
        )
