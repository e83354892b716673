"""What `benchmarks.limit` found, as a table in the terminal and as the page in docs."""

from typing import Any

from rich.table import Table

from benchmarks.limit_costs import ONEDNN, ROWS, STEPS, TOOLS

HEAD = """# What a limit costs

This page compares the time of `howsparse limit` with that of the procedure of the paper's authors, and with other tools
that multiply by the Hessian. It is for readers who choose between these tools.
"""
READING = f"""How to read the rows:

- *product in gradients*: the time of one product of the Hessian with a vector, divided by the time of one gradient of
  the same examples. howsparse keeps the graphs of the batches in memory for the next product. *Graphs rebuilt* is its
  time when it does not keep them.
- *product / howsparse's*: the time of a tool's product, divided by the time of howsparse's product. If it is 3,
  howsparse is 3 times faster. *By oneDNN*: the tool multiplies matrices with the same library as howsparse, oneDNN.
  Without these words it uses torch's default on a CPU, MKL.
- *density of {STEPS} steps / howsparse's*: the same ratio for a spectral density of {STEPS} Lanczos steps, with all
  work on vectors.
- *authors' procedure / howsparse*: the same ratio for the whole answer: the limit and the measured curves. *As used*:
  howsparse takes as many examples as a user would give it. *Equal examples*: howsparse takes all training examples, as
  the authors do. *With {ROWS} rows*: with the {ROWS} rows of the Hessian that the authors sample.
- "-": was not measured.
"""


def table(result: dict[str, Any]) -> Table:
    """Everything as ratios, one column a network."""
    networks: dict[str, dict[str, Any]] = result["networks"]
    shown = Table(title="Costs as ratios", title_justify="left")
    shown.add_column("")
    for name in networks:
        shown.add_column(name, justify="right", min_width=6)  # the labels may wrap, the numbers may not
    columns = [ratios(about) for about in networks.values()]
    for label in columns[0]:
        values = [column[label] for column in columns]
        shown.add_row(label, *("-" if value is None else f"{value:.2f}" for value in values))
    return shown


