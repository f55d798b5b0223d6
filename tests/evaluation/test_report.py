import re
from html.parser import HTMLParser

import numpy as np
import pytest

from oneiro.evaluation.animation import Film
from oneiro.evaluation.plots import Axis, Curve, duration, line_plot, linear_ticks, short
from oneiro.evaluation.report import Clip, Line, ReportData, write_report
from oneiro.evaluation.sections import series

SECTIONS = ("films", "results", "temperature", "curves", "making", "recipe")
VOID = {"meta", "img", "source", "path", "br", "link"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects text and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.attributes, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def full(folder) -> ReportData:
    rng = np.random.default_rng(0)
    film = Film(frames=rng.integers(0, 256, (4, 24, 32, 3), np.uint8)).save(folder / "video" / "film.webp")
    metrics = [{"stage": "vision", "step": k, "vision/reconstruction": 300 / (k + 1)} for k in range(400)]
    metrics += [{"stage": "memory", "step": k, "memory/nll": 1.4 - 0.01 * k} for k in range(30)]
    metrics += [{"stage": "evolve", "step": k, "evolve/best": 2 * k, "evolve/mean": k} for k in range(9)]
    return ReportData(
        title="Ball <script>alert('title')</script>",
        intro="It rolls & rolls.",
        unit="tics",
        lines=(
            Line(name="Random policy", scores=[100, 120, 80], tone="chance", note="<i>held</i>"),
            Line(name="In the dream", scores=[400.0, 420.0], tone="dream"),
            Line(name="Never run", scores=[], tone="real"),
            Line(name="In the real game", scores=[300, 310, 290, 300], tone="real"),
        ),
        marks={"solved": 250},
        clips=(
            Clip(title="Real", caption="as played", film=film),
            Clip(title="Lost", caption="", film=None),
        ),
        open_loop={"psnr": [40.0, 30.0, 20.0], "held_psnr": [100.0, 22.0, 15.0]},
        metrics=metrics,
        temperature={0.1: [500, 510], 1.0: [400, 420], 1.3: [200, 210]},
        temperature_trained=1.0,
        temperature_clip=Clip(title="Three dreams", caption="", film=film),
        facts={"Command": "oneiro train ball --seed=1 && echo <done>"},
        seconds={"collect": 26.0, "vision": 64.0},
        parameters={"world.vision": 4_348_547},
        recipe={"world": {"z_dim": 32, "name": "</pre><script>alert(2)</script>"}},
    )


def test_the_full_report_is_one_sound_page_that_loads_nothing(tmp_path):
    path = write_report(tmp_path / "run", full(tmp_path))
    assert path == tmp_path / "run" / "report.html"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert [dict([a])["id"] for a in page.attributes if a[0] == "id"] == list(SECTIONS)
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset", "xlink:href")]
    assert len(links) == 4  # two films, each with a still
    assert all(value.startswith("data:image/webp;base64,") for value in links)
    assert not re.search(r"https?://|url\(|@import|<script|<link", text)
    assert "prefers-color-scheme: dark" in text


def test_the_report_says_what_was_found(tmp_path):
    page = Page(write_report(tmp_path, full(tmp_path)).read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    for wanted in (
        "300 tics in the real game, mean of 4 episodes (95 % interval 287 to 313)",
        "3.0 times the random policy",
        "Random policy <i>held</i> 100 ± 20 50 to 150 3",
        "Never run not measured",
        "Film “Lost” was not made.",
        "near 0 the likeliest thing always happens",
        "it was trained at 1",
        "collect 26 s",
        "world.vision 4,348,547",
        "oneiro train ball --seed=1 && echo <done>",
        "</pre><script>alert(2)</script>",
        "C learns to act, in the dream score in the dream best of a generation its mean",
        "Not in this run's metrics: vision/kl, memory/terminated.",
    ):
        assert wanted in text, (wanted, text)


def test_an_empty_report_names_what_is_missing_in_every_section(tmp_path):
    text = write_report(tmp_path, ReportData(title="t", intro="i")).read_text(encoding="utf-8")
    assert Page(text).open == []
    for section in SECTIONS:
        body = text.split(f'<section id="{section}">')[1].split("</section>")[0]
        assert 'class="missing"' in body, section
    assert "has not played the real game yet" in text


def test_single_scores_and_constant_curves_can_be_drawn(tmp_path):
    data = ReportData(
        title="t",
        intro="i",
        lines=(
            Line(name="Real", scores=[5.0], tone="real"),
            Line(name="Chance", scores=[0, 0], tone="chance"),
        ),
        metrics=[{"step": 1, "vision/kl": 2.0}, {"step": 1, "vision/reconstruction": 0.0}],
        temperature={1.0: [3.0]},
        open_loop={"psnr": [100.0, 100.0], "held_psnr": [100.0, 100.0]},
    )
    text = write_report(tmp_path, data).read_text(encoding="utf-8")
    assert Page(text).open == []
    assert "nan" not in text


def test_metrics_of_repeated_stages_follow_each_other():
    records = [{"step": s, "m": float(s)} for s in (10, 20, 10, 20)] + [{"step": 5}, {"step": 1, "m": "NaN"}]
    assert series(records, "m") == ([10, 20, 30, 40], [10, 20, 10, 20])


def test_long_curves_are_averaged_in_bins():
    curve = Curve(name="", x=list(range(10_000)), y=[1.0] * 10_000)
    html = line_plot("t", [curve], x_name="x", y_name="y")
    assert html.count("L") < 200
    assert len(html) < 6000


def test_axes_put_numbers_where_they_belong():
    assert Axis(0, 10).at(2.5) == 25
    assert Axis(1, 100, True).at(10) == pytest.approx(50)
    assert linear_ticks(0, 1000) == [0, 200, 400, 600, 800, 1000]
    assert linear_ticks(1, 12) == [0, 5, 10, 15]
    assert Axis(0.052, 0.099, True).ticks() == [0.06, 0.07, 0.08, 0.09]
    assert Axis(4, 320, True).ticks() == [5, 10, 20, 50, 100, 200]
    assert Axis(0.5, 2e6, True).ticks() == [1, 10, 100, 1e3, 1e4, 1e5, 1e6]
    assert [short(v) for v in (0, 0.25, 1500, 20_000, 3e6)] == ["0", "0.25", "1,500", "20k", "3M"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (48.4, "48 s"), (200, "3 min 20 s"), (3599.7, "1 h"), (5100, "1 h 25 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
