"""What importing the room takes; that the rest takes less, tests/stochca/test_import.py sees."""

import subprocess
import sys


def test_without_transformers_a_sentence_says_what_to_install() -> None:
    code = (
        "import importlib.util as util; found = util.find_spec\n"
        "util.find_spec = lambda name, *_: None if name == 'transformers' else found(name, *_)\n"
        "import stochca.language"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("needs the package transformers; install it with: pip install 'stochca[language]'")
