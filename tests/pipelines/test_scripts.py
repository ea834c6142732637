"""Flags, help, and what a script makes of bad input."""

import math
import sys

import pytest

from pipelines import (
    cluster,
    compress,
    distill,
    evaluate,
    export,
    predict,
    prune,
    prune_channels,
    quantize,
    recommend,
    report,
    search,
    share,
    sparse_train,
    train,
)
from pipelines.common import help as help_texts
from pipelines.common.flags import EPOCHS, Flag, settings_of, with_defaults
from pipelines.common.script import Script
from tests.pipelines.scripts import run
from tfpeft.core.arguments import InputError

SCRIPTS = [
    *(cluster, compress, distill, evaluate, export, predict, prune, prune_channels, quantize),
    *(recommend, report, search, share, sparse_train, train),
]


def test_bad_flags_are_one_line_and_status_1(tmp_path):
    status, _, errors = run("pipelines.compress", "--final_sparsity=1.0", cwd=tmp_path)
    assert status == 1
    assert "--final_sparsity, expected a number in [0, 1). Received: --final_sparsity=1" in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--no_such_flag=1", "no_such_flag"),
        ("--epochs=many", "--epochs, expected an integer of at least 1. Received: --epochs=many"),
        ("--epochs=1.5", "--epochs, expected an integer of at least 1. Received: --epochs=1.5"),
        ("--seed=0x", "--seed, expected an integer of at least 0. Received: --seed=0x"),
        ("--alpha=a: b", "--alpha, expected a number in [0, 1]. Received: --alpha=a: b"),
        ("--max_accuracy_drop=1j", "--max_accuracy_drop, expected a number in [-100, 100]. Rec"),
        ("--float16=perhaps", "--float16, expected true or false. Received: --float16=perhaps"),
        ("--float16=", "--float16, expected true or false. Received: --float16="),
        ("--nofloat16=true", "--nofloat16=true does not take an argument"),
        ("--flagfile", "--flagfile"),
        (
            '--exclude="a',
            '--exclude, expected values with commas between them. Received: --exclude="a',
        ),
        ("--epochs=0", "--epochs, expected an integer of at least 1. Received: --epochs=0"),
        ("--epochs", "Missing value for flag --epochs"),
        ("--scope=all", "--scope, expected one of layer, global, erk. Received: --scope=all"),
        ("--l1=nan", "--l1, expected a number above 0. Received: --l1=nan"),
        (
            "--stages=prune,melt",
            "--stages, expected some of tune, distill, sparse_train, prune_channels, ",
        ),
        ("file.keras", "Expected flags only. Received: file.keras"),
        ("--model=", "--model, expected a text that is not empty. Received: --model="),
        ("--output_dir=  ", "--output_dir, expected a text that is not empty"),
        ("--stages=", "--stages, expected one value or more. Received: --stages="),
        (
            "--exclude=a,,b",
            "--exclude, expected a text that is not empty. Received: --exclude=a,,b",
        ),
        ("--max_accuracy_drop=nan", "--max_accuracy_drop, expected a number in [-100, 100]"),
        ("--teacher_weights=1,nan", "--teacher_weights, expected numbers above 0"),
        ("--n_m=2,inf", "--n_m, expected integers of at least 1. Received: --n_m=2,inf"),
        ("--temperature=inf", "--temperature, expected a number above 0. Received: --tempera"),
        ("--seed=2147483648", "--seed, expected an integer of at least 0. Received: --seed=21474"),
        ("--student=nan", "--student, expected a .keras or .h5 file, module:function, or a width"),
        ("--name=../up", "--name, expected the name of a folder in --output_dir"),
    ],
)
def test_bad_flags_in_this_process(flag, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compress.SCRIPT.status([flag]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--alpha=0.5", "--float16", "--nofloat16"])
def test_flags_that_a_script_does_not_read_are_errors(flag, capsys):
    assert train.SCRIPT.status([flag]) == 1
    name = flag[2:].split("=")[0]
    assert capsys.readouterr().err == f"error: Received --{name}, which this script does not read\n"


def test_errors_of_files_are_one_line_and_bugs_keep_their_traceback(capsys):
    def script(error):
        def main(settings):
            raise error

        return Script(main, "", {}, ())

    for error in (InputError("of\ninput"), OSError("of a file")):
        assert script(error).status([]) == 1
    assert capsys.readouterr().err == "error: of input\nerror: of a file\n"
    assert script(InputError("of input")).status(["--debug"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("Traceback (most recent call last):\n")
    assert errors.endswith("\nerror: of input\n")
    for bug in (ValueError("of Keras"), KeyError("name")):
        with pytest.raises(type(bug)):
            script(bug).status([])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_no_flag_takes_an_empty_value_or_a_number_that_is_none(script):
    floats = ["nan", "NaN", "inf", "-inf", "1e999", "", " "]
    integers = [*floats, str(2**31), str(-(2**31))]
    texts = ["", " ", "\t", "\n"]
    items = {str: [], int: integers, float: floats}
    for flag in script.SCRIPT.flags:
        values = {
            **{str: texts, int: integers, float: floats, bool: ["", "nan", "2"]},
            list: ["", " ", ",", "a,,b", "a, ,b", *items[flag.items]],
        }
        for value in values[flag.kind]:
            with pytest.raises(InputError, match=f"--{flag.name}\\b"):
                script.SCRIPT.parse([f"--{flag.name}={value}"])


def test_a_pipe_that_nobody_reads_ends_the_script_in_silence(tmp_path, monkeypatch, capsys):
    """As of `| head`: the exit status is that of programs that SIGPIPE ends."""

    def main(settings):
        raise BrokenPipeError

    monkeypatch.setattr(sys, "argv", ["script"])
    with open(tmp_path / "output", "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as error:
            Script(main, "", {}, ()).run()
    assert error.value.code == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_help_has_the_docstring_and_each_flag_once(script, capsys):
    assert script.SCRIPT.status(["--help"]) == 1
    text = capsys.readouterr().out
    assert text.startswith(script.__doc__.strip().splitlines()[0])
    first = script.SCRIPT.first
    assert 1 <= len(first) <= 10
    described = [line.strip() for line in text.splitlines() if line.startswith("  --")]
    assert [name.removeprefix("--").removeprefix("[no]") for name in described] == list(first)
    assert script.SCRIPT.status(["--helpfull"]) == 1
    text = capsys.readouterr().out
    described = {line.strip() for line in text.splitlines() if line.startswith("  --")}
    names = {name.removeprefix("--").removeprefix("[no]") for name in described}
    assert names == {flag.name for flag in script.SCRIPT.flags}


def test_help_shows_groups_ranges_and_defaults():
    groups = {
        "small things": (
            Flag("part", float, 0.5, "Fraction of it.", above=0, at_most=1),
            Flag("deep", bool, False, "Whether all of it."),
        ),
        "others": (Flag("kind", str, None, "What it is.", choices=("a", "b")),),
    }
    assert help_texts.short("A script.\n", groups, ("part",)) == (
        "A script.\n\nFlags that matter most:\n\n"
        "  --part\n      Fraction of it. (a number in (0, 1]; default: 0.5)\n\n"
        "Other flags, which --helpfull describes:\n\n"
        "  small things: --deep\n  others: --kind"
    )
    assert help_texts.full("A script.\n", groups, ("deep",)) == (
        "A script.\n\nSmall things:\n\n"
        "  --[no]deep\n      Whether all of it. (default: false)\n"
        "  --part\n      Fraction of it. (a number in (0, 1]; default: 0.5)\n\n"
        "Others:\n\n  --kind\n      What it is. (one of a, b)"
    )


def test_settings_are_values_by_name_and_what_was_given():
    flags = [EPOCHS, Flag("names", list, (), "Names."), Flag("task", str, (), "", repeated=True)]
    script = Script(None, "", {"all": flags}, ())
    settings, files = script.parse(["--names=a,b", "--task=x=1", "--task=y", "--epochs", "2"])
    assert (settings.epochs, list(settings.names), list(settings.task)) == (
        2,
        ["a", "b"],
        ["x=1", "y"],
    )
    assert (settings.given, files) == ({"names", "task", "epochs"}, [])
    assert vars(settings_of(flags)) == {"epochs": 30, "names": (), "task": (), "given": frozenset()}
    more = with_defaults(settings, [EPOCHS, Flag("rank", int, 8, "")])
    assert (more.epochs, more.rank) == (2, 8)
    with pytest.raises(InputError, match="a flag among epochs, names, task. Received: epoch"):
        settings_of(flags, {"epoch": 1})


@pytest.mark.parametrize(
    ("bounds", "expected", "inside", "outside"),
    [
        ({"at_least": 0, "below": 1}, "a number in [0, 1)", [0, 0.99], [-0.1, 1, math.nan]),
        ({"above": 0, "at_most": 1}, "a number in (0, 1]", [0.01, 1], [0, 1.1]),
        ({"above": 0}, "a number above 0", [0.1, 1e300], [0, -1, math.nan, math.inf]),
        ({"at_least": 2}, "a number of at least 2", [2], [1.9]),
        ({}, "", [-1, 0], [math.nan, -math.inf, "1", True]),
    ],
)
def test_a_flag_takes_the_numbers_of_its_range(bounds, expected, inside, outside):
    flag = Flag("x", float, None, "", **bounds)
    assert flag.expected == expected
    for value in [None, *inside]:
        flag.check(value)
    for value in outside:
        with pytest.raises(InputError, match="--x, expected"):
            flag.check(value)
