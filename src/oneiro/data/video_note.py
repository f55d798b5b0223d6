"""`VideoNote`: what the actions beside recorded videos mean. One file for a folder, `recording.json`.

{"format": 1, "fps": 8.75, "kind": "choice", "actions": ["none", "turn left", ...], "low": [], "high": [], "about": ""}

It is optional for videos of your own; where it is there, it must agree with the options of the run.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec

NAME = "recording.json"
FORMAT = 1
Kind = Literal["choice", "switches", "numbers"]


@dataclass(frozen=True, kw_only=True)
class VideoNote:
    """Frame rate and actions of all videos of one folder."""

    fps: float  # frames a second, one for each action
    kind: Kind  # one of several, each on or off, or a number each
    actions: tuple[str, ...]  # name of each
    low: tuple[float, ...] = ()  # of numbers
    high: tuple[float, ...] = ()  # of numbers
    about: str = ""  # where the videos come from

    @classmethod
    def of(cls, codec: ActionCodec, names: tuple[str, ...], fps: float, about: str) -> "VideoNote":
        """For the actions of an environment. Without names: "action 0", ... Several choices at once are switches."""
        names = names if len(names) == codec.dim else tuple(f"action {i}" for i in range(codec.dim))
        names = tuple(name.lower().replace("_", " ") for name in names)
        if not codec.is_discrete:
            return cls(fps=fps, kind="numbers", actions=names, low=codec.low, high=codec.high, about=about)
        return cls(
            fps=fps, kind="choice" if len(codec.groups) == 1 else "switches", actions=names, about=about
        )

    def write(self, folder: Path) -> None:
        """`recording.json` of a folder."""
        text = json.dumps({"format": FORMAT} | asdict(self), indent=1)
        (folder / NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "VideoNote | None":
        """That of a folder, None if it has none; OneiroError if it is damaged."""
        path = folder / NAME
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version = int(content.pop("format"))
            if version > FORMAT:
                raise OneiroError(f"{path} has format {version}, this oneiro reads {FORMAT}; upgrade it")
            names = {name: tuple(content.get(name, ())) for name in ("actions", "low", "high")}
            return cls(**{**content, "fps": float(content["fps"]), **names})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OneiroError(f"{path} is damaged ({error!r}); mend it or delete it") from error

    def require(self, folder: Path, **options: Any) -> None:
        """OneiroError that names every option that says something else than this note."""
        wrong = {name: value for name, value in options.items() if value != getattr(self, name)}
        if wrong:
            said = "\n  ".join(
                f"{name}: {getattr(self, name)!r} there, {value!r} here" for name, value in wrong.items()
            )
            remedy = " ".join(f"--env.{name} {_words(getattr(self, name))}" for name in wrong)
            raise OneiroError(f"{folder / NAME} says otherwise:\n  {said}\nTrain with: {remedy}")


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(json.dumps(x) if " " in str(x) else str(x) for x in value)
    return str(value)  # of a number every digit: it has to be equal
