"""Options from files: precedence, errors, and --print-config."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click
import pytest
from command_line import SMALL, fails, streamfuse
from media import every, write_images, write_video

from streamfuse.cli import options
from streamfuse.cli.run import command as run
from streamfuse.errors import InputError, StreamfuseError, UsageError
from streamfuse.sources import open_pair, open_source
from streamfuse.support.urls import expand, mask, redact

SECRET = "pa@ss/w:o%rd?"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "a.toml"


def invoke(command: click.Command, *args: object) -> object:
    return command.main(
        [str(arg) for arg in args], "streamfuse run", standalone_mode=False, auto_envvar_prefix="STREAMFUSE_RUN"
    )


def shown(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Return the output of --print-config."""
    assert invoke(run, *args, "--print-config") == 0
    return capsys.readouterr().out


def test_flag_then_environment_then_file_then_default(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('crf = 30\nencoder-preset = "slow"\nframes = 2\n')
    monkeypatch.setenv("STREAMFUSE_RUN_ENCODER_PRESET", "fast")
    monkeypatch.setenv("STREAMFUSE_RUN_FRAMES", "3")
    text = shown(capsys, "--frames", 4, "--config", config)
    for line in (
        "frames = 4  # flag",
        'encoder-preset = "fast"  # environment STREAMFUSE_RUN_ENCODER_PRESET',
        f"crf = 30  # file {config}:1",
        'codec = "h264"  # default',
        "# fps is not set",
    ):
        assert line in text.splitlines()


def test_several_values_in_the_environment_are_on_lines_of_their_own(tmp_path: Path) -> None:
    outputs = tmp_path / "my film.mp4", tmp_path / "its film.mp4"
    done = streamfuse(
        *("run", "--ir", "synthetic:ir?seconds=0.2&fps=10&size=64x48", *SMALL),
        *("--vis", "synthetic:vis?seconds=0.2&fps=10&size=64x48"),
        STREAMFUSE_RUN_OUTPUT="\n".join(map(str, outputs)),
        STREAMFUSE_RUN_ALARM="max > 60C for 2s",
    )
    assert done.returncode == 0, done.stderr
    assert all(output.stat().st_size for output in outputs)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tolerance-ms = -3", "tolerance-ms: -3.0 is not in the range"),
        ("fps = nan", "fps: nan is not a finite number"),
        ("frames = 2.5", "frames: '2.5' is not a valid integer"),
        ("frames = true", "frames: true is no value"),
        ("frames = 1979-05-27", "frames: must be a number"),
        ("tone = 3", 'tone: must be in quotes, as in "3"'),
        ("force = 1", "force: must be true or false"),
        ("ir = ['a', 'b']", "ir: must be one value"),
        ("ir = [\n'a',\n'b'\n]", "ir: must be one value"),
        ("tonee = 1", "unknown key 'tonee'; did you mean 'tone'?"),
        ("IR_OFFSET_MS = 1", "unknown key 'IR_OFFSET_MS'; did you mean 'ir-offset-ms'?"),
        ("zebra = 1", "unknown key 'zebra'; known are"),
        ("print-config = true", "unknown key 'print-config'"),
        ("ir = ", "not valid TOML: Invalid value (column 6)"),
        ("sources = 3", "sources: must be a table"),
        ("sources.front = 3", "sources.front: must be a source in quotes"),
    ],
)
def test_errors_name_file_line_and_key(config: Path, line: str, words: str) -> None:
    config.write_text(f'# one\nvis = """two\nthree\n"""\r\n\n{line}\n')
    with pytest.raises(UsageError) as error:
        invoke(run, "--config", config, "--tolerance-ms", "5", "-o", "out.mp4")
    assert str(error.value).startswith(f"{config}:6: {words}")
    assert "\n" not in str(error.value)


def test_truncated_and_binary_files(config: Path) -> None:
    config.write_text('tone = "smooth"\nir = [\n')
    with pytest.raises(UsageError, match=r"a\.toml:2: not valid TOML"):
        invoke(run, "--config", config)
    config.write_bytes(b'# M\xc3\xa4rz\nir = "\xff"\n')
    with pytest.raises(UsageError, match=r"a\.toml:2: not valid TOML: not UTF-8"):
        invoke(run, "--config", config)
    config.write_bytes(b"\xef\xbb\xbffps = 0\r\n")
    with pytest.raises(UsageError, match=r"a\.toml:1: fps: "):
        invoke(run, "--config", config)


