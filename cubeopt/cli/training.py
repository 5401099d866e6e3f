"""What a person sees of a training: live, an epoch a line, and the report at its end."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from cubeopt.cli.printing import number, say, table
from cubeopt.service.experiment import Progress as Trained
from cubeopt.service.experiment import Result
from cubeopt.training.diagnosis import Finding

Numbers = Mapping[str, float | None]

_JUDGED = ("fvu", "cosine", "top1", "mrr")
_NAMES = {"mean": "predict the mean", "identity": "copy the input", "ridge": "ridge regression"}


class TrainScreen:
    """On a terminal a bar with the live numbers; everywhere a line an epoch, and the findings."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("batches  {task.fields[left]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bar = self._progress.add_task(name, total=None, left="")
        self._live = Live(self._progress, console=console, transient=True)
        self._row: Numbers = {}  # of the last epoch

    def __enter__(self) -> "TrainScreen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def tell(self, trained: Trained) -> None:
        """Show where the training stands."""
        left = f"{timedelta(seconds=round(trained.seconds_left))} left"
        self._progress.update(
            self._bar, completed=trained.step, total=trained.total_steps, left=left
        )
        if trained.metrics is not None:
            self._row = trained.metrics
            brief = self._console.is_terminal  # where the rest stands below
            self._print(epoch_line(trained.epoch, trained.metrics, brief))
        for each in trained.findings:
            self._print(finding_line(each), style="yellow")
        lines = "\n".join(live_lines(trained, self._row))
        self._live.update(Group(self._progress, Text(lines)))

    def _print(self, text: str, style: str | None = None) -> None:
        whole = not self._console.is_terminal  # for what reads lines
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=whole)


def live_lines(trained: Trained, row: Numbers) -> list[str]:
    """The batches of the current epoch, what they cost, and the last validation."""
    batches = f"epoch {min(trained.epoch + 1, trained.epochs)} of {trained.epochs}"
    validated = [*_judged(row), *_usage(row)]
    lines = [
        "  ".join([batches, *_losses(trained.numbers), *_gradient(trained.numbers)]),
        "  ".join([f"{trained.samples_per_second:.4g} samples/s", *_device(row)]),
    ]
    if validated:
        lines.append("  ".join(["validation", *validated]))
    return lines


def epoch_line(epoch: int, row: Numbers, brief: bool) -> str:
    """The numbers of an epoch that a person looks at, all of them or a *brief* choice."""
    train = {
        name.removeprefix("train/"): value
        for name, value in row.items()
        if name.startswith("train/")
    }
    judged = [*_judged(row), *_usage(row)]
    if brief:
        return "  ".join([f"epoch {epoch}:", *_losses(train)[:1], *judged])
    speed = row.get("samples_per_second")
    shown = [] if speed is None else [f"{speed:.4g} samples/s"]
    parts = [*_losses(train), *judged, *_gradient(train), *shown, *_device(row)]
    return "  ".join([f"epoch {epoch}:", *parts])


def finding_line(finding: Finding) -> str:
    """A finding when it first appears."""
    return f"epoch {finding.first}: {_title(finding)}: {finding.sentence}"


def print_report(name: str, result: Result) -> None:
    """The result beside the baselines on the same rows, the findings, and where everything is."""
    value, tested = result.value, result.metrics.get(f"test/{result.metric}")
    say(f"{result.metric} {_shown(value)} on validation, {_shown(tested)} on test")
    say("")
    _print_comparison(name, result)
    say("")
    if result.corpora:
        _print_corpora(result)
        say("")
    for each in result.findings:
        epochs = f"epoch {each.first}"
        if each.last > each.first:
            epochs = f"epochs {each.first} to {each.last}"
        say(f"{epochs}: {_title(each)}: {each.sentence}")
    if not result.findings:
        say("no findings: nothing in the epochs' numbers looks wrong")
    say(f"checkpoint {result.checkpoint}")
    say(f"every epoch's numbers {result.log}")


def _print_comparison(name: str, result: Result) -> None:
    metrics = list(dict.fromkeys((result.metric, *_JUDGED)))
    groups = _groups(result)
    rows = [
        [label, group.removeprefix("/") or "all", split, *values]
        for group in groups
        for split in ("validation", "test")
        for label, scores in _compared(name, result, split)
        if set(values := [scores.get(f"{metric}{group}") for metric in metrics]) != {None}
    ]
    columns = ["", "task", "split", *metrics]
    if len(groups) == 1:
        columns, rows = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in rows]
    table(
        "beside the baselines, on the same rows (better: lower fvu, all others higher)",
        columns,
        rows,
    )


def _print_corpora(result: Result) -> None:
    table(
        "each corpus alone (fvu relative to the training mean of all)",
        ["corpus", "split", "rows", "fvu", "cosine", "PCA fvu", "PCA cosine"],
        [
            [
                *(each.corpus, each.split, each.rows),
                *(each.fvu, each.cosine, each.pca_fvu, each.pca_cosine),
            ]
            for each in result.corpora
        ],
    )


def _groups(result: Result) -> list[str]:
    """What the names of metrics end with: nothing, and of several tasks each one's name."""
    prefix = "test/fvu"
    return [name.removeprefix(prefix) for name in result.metrics if name.startswith(prefix)]


def _compared(name: str, result: Result, split: str) -> Iterator[tuple[str, Numbers]]:
    """The training and each baseline with their scores on *split*."""
    prefix = f"{split}/"
    own = {
        metric.removeprefix(prefix): value
        for metric, value in result.metrics.items()
        if metric.startswith(prefix)
    }
    yield name, own
    for each in result.baselines:
        label = _NAMES.get(each.name, f"PCA to {each.width} numbers")
        yield label, each.validation if split == "validation" else each.test


def _title(finding: Finding) -> str:
    return f"{finding.kind} {finding.subject}".rstrip()


def _losses(numbers: Numbers) -> list[str]:
    """The weighted loss, then each unweighted term."""
    prefix = "loss/"
    terms = {
        name.removeprefix(prefix): value
        for name, value in numbers.items()
        if name.startswith(prefix)
    }
    total = terms.pop("total", None)
    return [f"loss {_shown(total)}", *(f"{term} {_shown(value)}" for term, value in terms.items())]


def _gradient(numbers: Numbers) -> list[str]:
    return _named(numbers, {"gradient_norm/all": "gradient"})


def _judged(row: Numbers) -> list[str]:
    """The metrics of the validation, fvu and cosine also by task."""
    found = [
        name.removeprefix("validation/")
        for name in row
        if name.startswith(("validation/fvu", "validation/cosine"))
    ]
    return _named(row, {f"validation/{name}": name for name in (*found, "top1", "mrr")})


def _named(numbers: Numbers, names: Mapping[str, str]) -> list[str]:
    """Those of *names* that have a number, each by its short name."""
    return [
        f"{short} {value:.4f}"
        for name, short in names.items()
        if (value := numbers.get(name)) is not None
    ]


def _usage(row: Numbers) -> list[str]:
    """Each expert's share of the choices."""
    prefix = "validation/usage/"
    return [
        f"{name.removeprefix(prefix)} {value:.1f}%"
        for name, value in row.items()
        if name.startswith(prefix) and value is not None
    ]


def _device(row: Numbers) -> list[str]:
    """Memory at its peak, and how busy the device was."""
    memory, used = row.get("peak_memory_bytes"), row.get("device_utilisation")
    return [
        *(() if memory is None else (f"{memory / 1e9:.2f} GB",)),
        *(() if used is None else (f"device {used:.0f}%",)),
    ]


def _shown(value: float | None) -> str:
    return "-" if value is None else number(value)
