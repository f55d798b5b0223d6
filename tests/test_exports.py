"""The public names are these and no others; importing the package alone costs next to nothing."""

import subprocess
import sys

import oneiro
import oneiro.testing

PUBLIC = {
    "ActionCodec",
    "Agent",
    "Behaviour",
    "Carry",
    "Decision",
    "Dream",
    "Losses",
    "OneiroError",
    "OpenLoop",
    "Prediction",
    "Spaces",
    "TimeStep",
    "WorldModel",
    "__version__",
    "dream",
    "errors",
    "load",
    "tree",
}

PUBLIC_TESTING = {
    "CatchOracle",
    "Check",
    "CounterEnv",
    "DodgeOracle",
    "MakeBatch",
    "build_behaviour",
    "build_world",
    "check_behaviour",
    "check_target",
    "check_world",
    "counter_length",
    "load_target",
    "played_rows",
    "random_rows",
    "require",
}


def test_public_names() -> None:
    assert set(oneiro.__all__) == PUBLIC
    assert set(dir(oneiro)) == PUBLIC


def test_every_public_name_is_there() -> None:
    found = {name: getattr(oneiro, name) for name in oneiro.__all__}
    assert found["Agent"].__module__ == "oneiro.agent"
    assert found["tree"].__name__ == "oneiro.tree"
    assert callable(found["dream"])


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert getattr(oneiro, "Dreamer", "nothing") == "nothing"


def test_public_names_of_testing() -> None:
    assert set(oneiro.testing.__all__) == PUBLIC_TESTING
    assert all(getattr(oneiro.testing, name).__doc__ for name in PUBLIC_TESTING - {"MakeBatch"})


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, oneiro; print('torch' in sys.modules, oneiro.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", oneiro.__version__]