def test_options_of_every_type(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got: dict[str, object] = {}

    @click.command()
    @click.option("--tag", multiple=True)
    @click.option("--shift", nargs=2, type=float)
    @click.option("--mode", type=click.Choice(["a", "b"]))
    @click.option("--loud/--quiet", default=True)
    @click.option("--size", default="64x48", callback=options.parse_size)
    @options.config
    @options.print_config
    def other(**values: object) -> None:
        got.update(values)

    written = 'tag = ["x", "y"]\nshift = [1, 2.5]\nmode = "b"\nloud = false\nsize = "64x32"\n'
    config.write_text(written)
    invoke(other, "--config", config)
    assert got == {"tag": ("x", "y"), "shift": (1.0, 2.5), "mode": "b", "loud": False, "size": (32, 64)}
    for line in ('mode = "c"', "shift = [1]", "shift = 1", "tag = [1]", 'size = "big"'):
        config.write_text(f"\n{line}")
        with pytest.raises(UsageError, match=rf"a\.toml:2: {line.split()[0]}: "):
            invoke(other, "--config", config)
    config.write_text(written)
    invoke(other, "--config", config, "--print-config")
    text = capsys.readouterr().out
    values = tomllib.loads(text)
    assert values == {"tag": ["x", "y"], "shift": [1.0, 2.5], "mode": "b", "loud": False}
    assert "# size = [32, 64]" in text  # what its callback made of it; it cannot be read back


def test_printed_configuration_can_be_read_back(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFUSE_PW", SECRET)
    config.write_text(
        'ir = "front"\nir-offset-ms = -1e-7\nweights = "a \\"b\\" \\u007f \\\\ ü"\nforce = true\n'
        f'[sources]\nfront = "rtsp://${{STREAMFUSE_USER}}:${{STREAMFUSE_PW}}@cam/1?key=abc"\n'
        f'side = "rtsp://me:{SECRET}@cam/1"\n'
    )
    first = shown(capsys, "--config", config, "--vis", "side", "-o", "rtsp://me:hush@host/out")
    values = tomllib.loads(first)
    assert values["ir"] == "rtsp://${STREAMFUSE_USER}:${STREAMFUSE_PW}@cam/1?key=***"
    assert (values["ir-offset-ms"], values["weights"], values["force"]) == (-1e-7, 'a "b" \x7f \\ ü', True)
    for secret in ("abc", "rd?", "o%r", "ss/w", "pa@", "hush", "me:"):
        assert secret not in first
    config.write_text(first)
    assert tomllib.loads(shown(capsys, "--config", config)) == values


def test_sources_by_name(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text('ir = "front"\nvis = "back"\n[sources]\nfront = "back"\nback = "a/b.mp4"\n"c/d.mp4" = "e.mp4"\n')
    values = tomllib.loads(shown(capsys, "--config", config))
    assert (values["ir"], values["vis"]) == ("back", "a/b.mp4")  # a name is looked up once
    values = tomllib.loads(shown(capsys, "--vis", "c/d.mp4", "--ir", "unknown.mp4", "--config", config))
    assert (values["ir"], values["vis"]) == ("unknown.mp4", "e.mp4")


def test_variables_in_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STREAMFUSE_PW", SECRET), ("STREAMFUSE_DIR", "a b/${STREAMFUSE_PW}"), ("OTHER", "no")):
        monkeypatch.setenv(name, value)
    encoded = "pa%40ss%2Fw%3Ao%25rd%3F"
    for text, expanded in (
        ("rtsp://me:${STREAMFUSE_PW}@host/${STREAMFUSE_DIR}", f"rtsp://me:{encoded}@host/a b/${{STREAMFUSE_PW}}"),
        ("rtsp://${STREAMFUSE_PW}@host/x?mail=a@b", f"rtsp://{encoded}@host/x?mail=a@b"),
        ("rtsp://host/x?token=${STREAMFUSE_PW}", f"rtsp://host/x?token={SECRET}"),
        ("${STREAMFUSE_DIR}/x.mp4", "a b/${STREAMFUSE_PW}/x.mp4"),
        (
            "${OTHER}/$HOME/~/${streamfuse_pw}/$STREAMFUSE_PW/%06d",
            "${OTHER}/$HOME/~/${streamfuse_pw}/$STREAMFUSE_PW/%06d",
        ),
    ):
        assert expand(text) == expanded
    with pytest.raises(UsageError, match=r"rtsp://\*\*\*@host/x needs the environment variable STREAMFUSE_GONE"):
        expand("rtsp://me:hush${STREAMFUSE_GONE}@host/x")


def test_variables_are_replaced_where_sources_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFUSE_PLACE", str(tmp_path))
    write_video(tmp_path / "a.mp4", every(40, 3))
    write_images(tmp_path / "ir", ["1.png", "2.png"])
    with open_source("${STREAMFUSE_PLACE}/a.mp4") as source:
        assert len(list(source)) == 3
    for source in open_pair("${STREAMFUSE_PLACE}/ir", "${STREAMFUSE_PLACE}/ir"):
        assert len(list(source)) == 2


def test_no_secret_in_errors(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFUSE_PW", SECRET)
    monkeypatch.setenv("STREAMFUSE_ALL", "gopher://me:hush@host/x?token=hush")
    for text in (
        'ir = "gopher://me:hush@h/x"\n',
        'ir = "gopher://me:${STREAMFUSE_PW}@h/x"\n',
        'ir = "${STREAMFUSE_ALL}"\n',
        'ir = "gopher://me:hush${STREAMFUSE_GONE}@h/x"\n',
        'frames = "gopher://me:hush@h/x"\n',
        'ir = "gopher://me:hush@h/x\n',
    ):
        config.write_text(text)
        with pytest.raises((StreamfuseError, click.ClickException)) as error:
            invoke(run, "--config", config, "--vis", "gone.mp4", "-o", "out.mp4")
        assert not isinstance(error.value, InputError)
        for secret in ("hush", "ss/w", "ss%2Fw"):
            assert secret not in str(error.value)


def test_redact_and_mask_hide_what_may_be_secret() -> None:
    for text, redacted, masked in (
        ("rtsp://me:p?w@host/a", "rtsp://***", "rtsp://***"),
        ("rtsp://me:p@ss/w@host/a?k=1", "rtsp://***@host/a", "rtsp://***:***@host/a?k=***"),
        ("rtsp://h/a?token=x@y&k=secret", "rtsp://***", "rtsp://***"),
        ("rtsp://me@h/a", "rtsp://***@h/a", "rtsp://***@h/a"),
        ("rtsp://h/a?b&c=&d=${STREAMFUSE_D}", "rtsp://h/a", "rtsp://h/a?b&c=&d=${STREAMFUSE_D}"),
        ("synthetic:ir?seconds=1", "synthetic:ir?seconds=1", "synthetic:ir?seconds=1"),
        ("a@b?c.mp4", "a@b?c.mp4", "a@b?c.mp4"),
    ):
        assert redact(text) == redacted
        assert mask(text) == masked


def test_environment_variables_use_long_option_names(tmp_path: Path) -> None:
    """Also for options whose parameter has another name: --recipe, --data."""
    environment = {"STREAMFUSE_TRAIN_FUSION_RECIPE": "nonesuch", "STREAMFUSE_TRAIN_FUSION_DATA": str(tmp_path)}
    fails(2, "nonesuch", "train", "fusion", "-o", tmp_path / "run", **environment)


def test_named_sources_are_patterns_of_a_batch(config: Path, tmp_path: Path) -> None:
    config.write_text(f'ir = "front"\n[sources]\nfront = "{tmp_path}/*/ir.mp4"\n')
    done = streamfuse("batch", "--config", config, "--vis", f"{tmp_path}/*/vis.mp4", "-o", tmp_path / "out")
    assert done.returncode == 3
    assert f"{tmp_path}/*/ir.mp4" in done.stderr
