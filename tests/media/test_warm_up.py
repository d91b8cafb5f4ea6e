import os
import subprocess
import sys

_FIRST_FILE = """
import sys
from media.clips import TIMELINE, clip
from distributed_avel.config import ExtractConfig
from distributed_avel.features.descriptors import Descriptors
from distributed_avel.media.warm_up import warm_up

extractor = Descriptors(TIMELINE, ExtractConfig())
media = clip(rate_hz=44_100)
if sys.argv[1] == "warm":
    warm_up()
before = {*sys.modules}
extractor.prepare(media)
print(len({*sys.modules} - before))
"""


def modules_that_the_first_file_loads(how: str) -> int:
    command = [sys.executable, "-c", _FIRST_FILE, how]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, env=environment, capture_output=True, check=True, text=True, timeout=120
    )
    return int(done.stdout)


def test_warm_up_imports_the_libraries_before_the_first_file():
    assert modules_that_the_first_file_loads("cold") > 500
    assert modules_that_the_first_file_loads("warm") < 20
