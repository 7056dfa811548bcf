"""What a profile measures: of this process, of those it starts, and of Beam."""

import subprocess
import sys
import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.running.profile import profiled

MIB = 1 << 20


def test_time_memory_and_bytes_of_a_process_and_those_it_starts(tmp_path):
    path = tmp_path / "written"
    code = f"x = bytearray(b'1') * {200 * MIB}; open({str(path)!r}, 'rb').read(); sum(range(10**7))"
    code += "; import time; time.sleep(1.5)"
    with profiled() as before:
        pass
    with profiled() as profile:
        path.write_bytes(b"0" * 9 * MIB)
        subprocess.run([sys.executable, "-c", code], check=True)
    assert profile.seconds >= 1.5
    assert 0.1 < profile.cpu < profile.seconds
    assert profile.peak - before.peak > 150 * MIB
    if sys.platform == "linux":
        assert 9 * MIB <= profile.written < 10 * MIB
        assert 9 * MIB <= profile.read < 20 * MIB
    assert profile.steps == []


def test_beam_steps_by_the_time_they_took():
    def slow(x: int) -> int:
        ends = time.monotonic() + 0.1
        while time.monotonic() < ends:
            pass
        return x

    with profiled() as profile, beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as root:
        _ = root | beam.Create(range(20)) | "Slow" >> beam.Map(slow) | "Quick" >> beam.Map(str)
    assert profile.steps[0]["step"] == "Slow"
    assert profile.steps[0]["seconds"] == pytest.approx(2, abs=1.5)


def test_what_raises_is_measured_and_raised():
    with pytest.raises(ValueError, match="mended"), profiled() as profile:
        raise ValueError("mended")
    assert profile.peak > 0
    assert beam.Pipeline.run.__name__ == "run"
