"""What importing the room takes."""

import subprocess
import sys


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_rest_of_the_library_does_not_wait_for_transformers() -> None:
    done = run(
        "import stochca.training.fit, stochca.extending, sys; assert 'transformers' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_without_transformers_a_sentence_says_what_to_install() -> None:
    done = run(
        "import importlib.util as util; found = util.find_spec\n"
        "util.find_spec = lambda name, *_: None if name == 'transformers' else found(name, *_)\n"
        "import stochca.language"
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("needs the package transformers; install it with: pip install 'stochca[language]'")
