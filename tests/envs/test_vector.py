import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from faulty import FaultyConfig

from oneiro.envs import make
from oneiro.envs.toy import ToyConfig, counter_length
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces

ALL = np.ones(3, bool)
WORKERS = pytest.mark.parametrize("workers", ["sync", "async"])


def opened(config, num=None):
    env = make(config, num)
    env.reset_rows(np.ones(env.num_envs, bool), np.arange(env.num_envs))
    return env


def act(env, value=0.25):
    return env.step(np.full((env.num_envs, 1), value))


@WORKERS
def test_rows_are_reset_one_by_one_and_idle_slots_wait(workers):
    seeds = np.array([8, 3, 70_001])
    with_env = ToyConfig(id="counter", num=3, workers=workers, processes=2)
    env = with_env.make()
    try:
        obs = env.reset_rows(ALL, seeds)
        assert obs["vector"].tolist() == [[0, 8, 0, 0], [0, 3, 0, 0], [0, 4465, 1, 0]]
        assert obs["image"][:, 1, 0, 0].tolist() == [8, 3, 70_001 % 256]
        obs, reward, terminated, truncated, info = act(env)
        assert obs["vector"][:, 0].tolist() == [1, 1, 1]
        assert obs["vector"][:, 3].tolist() == [0.25] * 3
        assert reward.tolist() == [1, 1, 1]
        obs, reward, terminated, truncated, info = act(env)
        assert terminated.tolist() == [True, False, False]  # length 2, even
        assert truncated.tolist() == [False, False, False]
        obs, reward, terminated, truncated, info = act(env)
        assert obs["vector"][:, 0].tolist() == [2, 3, 3]
        assert reward.tolist() == [0, 3, 3]
        assert truncated.tolist() == [False, False, True]  # length 3, odd
        assert not info["crashed"].any()
        assert env.running.tolist() == [False, True, False]
        obs = env.reset_rows(np.array([True, False, False]), np.array([5, 0, 0]))
        assert obs["vector"][:, :2].tolist() == [[0, 5], [3, 3], [3, 4465]]
        obs, *_ = act(env)
        assert obs["vector"][:, :2].tolist() == [[1, 5], [4, 3], [3, 4465]]
    finally:
        env.close()


@WORKERS
def test_rows_may_be_marked_as_ends_while_the_game_goes_on(workers):
    env = opened(FaultyConfig(fault="terminal", num=2, workers=workers), 2)  # 2 and 3 steps long
    try:
        marks = [(act(env)[4]["terminal"].tolist(), env.running.tolist()) for _ in range(3)]
    finally:
        env.close()
    assert marks == [([False] * 2, [True] * 2), ([True] * 2, [False, True]), ([False] * 2, [False] * 2)]


def test_gymnasium_interface():
    env = ToyConfig(id="counter", num=3).make()
    obs, info = env.reset(seed=4)
    assert obs["vector"][:, 1].tolist() == [4, 5, 6]
    assert env.observation_space.contains(obs)
    assert not info["crashed"].any()
    obs, _ = env.reset(seed=[1, 2, None], options={"reset_mask": np.array([False, True, False])})
    assert obs["vector"][:, 1].tolist() == [4, 2, 6]
    assert env.metadata["autoreset_mode"].name == "DISABLED"
    assert Spaces.of(env) == ToyConfig(id="counter").spaces()
    env.close()


def test_observations_are_copies():
    env = opened(ToyConfig(id="counter", num=2))
    first, *_ = act(env)
    act(env)
    assert first["vector"][:, 0].tolist() == [1, 1]


@WORKERS
def test_an_exception_ends_one_episode(workers, caplog):
    config = FaultyConfig(fault="raise", at=2, every=3, num=3, workers=workers, processes=1)
    env = config.make()
    try:
        env.reset_rows(ALL, np.array([6, 7, 13]))
        act(env)
        with caplog.at_level(logging.WARNING, "oneiro"):
            obs, reward, terminated, truncated, info = act(env)
        assert "the dice of seed 6 fell" in caplog.text
        assert info["crashed"].tolist() == [True, False, False]
        assert truncated.tolist() == [True, False, False]
        assert not terminated.any()
        assert reward.tolist() == [0, 2, 2]
        assert obs["vector"][:, 0].tolist() == [1, 2, 2]  # the last one that arrived
        env.reset_rows(np.array([True, False, False]), np.array([7, 0, 0]))
        obs, *_, info = act(env)
        assert obs["vector"][:, 0].tolist() == [1, 3, 3]
        assert not info["crashed"].any()
    finally:
        env.close()


