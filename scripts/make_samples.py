"""Make samples/: short H.264 clips of the synthetic world with questions and right answers.

The clips are scenes of the development split at several sizes, frame rates and lengths. Of each scene's questions,
those are kept that are of a type the model is good at (else an answer could hang on the version of a runtime) and that
the embedded bundle answers right with all its tokens: the samples show the path, they do not measure the model (the
model card does).

    python scripts/make_samples.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from edgevtc import Runner
from edgevtc.eval.world import World
from edgevtc.eval.world_video import write_mp4

#: width, height, frames a second, seconds.
FORMS = {
    "corridor": ((384, 384), 8, 8.0),
    "yard": ((640, 480), 15, 6.0),
    "gate": ((320, 240), 30, 4.0),
    "hall": ((1280, 720), 25, 5.0),
    "lobby": ((256, 256), 10, 20.0),
    "dock": ((480, 640), 12, 10.0),
}
QUESTIONS = 6

#: Types of which the model card gives more than nine right in ten.
TYPES = (
    *("change", "color", "count", "direction", "exist", "flash", "last"),
    *("needle", "order", "shape", "size", "was", "when"),
)


def main() -> None:
    """Write the clips and samples/questions.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "samples")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--bundle")
    args = parser.parse_args()
    world, runner, entries = World("dev", args.seed, phrasings=1), Runner(args.bundle, method="none"), []
    with tempfile.TemporaryDirectory() as folder:
        for name, (size, fps, seconds) in FORMS.items():
            path = Path(folder) / f"{name}.mp4"
            while True:
                scene = world.scene()
                write_mp4(path, scene, world.renderer, size=size, fps=fps, seconds=seconds, crf=28)
                video = runner.open(path)
                asked = [question for question in world.questions(scene) if question.type in TYPES]
                right = [q for q in asked if video.ask(q.text).answer == q.answer]
                print(f"{name}: {len(right)} of {len(asked)} right")
                if len(right) >= QUESTIONS and len({q.type for q in right}) >= QUESTIONS - 1:
                    break
            path.replace(args.output / path.name)
            questions = [{"type": q.type, "question": q.text, "answer": q.answer} for q in right[:QUESTIONS]]
            entries.append({"file": path.name, "questions": questions})
    (args.output / "questions.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
