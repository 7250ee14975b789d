"""Claims on a cell as processes that need not be there would have made them."""

import json

from mlrpl_bench.records.leases import liveness


def owned_by(process: int, folder, number=1, beats=b""):
    """A claim as a process of this machine with that number would have made it."""
    facts = {"owner": f"{process}-{number}", "pid": process, "host": "here", "place": liveness.place()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"claim-{number}.jsonl").write_bytes(json.dumps(facts).encode() + b"\n" + beats)


def elsewhere(folder, number=1, beats=b""):
    """A claim of a process that cannot be seen from here."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"owner": "far away", "pid": 1, "host": "there", "place": "another machine"}
    (folder / f"claim-{number}.jsonl").write_bytes(json.dumps(facts).encode() + b"\n" + beats)