@pytest.mark.parametrize("fault", ["kill", "exit", "hang"])
def test_a_dead_worker_is_started_again(fault, caplog):
    timeout = 3.0 if fault == "hang" else 60.0
    config = FaultyConfig(fault=fault, at=2, every=5, num=3, processes=2, timeout=timeout)
    env = config.make()
    try:
        env.reset_rows(ALL, np.array([5, 6, 7]))
        assert env._worker_of.tolist() == [0, 0, 1]
        act(env)
        with caplog.at_level(logging.WARNING, "oneiro"):
            *_, truncated, info = act(env)
        assert {"kill": "SIGKILL", "exit": "exit code 3", "hang": "did not answer for 3 s"}[
            fault
        ] in caplog.text
        assert info["crashed"].tolist() == [True, True, False]  # its neighbour in the process is lost with it
        assert truncated.tolist() == [True, True, False]
        env.reset_rows(np.array([True, True, False]), np.array([6, 9, 0]))
        obs, *_, info = act(env)
        assert obs["vector"][:, :2].tolist() == [[1, 6], [1, 9], [3, 7]]
        assert not info["crashed"].any()
    finally:
        env.close()


def test_a_worker_that_dies_in_a_reset_loses_its_other_episode_and_tries_again(tmp_path):
    config = FaultyConfig(fault="kill", at=0, every=5, num=2, processes=1, marker=str(tmp_path / "died"))
    env = config.make()
    try:
        env.reset_rows(np.array([True, False]), np.array([6, 0]))
        act(env)
        obs = env.reset_rows(np.array([False, True]), np.array([0, 10]))
        assert (tmp_path / "died").exists()
        assert obs["vector"][1, :2].tolist() == [0, 10]
        obs, _, _, truncated, info = act(env)
        assert info["crashed"].tolist() == truncated.tolist() == [True, False]
        assert obs["vector"][:, :2].tolist() == [[1, 6], [1, 10]]
    finally:
        env.close()


@WORKERS
def test_crashes_in_a_row_stop_with_the_traceback(workers):
    env = FaultyConfig(fault="raise", at=1, num=1, workers=workers, max_crashes=3).make()
    try:
        for _ in range(2):
            env.reset_rows(np.ones(1, bool), np.array([4]))
            *_, info = act(env)
            assert info["crashed"].all()
        env.reset_rows(np.ones(1, bool), np.array([4]))
        with pytest.raises(OneiroError, match=r"(?s)3 times in a row.*faulty\.py.*the dice of seed 4 fell"):
            act(env)
    finally:
        env.close()


def test_an_environment_that_cannot_be_reset_stops_with_the_reason():
    env = FaultyConfig(fault="exit", at=0, num=1, max_crashes=2).make()
    try:
        with pytest.raises(OneiroError, match=r"2 times in a row(?s:.*)exit code 3"):
            env.reset_rows(np.ones(1, bool), np.array([4]))
    finally:
        env.close()


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("nan", r"at step 2 of the episode with seed 4 observation 'vector' is NaN"),
        ("bounds", r"observation 'vector' is -7, below"),
        ("dtype", r"'vector' is float64 \[4\], its space says float32 \[4\]"),
        ("shape", r"'image' is uint8 \[3, 32, 64\], its space says uint8 \[3, 64, 64\]"),
        ("missing", r"the observation is \['vector'\], its space has \['image', 'vector'\]"),
        ("reward", r"FaultyConfig: at step 2 .* the reward is nan"),
        ("no reward", r"the reward is 'plenty', not a number"),
    ],
)
def test_what_breaks_the_rules_is_named(fault, complaint):
    for workers in ("sync", "async"):
        if workers == "async" and fault not in ("nan", "reward"):
            continue  # the same code in another process
        env = FaultyConfig(fault=fault, num=1, workers=workers).make()
        try:
            env.reset_rows(np.ones(1, bool), np.array([4]))
            act(env)
            with pytest.raises(OneiroError, match=complaint):
                act(env)
        finally:
            env.close()


def processes():
    return {p.pid for p in psutil.Process().children(recursive=True)}


def test_close_ends_all_processes():
    before = processes()
    env = opened(ToyConfig(id="counter", num=2, workers="async", processes=2))
    assert len(processes() - before) == 2
    env.close()
    assert processes() <= before
    env.close()


SCRIPT = """
import signal, sys, time
import numpy as np
from oneiro.envs.toy import ToyConfig
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may have it ignored
env = ToyConfig(id="counter", num=2, workers="async", processes=2).make()
env.reset_rows(np.ones(2, bool), np.arange(2))
print(*[w._child.process.pid for w in env._workers], flush=True)
print(*[w._child.folder for w in env._workers], flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_leave_with_their_parent(how):
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    folders = parent.stdout.readline().split()
    assert len(workers) == 2
    assert all(os.path.isdir(folder) for folder in folders)
    os.kill(parent.pid, how)
    parent.wait(20)
    parent.stdout.close()
    parent.stderr.close()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) or any(os.path.exists(folder) for folder in folders):
        assert time.monotonic() < deadline, "a worker or its files outlived its parent"
        time.sleep(0.05)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_import_no_torch():
    code = "import sys, oneiro.envs.worker, oneiro.envs.takecover, oneiro.envs.gym; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(
    "values", [{"num": 0}, {"timeout": 0}, {"processes": -1}, {"max_crashes": 0}, {"id": "tetris"}]
)
def test_bad_fields_are_named(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ToyConfig(**values)


def test_counter_lengths():
    assert [counter_length(seed) for seed in (0, 7, 8, 13)] == [2, 9, 2, 7]