def page(lines_of_file: list[dict[str, Any]]) -> str:
    """The page in docs: the table and the remarks of the last record, in Markdown; one remark on the first record."""
    result, first = lines_of_file[-1], lines_of_file[0]
    networks: dict[str, dict[str, Any]] = result["networks"]
    columns, made = [ratios(about) for about in networks.values()], result["made"]
    lines = [
        HEAD,
        f"Made by `{made['command']}`; the record is in `results/limit_benchmark.jsonl`. All numbers are ratios of",
        f"times that were taken in one process with {result['threads']} threads on this processor:"
        f" {made['machine']['processor']}.",
        "",
        READING,
        "| | " + " | ".join(networks) + " |",
        "|---" * (len(networks) + 1) + "|",
    ]
    for label in columns[0]:
        cells = ["-" if column[label] is None else f"{column[label]:.2f}" for column in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    said = remarks(result) + ([elsewhere(first)] if first is not result else [])
    return "\n".join([*lines, "", *(f"- {remark}" for remark in said), ""])


def elsewhere(record: dict[str, Any]) -> str:
    """What an earlier record says of FC5, from another machine."""
    about = record["networks"]["FC5"]
    speedups = [about["product_speedup"][tool] for tool in TOOLS]
    alike = [about["product_speedup"][tool + ONEDNN] for tool in TOOLS]
    error = record["error"]
    return (
        f"An earlier record is from another machine ({record['made']['machine']['processor']}), with FC5 after 200"
        f" epochs and {record['images']['howsparse']:,} images. There howsparse was"
        f" {about['authors_seconds_with_rows'] / about['howsparse_seconds']:.0f} times faster than the authors'"
        f" procedure with rows and {about['authors_seconds'] / about['howsparse_seconds']:.0f} times faster without"
        f" them. Its product was {min(speedups):.1f} to {max(speedups):.1f} times faster than the tools', and"
        f" {min(alike):.1f} to {max(alike):.1f} times faster where all used oneDNN. So a part of such ratios comes from"
        f" a matrix library that is slow on the processor. The error of 1 - T was {error['howsparse']:.4f} for"
        f" howsparse and {error['authors']:.4f} for the authors' procedure."
    )


def ratios(about: dict[str, Any]) -> dict[str, float | None]:
    """One network's column."""
    gradients, speedup = about["product_gradients"], about["product_speedup"]
    ways = ("howsparse", "howsparse, graphs rebuilt", "authors", *TOOLS)
    column = {f"product in gradients: {way}": gradients.get(way) for way in ways}
    others = [way + by for way in ("authors", *TOOLS) for by in ("", ONEDNN)]
    column |= {f"product / howsparse's: {way}": speedup.get(way) for way in others}
    for tool in ("pyhessian", "hessian_eigenthings"):
        column[f"density of {STEPS} steps / howsparse's: {tool}"] = density_ratio(about, tool)
    for rows, words in (("", "authors' procedure"), ("_with_rows", f"authors' procedure with {ROWS} rows")):
        for key, examples in (("howsparse_seconds", "as used"), ("howsparse_seconds_equal_examples", "equal examples")):
            ours = about.get(key)
            column[f"{words} / howsparse, {examples}"] = (
                None if ours is None else about[f"authors_seconds{rows}"] / ours
            )
    return column


def density_ratio(about: dict[str, Any], name: str) -> float | None:
    seconds = about["density_seconds"]
    return None if seconds[name] is None else float(seconds[name] / seconds["howsparse"])


def remarks(result: dict[str, Any]) -> list[str]:
    """The errors, and what was timed and what scaled."""
    networks: dict[str, dict[str, Any]] = result["networks"]
    weights = [f"{name}: {about['weights']}" for name, about in networks.items()]
    lines = [f"Weights: {'; '.join(weights)}."]
    if result["error"] is not None:
        lines.append(of_error(result["error"]))
    counts = [
        f"{name}: {about['howsparse_examples']:,} of {about['train_examples']:,}"
        for name, about in networks.items()
        if "howsparse_examples" in about
    ]
    scaled = ", ".join(name for name, about in networks.items() if "howsparse_examples" not in about)
    lines += [
        "The authors' procedure takes all training examples. It was not run in full: some of its products and"
        " evaluations were timed on some of the examples, and these times were multiplied by the counts. The work on"
        " vectors in its Lanczos steps is not counted, which is in its favour. For fully connected networks the authors"
        " compute no rows of the Hessian, so the ratios without rows are the ones to compare.",
        f"As used, howsparse takes some of the examples ({'; '.join(counts)}) and at most {result['max_products']}"
        " products, and all of its time was measured. For equal examples, one product on all examples was timed, and"
        f" its time was multiplied by the number of products. On {scaled} all times were computed in this way, with"
        " FC5's number of products, and every product builds its graphs again.",
        f"Other tools: {', '.join(f'{tool} {version}' for tool, version in result['peers'].items())}.",
    ]
    refused = [(tool, name, why) for name, about in networks.items() for tool, why in about["refused"].items()]
    return lines + [f"{tool} does not take {name}: {why}" for tool, name, why in refused]


def of_error(error: dict[str, Any]) -> str:
    """How far the limits of FC5 are from that of a long run."""
    return (
        f"The error of the limit, 1 - T, of FC5 on {error['examples']} images is its distance from a reference: a"
        f" longer Lanczos run, whose bracket has a half-width of {error['reference_half_width']:.4f}. The authors'"
        f" {STEPS} steps with Gauss quadrature: {error['authors']:.4f} (the largest at 96 to {STEPS} steps is"
        f" {error['authors_worst_from_96_steps']:.4f}). howsparse: {error['howsparse']:.4f}; the half-width of its"
        f" bracket is {error['howsparse_half_width']:.4f}, or {error['howsparse_half_width_for_all_examples']:.4f} with"
        " the error of sampling the images."
    )
