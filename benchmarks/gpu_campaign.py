"""Everything that a rare and brief GPU is needed for, in one command, the most valuable first.

    python benchmarks/gpu_campaign.py --minutes 9 -o campaign/          # on the card; again: what is still missing
    python benchmarks/gpu_campaign.py --use campaign/                   # anywhere: profile, pages, plots
    python benchmarks/gpu_campaign.py --device cpu --rehearse -o toy/   # every part at toy size, CUDA played on the CPU

Each part is bounded in time, each result written when it is there (JSON lines in at most 8 files of 16 MiB).
Needs torch, triton, numpy, scipy, pydantic, networkx, PyYAML, rich, typer, matplotlib and, for energy, nvidia-ml-py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.campaign.parts import PARTS, WORDS, Campaign, compared_neurons, smallest_step
from benchmarks.campaign.records import FileFull, Records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="the folder of the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="how long the card may be used")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rehearse", action="store_true", help="every part at toy size, CUDA played on the CPU")
    parser.add_argument("--use", type=Path, metavar="OUT", help="fit the profile and write the pages from results")
    parser.add_argument("--into", type=Path, default=Path(__file__).resolve().parents[1], help="where --use writes")
    parser.add_argument("--smallest-step", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--neurons", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.smallest_step:
        smallest_step(arguments.device)
    elif arguments.neurons:
        print(json.dumps(compared_neurons(arguments.device)))
    elif arguments.use is not None:
        from benchmarks.campaign.pages import use

        for path in use(arguments.use, arguments.into):
            print(path)
    elif arguments.output is None:
        parser.error("name the folder of the results: -o OUT/")
    elif arguments.rehearse != (arguments.device == "cpu"):
        parser.error("a campaign runs on a GPU, its rehearsal on the CPU: --device cpu --rehearse go together")
    else:
        bad = run(arguments.output, arguments.minutes, arguments.device, arguments.rehearse)
        if bad and arguments.rehearse:
            raise SystemExit(f"error: the rehearsal failed: {', '.join(bad)}")


def run(folder: Path, minutes: float, device: str, rehearsal: bool) -> list[str]:
    """All parts, in order, within the time; the names of what failed or came out wrong."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: torch finds no GPU here: rehearse with --device cpu --rehearse")
    torch.set_num_threads(1)
    begun = time.monotonic()
    end = begun + 60 * minutes
    campaign = Campaign(device, rehearsal, folder, end)
    records = Records(folder)
    bad: list[str] = []
    for name, share, units in PARTS:
        until = end if rehearsal else time.monotonic() + share * (end - time.monotonic())
        print(f"[{time.monotonic() - begun:5.0f} s] {WORDS[name]}", flush=True)
        try:
            bad += _part(campaign, records, name, units, until)
        except FileFull as full:
            print(f"         {full}", flush=True)
            bad.append(name)
    print(f"[{time.monotonic() - begun:5.0f} s] results are in {folder}", flush=True)
    return bad


def _part(campaign, records, name, units, until) -> list[str]:  # type: ignore[no-untyped-def]
    bad: list[str] = []
    for key, compute in units(campaign):
        if records.is_done(name, key):
            continue
        if time.monotonic() > until:
            print(f"         out of time before {key}: run the same command again for the rest", flush=True)
            return [*bad, f"{name}: out of time"]
        begun = time.monotonic()
        try:
            record = compute()
        except KeyboardInterrupt:
            raise
        except Exception as error:  # whatever one unit raises costs this unit alone, and is written down
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            record = {"failed": f"{type(error).__name__}: {reason}"}
        record["took_s"] = time.monotonic() - begun
        records.write(name, key, **record)
        verdict = "" if "right" not in record else " right" if record["right"] else " WRONG"
        print(f"         {key}:{verdict} {record.get('failed', '')} ({record['took_s']:.1f} s)", flush=True)
        refused = record.get("refused", {})  # ways of the paper's comparison that did not run
        for way, reason in refused.items():
            print(f"           {way}: {reason}", flush=True)
        if "failed" in record or not record.get("right", True) or refused:
            bad.append(f"{name}: {key}")
    return bad


if __name__ == "__main__":
    main()
